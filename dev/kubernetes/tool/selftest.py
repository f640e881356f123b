"""Proves, on the cluster that is up, what the tests of the project rely on.

Everything happens in a namespace of its own that is removed at the end.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import cluster
import processes
from api import Api, Refused, wait
from layout import IMAGES, NODE_NAME, PARTS, PROBE_IMAGE, Failure, say

SPACE = "mcp-gateway-selftest"
HERE = f"/api/v1/namespaces/{SPACE}"
LEASES = f"/apis/coordination.k8s.io/v1/namespaces/{SPACE}/leases"


def pod(name: str, command: list[str], **spec: object) -> dict:
    container = {"name": name, "image": PROBE_IMAGE, "imagePullPolicy": "Never", "command": command}
    mounts = [{"name": v["name"], "mountPath": "/volume", "readOnly": True} for v in spec.get("volumes", [])]
    return {
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"restartPolicy": "Never", "terminationGracePeriodSeconds": 1, "automountServiceAccountToken": False,
                 "containers": [{**container, "volumeMounts": mounts}], **spec},
    }


def parts_run(_: Api) -> None:
    missing = [name for name in PARTS if name not in processes.found()]
    if missing:
        raise Failure(f"not running: {', '.join(missing)}")


def images_load(_: Api) -> None:
    if cluster.load_image(IMAGES / "probe.tar") != [PROBE_IMAGE]:
        raise Failure("the archive's image has another name")


def namespace_has_account(api: Api) -> None:
    wait(f"the end of an older {SPACE}", 30, lambda: api.find(HERE) is None)
    api.apply(HERE, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SPACE}})
    wait("the default service account", 30, lambda: api.find(f"{HERE}/serviceaccounts/default"))


def pod_runs(api: Api) -> None:
    api.ask("POST", f"{HERE}/pods", pod("server", ["/probe", "serve", ":8000"]))
    api.apply(f"{HERE}/services/server", {
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "server"},
        "spec": {"selector": {"app": "server"}, "ports": [{"port": 80, "targetPort": 8000}]}})
    wait("a pod that runs", 30, lambda: api.get(f"{HERE}/pods/server")["status"]["phase"] == "Running")


def service_by_name(api: Api) -> None:
    """A pod finds another through DNS and a Service, and its log is read through the kubelet."""
    ask(api, "client", ["/probe", "get", f"http://server.{SPACE}.svc.cluster.local/"])


def image_volume(api: Api) -> None:
    """The program comes from another image, mounted."""
    volume = {"name": "volume", "image": {"reference": PROBE_IMAGE, "pullPolicy": "Never"}}
    ask(api, "volume", ["/volume/probe", "get", "http://server/"], volumes=[volume])


def ask(api: Api, name: str, command: list[str], **spec: object) -> None:
    api.ask("POST", f"{HERE}/pods", pod(name, command, **spec))
    path = f"{HERE}/pods/{name}"
    wait(f"the end of pod {name}", 45, lambda: api.get(path)["status"]["phase"] in ("Succeeded", "Failed"))
    said = api.ask("GET", f"{path}/log").strip()
    if said != "server":
        raise Failure(f"pod {name} got {said!r} instead of the server's name")


def lease_has_one_holder(api: Api) -> None:
    """Of two who update what they both read, the second is refused."""
    body = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "one"}}
    api.ask("POST", LEASES, body)
    read = api.get(f"{LEASES}/one")
    api.ask("PUT", f"{LEASES}/one", {**read, "spec": {"holderIdentity": "first"}})
    try:
        api.ask("PUT", f"{LEASES}/one", {**read, "spec": {"holderIdentity": "second"}})
    except Refused as refused:
        if refused.status == 409:
            return
        raise
    raise Failure("a Lease was taken by two")


def node_is_named(api: Api) -> None:
    if api.get(f"{HERE}/pods/server")["spec"].get("nodeName") != NODE_NAME:
        raise Failure(f"the pod is not on {NODE_NAME}")


CHECKS: tuple[tuple[str, Callable[[Api], None]], ...] = (
    ("every part runs", parts_run),
    ("an image is loaded from a file", images_load),
    ("a namespace gets its service account", namespace_has_account),
    ("a pod runs", pod_runs),
    ("it is on the node", node_is_named),
    ("a pod reaches another by DNS and Service", service_by_name),
    ("an image is mounted as a volume", image_volume),
    ("a Lease has one holder", lease_has_one_holder),
)


def run() -> None:
    """All checks in turn; the first that fails ends it, and its namespace stays to be looked at."""
    api = Api()
    try:
        api.delete(HERE)
        for what, check in CHECKS:
            began = time.monotonic()
            check(api)
            say(f"{what:<44} {time.monotonic() - began:5.1f} s")
        for name in ("server", "client", "volume"):
            api.delete(f"{HERE}/pods/{name}", grace=0)
        api.delete(HERE)
        wait("the namespace's end", 60, lambda: api.find(HERE) is None)
    except OSError as cause:
        raise Failure(str(cause)) from cause
