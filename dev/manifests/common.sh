# What install and uninstall share. Sourced by both, run by nobody.
# shellcheck shell=bash disable=SC2034 # used by who sources it
namespace=${MCP_GATEWAY_NAMESPACE:-mcp}
system=${MCP_GATEWAY_SYSTEM_NAMESPACE:-mcp-gateway-system}
image=${MCP_GATEWAY_IMAGE:-localhost/mcp-gateway:dev}
agent_image=${MCP_GATEWAY_AGENT_IMAGE:-localhost/mcp-gateway-agent:dev}

# deployments FORM: what runs in it.
deployments() {
  case $1 in
    alone) echo mcp-gateway ;;
    roles) echo mcp-gateway-autoscaler mcp-gateway-activator ;;
  esac
}

# KUBECTL may hold arguments, such as "dev/cluster kubectl".
# shellcheck disable=SC2086
kube() { ${KUBECTL:-kubectl} "$@"; }

apply() { kube apply --server-side --force-conflicts --field-manager=mcp-gateway-install -f - >&2; }

# manifests FILE...: with the namespaces and images of this installation. They are written with the usual ones, so that
# kubectl takes them as they are: "mcp" alone as a value is the backends' namespace.
manifests() {
  local file
  for file in "$@"; do
    echo ---
    sed -E -e "s|: mcp(\}*)\$|: $namespace\1|; s|: mcp\}|: $namespace}|g" -e "s|mcp-gateway-system|$system|g" \
      -e "s|localhost/mcp-gateway:dev|$image|; s|localhost/mcp-gateway-agent:dev|$agent_image|" "$here/$file"
  done
}
