"""Where everything of the test cluster is: addresses, folders, names of its parts."""

from __future__ import annotations

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
MODULE = ROOT / "dev" / "kubernetes"
STATE = Path(os.environ.get("MCP_GATEWAY_CLUSTER_DIR", ROOT / "target" / "cluster")).resolve()
BIN, DATA, LOGS = STATE / "bin", STATE / "data", STATE / "logs"
IMAGES, PKI, CONFIG = STATE / "images", STATE / "pki", STATE / "config"
KUBECONFIG = STATE / "kubeconfig"
CONTAINERD = STATE / "run" / "containerd.sock"
CNI_PLUGINS = next((p for p in (Path("/usr/lib/cni"), Path("/opt/cni/bin")) if p.is_dir()), Path("/usr/lib/cni"))

# 198.18.0.0/15 is the range set aside for benchmarks: nobody's network is in it.
NODE_NAME, NODE_IP = "mcp-gateway", "198.18.0.10"
POD_CIDR, SERVICE_CIDR = "198.18.1.0/24", "198.19.0.0/24"
API_SERVICE_IP, DNS_IP = "198.19.0.1", "198.19.0.10"
API_PORT = 6443
# Out of the pods' reach, as it asks nobody who they are.
ETCD = "127.198.18.10"
BRIDGE = "mcpgw0"
CGROUP = "mcp-gateway-cluster"

# One per machine, since addresses, bridge and packet filter are the machine's.
OWNER = Path("/run/mcp-gateway-cluster")
HOST_LOCK = Path("/run/lock/mcp-gateway-cluster")

PAUSE_IMAGE = "localhost/mcp-gateway-pause:dev"
DNS_IMAGE = "localhost/mcp-gateway-dns:dev"
PROBE_IMAGE = "localhost/mcp-gateway-probe:dev"

# In the order in which they are started.
PARTS = (
    "etcd", "containerd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy",
)


class Failure(Exception):
    """What went wrong, in a sentence for the person at the terminal."""

    code = 1


class Unfit(Failure):
    """This machine cannot run the cluster as things are: exit status 3, so that a
    caller may skip what needs it."""

    code = 3


def say(text: str) -> None:
    print(f"cluster: {text}", file=sys.stderr, flush=True)


def part(name: str) -> str:
    """A part by its full name or without its `kube-`."""
    for known in (name, f"kube-{name}"):
        if known in PARTS:
            return known
    raise Failure(f"no part is called {name!r}: {', '.join(PARTS)}")
