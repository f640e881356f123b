"""The cluster's DNS as objects: CoreDNS as a Deployment behind the Service kube-dns."""

from __future__ import annotations

from layout import API_PORT, DNS_IMAGE, DNS_IP, NODE_IP

SPACE = "kube-system"
LABELS = {"k8s-app": "kube-dns"}
COREFILE = """\
.:5353 {
    errors
    health :8080
    ready :8181
    cache 5
    loadbalance
    kubernetes cluster.local in-addr.arpa ip6.arpa {
        pods insecure
        ttl 5
    }
}
"""
PODS = f"/api/v1/namespaces/{SPACE}/pods?labelSelector=k8s-app%3Dkube-dns"
ENDPOINTS = (f"/apis/discovery.k8s.io/v1/namespaces/{SPACE}/endpointslices"
             "?labelSelector=kubernetes.io/service-name%3Dkube-dns")


def _meta(name: str, **more: object) -> dict:
    return {"name": name, "namespace": SPACE, "labels": LABELS, **more}


def _probe(path: str, port: int) -> dict:
    return {"httpGet": {"path": path, "port": port}, "periodSeconds": 1, "failureThreshold": 10}


def _pod() -> dict:
    return {
        "serviceAccountName": "coredns",
        "dnsPolicy": "Default",
        "priorityClassName": "system-cluster-critical",
        "terminationGracePeriodSeconds": 1,
        "tolerations": [{"operator": "Exists"}],
        "volumes": [{"name": "config", "configMap": {"name": "coredns"}}],
        "containers": [{
            "name": "coredns", "image": DNS_IMAGE, "imagePullPolicy": "Never",
            "args": ["-conf", "/etc/coredns/Corefile"],
            # Straight, so that it need not wait for the Service's rules to be there.
            "env": [{"name": "KUBERNETES_SERVICE_HOST", "value": NODE_IP},
                    {"name": "KUBERNETES_SERVICE_PORT", "value": str(API_PORT)}],
            "ports": [{"containerPort": 5353, "protocol": "UDP"}],
            "resources": {"requests": {"cpu": "10m", "memory": "20Mi"}},
            "readinessProbe": _probe("/ready", 8181),
            "livenessProbe": _probe("/health", 8080),
            "securityContext": {"runAsNonRoot": True, "allowPrivilegeEscalation": False,
                                "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}},
            "volumeMounts": [{"name": "config", "mountPath": "/etc/coredns", "readOnly": True}],
        }],
    }


def objects() -> list[tuple[str, dict]]:
    """Paths and bodies, in an order in which they can be made."""
    rbac = {"apiVersion": "rbac.authorization.k8s.io/v1"}
    core = f"/api/v1/namespaces/{SPACE}"
    role = "/apis/rbac.authorization.k8s.io/v1/clusterroles/coredns"
    rules = [
        {"apiGroups": [""], "resources": ["services", "pods", "namespaces"], "verbs": ["list", "watch"]},
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]},
    ]
    ports = [{"name": name.lower(), "port": 53, "targetPort": 5353, "protocol": name} for name in ("UDP", "TCP")]
    return [
        (f"{core}/serviceaccounts/coredns", {
            "apiVersion": "v1", "kind": "ServiceAccount", "metadata": _meta("coredns")}),
        (role, {**rbac, "kind": "ClusterRole", "metadata": {"name": "coredns"}, "rules": rules}),
        (role.replace("clusterroles", "clusterrolebindings"), {
            **rbac, "kind": "ClusterRoleBinding", "metadata": {"name": "coredns"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "coredns"},
            "subjects": [{"kind": "ServiceAccount", "name": "coredns", "namespace": SPACE}],
        }),
        (f"{core}/configmaps/coredns", {
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": _meta("coredns"), "data": {"Corefile": COREFILE}}),
        (f"{core}/services/kube-dns", {
            "apiVersion": "v1", "kind": "Service", "metadata": _meta("kube-dns"),
            "spec": {"selector": LABELS, "clusterIP": DNS_IP, "ports": ports}}),
        (f"/apis/apps/v1/namespaces/{SPACE}/deployments/coredns", {
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": _meta("coredns"),
            "spec": {"replicas": 1, "selector": {"matchLabels": LABELS},
                     "template": {"metadata": {"labels": LABELS}, "spec": _pod()}}}),
    ]
