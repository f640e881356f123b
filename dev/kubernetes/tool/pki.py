"""Keys, certificates and kubeconfigs, by openssl. Made once for each cluster, never kept.

They are good for this machine's test cluster only; a year is longer than any lives.
"""

from __future__ import annotations

import base64
import os
import subprocess
from pathlib import Path

from layout import API_PORT, API_SERVICE_IP, CONFIG, KUBECONFIG, NODE_IP, NODE_NAME, PKI, Failure

API = f"https://{NODE_IP}:{API_PORT}"
API_NAMES = (
    f"IP:{NODE_IP},IP:{API_SERVICE_IP},DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,"
    "DNS:kubernetes.default.svc.cluster.local"
)
# file: subject, names of a server
CERTIFICATES = {
    "apiserver": ("/CN=kube-apiserver", API_NAMES),
    "apiserver-kubelet": ("/O=system:masters/CN=kube-apiserver", ""),
    "kubelet-serving": (f"/O=system:nodes/CN=system:node:{NODE_NAME}", f"IP:{NODE_IP},DNS:{NODE_NAME}"),
    "kubelet": (f"/O=system:nodes/CN=system:node:{NODE_NAME}", ""),
    "kube-controller-manager": ("/CN=system:kube-controller-manager", ""),
    "kube-scheduler": ("/CN=system:kube-scheduler", ""),
    "kube-proxy": ("/CN=system:kube-proxy", ""),
    "admin": ("/O=system:masters/CN=admin", ""),
}


def _openssl(*arguments: object) -> None:
    done = subprocess.run(["openssl", *map(str, arguments)], capture_output=True, text=True, cwd=PKI)
    if done.returncode != 0:
        raise Failure(f"openssl {arguments[0]} failed: {done.stderr.strip()}")


def _key(name: str) -> None:
    _openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", f"{name}.key")


def _certificate(name: str, subject: str, names: str) -> None:
    _key(name)
    usage = "serverAuth" if names else "clientAuth"
    extensions = f"keyUsage=critical,digitalSignature\nextendedKeyUsage={usage}\n"
    (PKI / f"{name}.ext").write_text(extensions + (f"subjectAltName={names}\n" if names else ""))
    _openssl("req", "-new", "-key", f"{name}.key", "-subj", subject, "-out", f"{name}.csr")
    _openssl("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", 365,
             "-extfile", f"{name}.ext", "-out", f"{name}.crt")


def _encoded(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


def _kubeconfig(out: Path, name: str) -> None:
    out.write_text(f"""\
apiVersion: v1
kind: Config
current-context: mcp-gateway
clusters:
- name: mcp-gateway
  cluster: {{server: "{API}", certificate-authority-data: {_encoded(PKI / "ca.crt")}}}
users:
- name: {name}
  user:
    client-certificate-data: {_encoded(PKI / f"{name}.crt")}
    client-key-data: {_encoded(PKI / f"{name}.key")}
contexts:
- name: mcp-gateway
  context: {{cluster: mcp-gateway, user: {name}}}
""")


def make() -> None:
    """All of it, unless it is there. A half-made set is made anew."""
    done = PKI / "done"
    if done.exists():
        return
    PKI.mkdir(parents=True, exist_ok=True)
    os.chmod(PKI, 0o700)
    before = os.umask(0o077)
    try:
        _key("ca")
        _openssl("req", "-x509", "-new", "-key", "ca.key", "-subj", "/CN=mcp-gateway test cluster", "-days", 365,
                 "-out", "ca.crt")
        for name, (subject, names) in CERTIFICATES.items():
            _certificate(name, subject, names)
        _key("service-accounts")
        _openssl("pkey", "-in", "service-accounts.key", "-pubout", "-out", "service-accounts.pub")
        for name in ("kubelet", "kube-controller-manager", "kube-scheduler", "kube-proxy"):
            _kubeconfig(CONFIG / f"{name}.kubeconfig", name)
        _kubeconfig(KUBECONFIG, "admin")
    finally:
        os.umask(before)
    done.touch()
