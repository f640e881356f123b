"""Brings the cluster up, mends it, takes it down."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import tarfile
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import build
import dns
import host
import parts
import pki
import processes
from api import Api, Refused, wait
from layout import (
    BIN, CONFIG, CONTAINERD, DATA, DNS_IMAGE, HOST_LOCK, IMAGES, KUBECONFIG, LOGS, NODE_IP, NODE_NAME, PARTS,
    PAUSE_IMAGE, PKI, PROBE_IMAGE, ROOT, STATE, Failure, say,
)

NODE = f"/api/v1/nodes/{NODE_NAME}"
# A socket's path holds 107 bytes, and containerd makes longer ones out of this.
LONGEST_STATE = 80


@contextmanager
def locked(path: Path):
    """One at a time; who waits says for whom."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            say(f"waiting for another dev/cluster (process {file.read().strip() or 'unknown'})")
            fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        file.truncate()
        file.write(str(os.getpid()))
        file.flush()
        yield


class Stages:
    """Tells how long each stage took."""

    def __init__(self) -> None:
        self._began = self._last = time.monotonic()

    def done(self, what: str) -> None:
        now = time.monotonic()
        say(f"{what:<44} {now - self._last:5.1f} s")
        self._last = now

    def all(self) -> float:
        return time.monotonic() - self._began


def make_room(replace: bool) -> None:
    """Sees to it that no other cluster holds this machine's addresses."""
    told = host.owner()
    if told is None or told["state"] == str(STATE):
        return
    other = told["state"]
    if not replace and Path(other).exists():
        raise Failure(f"the cluster of {other} is up on this machine, and there can be one: "
                      f"MCP_GATEWAY_CLUSTER_DIR={other} dev/cluster down, or dev/cluster up --replace")
    say(f"taking down the cluster of {other}")
    done = subprocess.run([ROOT / "dev" / "cluster", "down", "--locked"], env={
        **os.environ, "MCP_GATEWAY_CLUSTER_DIR": other})
    if done.returncode != 0:
        raise Failure(f"the cluster of {other} could not be taken down")


def start_missing(running: dict[str, list[int]]) -> dict[str, subprocess.Popen]:
    started = {}

    def start(*names: str) -> None:
        for name in names:
            if name not in running:
                started[name] = processes.start(name)

    def check() -> None:
        for name, process in started.items():
            processes.died(name, process)

    stages = Stages()
    start("etcd", "containerd", "kube-apiserver")
    wait("containerd", 30, CONTAINERD.exists, check)
    wait("containerd", 30, lambda: ctr("version"), check)
    for name, image in (("pause", PAUSE_IMAGE), ("dns", DNS_IMAGE), ("probe", PROBE_IMAGE)):
        if not has_image(image):
            load_image(IMAGES / f"{name}.tar")
    stages.done("containerd, with the cluster's own images")
    api = Api()
    wait("the API server", 90, lambda: api.ask("GET", "/readyz"), check)
    stages.done("API server")
    start("kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy")
    for path, body in dns.objects():
        wait(path, 30, lambda path=path, body=body: api.apply(path, body), check)
    gone = end_dns(api) if "kube-apiserver" in started else frozenset()
    wait("the kubelet", 60, lambda: urllib.request.urlopen(f"http://{NODE_IP}:10248/healthz", timeout=2), check)
    wait("the node", 60, lambda: node_ready(api), check)
    stages.done("node Ready")
    for space in ("default", "kube-system"):
        account = f"/api/v1/namespaces/{space}/serviceaccounts/default"
        wait(f"the default service account of {space}", 60, lambda account=account: api.find(account), check)
    wait("cluster DNS", 90, lambda: dns_ready(api, gone), check)
    stages.done("default service accounts, cluster DNS Ready")
    return started


def node_ready(api: Api) -> bool:
    conditions = (api.find(NODE) or {}).get("status", {}).get("conditions", [])
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def end_dns(api: Api) -> frozenset[str]:
    """Ends the pods of the cluster's DNS and returns their UIDs.

    After the API server was away they look for it at ever longer intervals, and answer
    with what they knew meanwhile."""
    pods = [pod["metadata"] for pod in api.get(dns.PODS)["items"]]
    for pod in pods:
        api.delete(f"/api/v1/namespaces/{dns.SPACE}/pods/{pod['name']}", grace=0)
    return frozenset(pod["uid"] for pod in pods)


def dns_ready(api: Api, gone: frozenset[str] = frozenset()) -> bool:
    """Whether the Service has a living pod behind it; its Deployment is told seconds later."""
    slices = api.get(dns.ENDPOINTS)["items"]
    return any(end["conditions"].get("ready") and end.get("targetRef", {}).get("uid") not in gone
               for each in slices for end in each.get("endpoints") or [])


def up(replace: bool) -> None:
    if len(str(STATE)) > LONGEST_STATE:
        raise Failure(f"{STATE} is too long for the sockets in it: set MCP_GATEWAY_CLUSTER_DIR to a shorter path")
    host.check_fit()
    with locked(STATE / "lock"):
        stages = Stages()
        build.build()
        with locked(HOST_LOCK):
            make_room(replace)
            if host.owner() is None:
                if processes.found():
                    host.clean({})
                forget()
                host.take()
            running = processes.found()
            if all(name in running for name in PARTS) and healthy():
                say(f"is up already: KUBECONFIG={KUBECONFIG}")
                return
            if running:
                missing = ", ".join(name for name in PARTS if name not in running)
                say(f"mending: {missing or 'nothing is missing, waiting for it'}")
            (STATE / "run").mkdir(parents=True, exist_ok=True)
            host.prepare()
            if "kube-proxy.yaml" in parts.write_configs():
                processes.stop("kube-proxy", now=True)
                running.pop("kube-proxy", None)
            pki.make()
            start_missing(running)
        say(f"up in {stages.all():.1f} s: KUBECONFIG={KUBECONFIG}")


def healthy() -> bool:
    try:
        api = Api()
        return node_ready(api) and dns_ready(api) and has_image(PAUSE_IMAGE)
    except (OSError, Refused):
        return False


def forget() -> None:
    """Removes all that is of one cluster; logs and what was built stay.

    Unpacked images are many files, and a disk may take half a minute to free them:
    they are moved out of the way, and a process of its own removes them."""
    trash = STATE / f"trash-{time.time_ns()}"
    for path in (DATA, PKI, CONFIG, STATE / "run", KUBECONFIG):
        if path.exists():
            trash.mkdir(exist_ok=True)
            path.rename(trash / path.name)
    subprocess.Popen(["nice", "rm", "-rf", *STATE.glob("trash-*")], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                     stderr=subprocess.DEVNULL, start_new_session=True, cwd="/")


def down(lock: bool = True) -> None:
    if not lock:
        return _down()
    with locked(STATE / "lock"), locked(HOST_LOCK):
        _down()


def _down() -> None:
    began = time.monotonic()
    told = host.owner()
    if told is not None and told["state"] != str(STATE):
        raise Failure(f"the cluster that is up on this machine is that of {told['state']}")
    if told is None and not processes.found():
        forget()
        return say("is down")
    host.clean(told or {})
    forget()
    say(f"down in {time.monotonic() - began:.1f} s")


def ctr(*arguments: object) -> str:
    """Containerd's own client, in the kubelet's namespace. `OSError` if it says no."""
    done = subprocess.run([BIN / "ctr", "-a", CONTAINERD, "-n", "k8s.io", *arguments], capture_output=True, text=True)
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip().splitlines() or ["(nothing)"]
        raise OSError(f"ctr {arguments[0]} said {said[-1]}")
    return done.stdout


def has_image(name: str) -> bool:
    """Whether the kubelet would find the image: ctr's import alone is not yet enough."""
    return name in ctr("images", "ls", "-q", f"name=={name},labels.\"io.cri-containerd.image\"==managed").split()


def load_image(archive: Path) -> list[str]:
    """Imports an archive and waits until pods can be made of it. Returns its images' names."""
    if not archive.is_file():
        raise Failure(f"{archive} is not there: dev/image writes images")
    names = image_names(archive)
    try:
        for name in names:
            # What replaces an image of the same name in place stays unknown under its id, by which image volumes
            # are mounted ("failed to get image volume ref").
            if ctr("images", "ls", "-q", f"name=={name}").strip():
                ctr("images", "rm", "--sync", name)
        ctr("images", "import", "--local", str(archive.resolve()))
    except OSError as cause:
        raise Failure(f"{archive} cannot be loaded: {cause}") from cause
    for name in names:
        wait(f"image {name}", 30, lambda name=name: has_image(name))
    return names


def image_names(archive: Path) -> list[str]:
    """The names that an OCI archive gives its images."""
    with tarfile.open(archive) as tar:
        index = json.load(tar.extractfile("index.json"))
    names = [about.get("annotations", {}).get("io.containerd.image.name") for about in index["manifests"]]
    return [name for name in names if name]


def status() -> int:
    """Tells what runs and what does not; 0 if all is well."""
    told = host.owner()
    if told is None and not processes.found():
        say("is down")
        return 1
    if told is not None and told["state"] != str(STATE):
        say(f"the cluster that is up on this machine is that of {told['state']}")
        return 1
    running, well = processes.found(), True
    for name in PARTS:
        pids = running.get(name, [])
        well &= len(pids) == 1
        state = f"process {pids[0]}" if pids else f"DOWN: {processes.last_line(name)}"
        print(f"{name:<24} {state}")
    print(f"{'containers':<24} {len(running.get(processes.SHIM, []))} pods' shims")
    ready = "does not answer"
    try:
        api = Api()
        ready = f"node {'Ready' if node_ready(api) else 'NOT Ready'}, DNS {'Ready' if dns_ready(api) else 'NOT Ready'}"
    except (OSError, Refused) as cause:
        ready = str(cause)
    well &= "NOT" not in ready and "Ready" in ready
    print(f"{'Kubernetes':<24} {ready}\n{'kubeconfig':<24} {KUBECONFIG}\n{'logs':<24} {LOGS}")
    return 0 if well else 1


def require_up() -> None:
    told = host.owner()
    if told is None or told["state"] != str(STATE):
        raise Failure("is down: dev/cluster up")


def kubectl(arguments: list[str]) -> None:
    sys.stdout.flush()
    os.execve(BIN / "kubectl", ["kubectl", *arguments], {**os.environ, "KUBECONFIG": str(KUBECONFIG)})
