"""What each part of the cluster is started with: its arguments and its configuration."""

from __future__ import annotations

import json

from layout import (
    API_PORT, BIN, BRIDGE, CGROUP, CNI_PLUGINS, CONFIG, CONTAINERD, DATA, DNS_IP, ETCD, NODE_IP, NODE_NAME, PAUSE_IMAGE,
    PKI, POD_CIDR, SERVICE_CIDR, STATE,
)

CONTAINERD_TOML = f"""\
version = 3
root = "{DATA}/containerd"
state = "{STATE}/run/containerd"
# Only what the kubelet needs: no snapshotters and differs of other file systems.
disabled_plugins = [
  "io.containerd.snapshotter.v1.blockfile", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.erofs", "io.containerd.differ.v1.erofs",
  "io.containerd.snapshotter.v1.zfs", "io.containerd.tracing.processor.v1.otlp", "io.containerd.nri.v1.nri",
]

[grpc]
  address = "{CONTAINERD}"

[plugins."io.containerd.cri.v1.images"]
  snapshotter = "overlayfs"
  [plugins."io.containerd.cri.v1.images".pinned_images]
    sandbox = "{PAUSE_IMAGE}"

[plugins."io.containerd.cri.v1.runtime"]
  # Below the state folder, so that what is left of them can be told from others'.
  netns_mounts_under_state_dir = true
  # Root of a container lacks the right to lower what it was given (CAP_SYS_RESOURCE).
  restrict_oom_score_adj = true
  [plugins."io.containerd.cri.v1.runtime".cni]
    bin_dirs = ["{CNI_PLUGINS}"]
    conf_dir = "{CONFIG}/cni"
  [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
      SystemdCgroup = false
      Root = "{STATE}/run/runc"
"""

# Without ipMasq: pods reach each other, the node and nothing outside this machine.
CNI = {
    "cniVersion": "1.0.0",
    "name": "mcp-gateway",
    "plugins": [
        {
            "type": "bridge", "bridge": BRIDGE, "isGateway": True, "ipMasq": False, "hairpinMode": True,
            "ipam": {
                "type": "host-local", "dataDir": f"{DATA}/cni", "ranges": [[{"subnet": POD_CIDR}]],
                "routes": [{"dst": "0.0.0.0/0"}],
            },
        },
        {"type": "portmap", "capabilities": {"portMappings": True}},
    ],
}

KUBELET = {
    "apiVersion": "kubelet.config.k8s.io/v1beta1",
    "kind": "KubeletConfiguration",
    "address": NODE_IP,
    "healthzBindAddress": NODE_IP,
    "authentication": {"anonymous": {"enabled": False}, "webhook": {"enabled": True},
                       "x509": {"clientCAFile": f"{PKI}/ca.crt"}},
    "authorization": {"mode": "Webhook"},
    "tlsCertFile": f"{PKI}/kubelet-serving.crt",
    "tlsPrivateKeyFile": f"{PKI}/kubelet-serving.key",
    "containerRuntimeEndpoint": f"unix://{CONTAINERD}",
    "cgroupDriver": "cgroupfs",
    "cgroupRoot": f"/{CGROUP}",
    "failCgroupV1": False,
    "failSwapOn": False,
    "clusterDNS": [DNS_IP],
    "clusterDomain": "cluster.local",
    # The machine's own may lead out of it.
    "resolvConf": f"{CONFIG}/resolv.conf",
    "podLogsDir": f"{DATA}/pod-logs",
    "volumePluginDir": f"{DATA}/volume-plugins",
    "staticPodPath": "",
    "maxPods": 200,
    "serializeImagePulls": False,
    # A developer's disk is often nearly full; nothing here may be thrown away for that.
    "imageGCHighThresholdPercent": 100,
    "imageGCLowThresholdPercent": 99,
    "evictionHard": {"memory.available": "100Mi", "nodefs.available": "0%", "nodefs.inodesFree": "0%",
                     "imagefs.available": "0%", "imagefs.inodesFree": "0%"},
}

KUBE_PROXY = {
    "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
    "kind": "KubeProxyConfiguration",
    "mode": "iptables",
    "hostnameOverride": NODE_NAME,
    "bindAddress": NODE_IP,
    "healthzBindAddress": f"{NODE_IP}:10256",
    "metricsBindAddress": f"{NODE_IP}:10249",
    "clientConnection": {"kubeconfig": f"{CONFIG}/kube-proxy.kubeconfig"},
    "clusterCIDR": POD_CIDR,
    # The machine's own limits stay as they are.
    "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
}


def write_configs() -> list[str]:
    """All configuration files; JSON is YAML too. Returns the names of those that were new.

    Others are not touched, since a kube-proxy whose file was written ends."""
    (CONFIG / "cni").mkdir(parents=True, exist_ok=True)
    written = []
    for name, text in {
        "containerd.toml": CONTAINERD_TOML,
        "cni/mcp-gateway.conflist": json.dumps(CNI, indent=1),
        "kubelet.yaml": json.dumps(KUBELET, indent=1),
        "kube-proxy.yaml": json.dumps(KUBE_PROXY, indent=1),
        "resolv.conf": "# no names from outside the cluster\n",
    }.items():
        path = CONFIG / name
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
            written.append(name)
    return written


def _etcd() -> list[str]:
    client, peer = f"http://{ETCD}:2379", f"http://{ETCD}:2380"
    return [
        f"--data-dir={DATA}/etcd", f"--listen-client-urls={client}", f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}", f"--initial-cluster=default={peer}",
        # A lost machine loses the cluster anyway; a killed etcd loses nothing by it.
        "--unsafe-no-fsync", "--logger=zap", "--log-outputs=stderr",
    ]


def _apiserver() -> list[str]:
    return [
        f"--advertise-address={NODE_IP}", f"--bind-address={NODE_IP}", f"--secure-port={API_PORT}",
        f"--etcd-servers=http://{ETCD}:2379", f"--service-cluster-ip-range={SERVICE_CIDR}",
        "--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction", "--allow-privileged=true",
        f"--client-ca-file={PKI}/ca.crt", f"--tls-cert-file={PKI}/apiserver.crt",
        f"--tls-private-key-file={PKI}/apiserver.key", f"--kubelet-certificate-authority={PKI}/ca.crt",
        f"--kubelet-client-certificate={PKI}/apiserver-kubelet.crt",
        f"--kubelet-client-key={PKI}/apiserver-kubelet.key",
        # By name it would be asked of the machine's own DNS.
        "--kubelet-preferred-address-types=InternalIP",
        # For extension API servers; nobody has a certificate of that name.
        f"--requestheader-client-ca-file={PKI}/ca.crt", "--requestheader-allowed-names=front-proxy-client",
        "--requestheader-username-headers=X-Remote-User", "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
        f"--service-account-key-file={PKI}/service-accounts.pub",
        f"--service-account-signing-key-file={PKI}/service-accounts.key",
    ]


def _client(name: str, port: int) -> list[str]:
    config = f"{CONFIG}/{name}.kubeconfig"
    return [
        f"--kubeconfig={config}", f"--authentication-kubeconfig={config}", f"--authorization-kubeconfig={config}",
        f"--bind-address={NODE_IP}", f"--secure-port={port}", "--leader-elect=false",
    ]


ARGUMENTS = {
    "etcd": _etcd,
    "containerd": lambda: [f"--config={CONFIG}/containerd.toml"],
    "kube-apiserver": _apiserver,
    "kube-controller-manager": lambda: [
        *_client("kube-controller-manager", 10257), f"--root-ca-file={PKI}/ca.crt",
        f"--service-account-private-key-file={PKI}/service-accounts.key", "--use-service-account-credentials=true",
        f"--cluster-signing-cert-file={PKI}/ca.crt", f"--cluster-signing-key-file={PKI}/ca.key",
        # Starting all controllers asks more than the usual limits let through in 3 s.
        "--kube-api-qps=200", "--kube-api-burst=400",
    ],
    "kube-scheduler": lambda: _client("kube-scheduler", 10259),
    "kubelet": lambda: [
        f"--config={CONFIG}/kubelet.yaml", f"--kubeconfig={CONFIG}/kubelet.kubeconfig",
        f"--hostname-override={NODE_NAME}", f"--node-ip={NODE_IP}", f"--root-dir={DATA}/kubelet",
        f"--cert-dir={DATA}/kubelet-pki",
    ],
    "kube-proxy": lambda: [f"--config={CONFIG}/kube-proxy.yaml"],
}


def command(name: str) -> list[str]:
    return [str(BIN / name), *ARGUMENTS[name]()]
