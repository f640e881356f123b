"""What the cluster needs of the machine and leaves as it was: packages, the node's
address, control groups, kernel settings, packet filter, mounts.

The owner file names the one cluster of this machine and remembers how things were
before it. It lies in /run, so a restarted machine knows of no cluster.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import processes
from layout import BRIDGE, CGROUP, CNI_PLUGINS, NODE_IP, OWNER, STATE, Failure, Unfit, say

# program: Debian's package
TOOLS = {
    "runc": "runc", "iptables": "iptables", "conntrack": "conntrack", "ethtool": "ethtool", "socat": "socat",
    "ip": "iproute2", "openssl": "openssl", "mount": "mount", f"{CNI_PLUGINS}/bridge": "containernetworking-plugins",
    "cc": "gcc libc6-dev",
}
# The kubelet and the CNI plugins change them.
SYSCTLS = (
    "net/ipv4/ip_forward", "vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys", "kernel/keys/root_maxbytes",
)
CHAIN = re.compile(r"^:((?:KUBE|CNI)-\S+)", re.M)
ELSEWHERE = "or point KUBECONFIG at any cluster you have (dev/README.md)"


def run(*command: object, check: bool = True, given: str | None = None) -> str:
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, input=given)
    if check and done.returncode != 0:
        raise Failure(f"{' '.join(map(str, command))} failed: {(done.stderr or done.stdout).strip()}")
    return done.stdout if done.returncode == 0 else ""


def check_fit() -> None:
    """Raises `Unfit`, with all reasons at once, if no cluster can run here."""
    if platform.system() != "Linux":
        raise Unfit(f"the test cluster needs Linux, this is {platform.system()}: use a Linux machine, {ELSEWHERE}")
    if os.geteuid() != 0:
        raise Unfit(f"the test cluster needs root (containers, network, mounts): sudo -E dev/cluster up, {ELSEWHERE}")
    missing = missing_packages()
    if not missing:
        return
    if shutil.which("apt-get") is None:
        raise Unfit(f"missing, by Debian's names for them: {' '.join(missing)}; install them, {ELSEWHERE}")
    say(f"installing with apt-get: {' '.join(missing)}")
    noninteractive = ("env", "DEBIAN_FRONTEND=noninteractive", "apt-get")
    quiet = ("-qq", "-o", "DPkg::Lock::Timeout=120", "-o", "Acquire::Retries=5")
    run("apt-get", *quiet, "update")
    run(*noninteractive, *quiet, "install", "--no-install-recommends", "-y", *missing)
    if missing := missing_packages():
        raise Unfit(f"apt-get installed the packages, and yet there is no program of: {' '.join(missing)}")


def missing_packages() -> list[str]:
    where = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    return [word for tool, package in TOOLS.items() if not shutil.which(tool, path=where) for word in package.split()]


def boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def owner() -> dict | None:
    """What is remembered of this machine's cluster, unless it went down with the machine."""
    try:
        told = json.loads(OWNER.read_text())
    except (OSError, ValueError):
        return None
    return told if told.get("boot") == boot() else None


def _chains() -> dict[str, list[str]]:
    return {save: CHAIN.findall(run(save, check=False)) for save in ("iptables-save", "ip6tables-save")}


def take() -> None:
    """Makes this state folder's cluster the machine's, remembering how things are."""
    chains = _chains()
    if "KUBE-SERVICES" in chains["iptables-save"]:
        raise Unfit(f"this machine is a Kubernetes node already: use that cluster, {ELSEWHERE}")
    told = {
        "state": str(STATE), "boot": boot(), "chains": chains,
        "sysctls": {name: value for name in SYSCTLS if (value := _sysctl(name)) is not None},
        "run_containerd": Path("/run/containerd").exists(),
    }
    half = OWNER.with_suffix(".new")
    half.write_text(json.dumps(told))
    half.replace(OWNER)


def _sysctl(name: str) -> str | None:
    try:
        return Path("/proc/sys", name).read_text().strip()
    except OSError:
        return None


def prepare() -> None:
    """The node's address, forwarding between pods, the pods' control group. Repeatable."""
    for module in ("overlay", "br_netfilter"):
        run("modprobe", module, check=False) if shutil.which("modprobe") else None
    if NODE_IP not in run("ip", "-o", "addr", "show", "dev", "lo"):
        run("ip", "addr", "add", f"{NODE_IP}/32", "dev", "lo")
    for name, value in (("net/ipv4/ip_forward", "1"), ("net/bridge/bridge-nf-call-iptables", "1")):
        if _sysctl(name) not in (None, value):
            Path("/proc/sys", name).write_text(value)
    if _sysctl("net/bridge/bridge-nf-call-iptables") is None:
        raise Unfit("the kernel has no br_netfilter: Services cannot be reached from pods")
    for hierarchy in _hierarchies():
        control = hierarchy / "cgroup.subtree_control"
        if control.exists():
            wanted = [f"+{c}" for c in (hierarchy / "cgroup.controllers").read_text().split()]
            control.write_text(" ".join(wanted))
        (hierarchy / CGROUP).mkdir(exist_ok=True)
        for limit in ("cpuset.cpus", "cpuset.mems"):
            own = hierarchy / CGROUP / limit
            if own.exists() and not control.exists() and not own.read_text().strip():
                own.write_text((hierarchy / limit).read_text())


def _hierarchies() -> list[Path]:
    """Every place where control groups are made: one with version 2; with version 1 one
    for each controller, and often version 2's beside them."""
    root = Path("/sys/fs/cgroup")
    if (root / "cgroup.controllers").exists():
        return [root]
    return [path for path in root.iterdir() if path.is_dir() and not path.is_symlink()]


def clean(told: dict) -> None:
    """Ends and removes everything of the cluster but its files, and puts back what was
    changed. Works from what is found, so also after a crash. Repeatable."""
    _end_processes()
    _unmount()
    for name in (BRIDGE, "lo"):
        words = ("addr", "del", f"{NODE_IP}/32", "dev", "lo") if name == "lo" else ("link", "del", name)
        run("ip", *words, check=False)
    for save, before in told.get("chains", {}).items():
        _remove_chains(save, before)
    for name, value in told.get("sysctls", {}).items():
        if _sysctl(name) != value:
            Path("/proc/sys", name).write_text(value)
    if not told.get("run_containerd", True):
        shutil.rmtree("/run/containerd", ignore_errors=True)
    OWNER.unlink(missing_ok=True)


def _end_processes() -> None:
    """The parts first, so that none starts what is being ended; then all containers."""
    running = processes.found()
    shims = running.pop(processes.SHIM, [])
    if not processes.end([pid for pids in running.values() for pid in pids], signal.SIGKILL):
        raise Failure(f"these processes do not end: {running}")
    groups = [folder for top in _hierarchies() if (top / CGROUP).exists()
              for folder, _, _ in os.walk(top / CGROUP, topdown=False)]
    inside = {int(pid) for folder in groups for pid in _members(folder)}
    if not processes.end(sorted(inside), signal.SIGKILL):
        raise Failure("some containers' processes do not end")
    processes.end(shims, signal.SIGKILL)
    for folder in groups:
        _remove_group(folder)


def _members(folder: str) -> list[str]:
    try:
        return Path(folder, "cgroup.procs").read_text().split()
    except OSError:
        return []


def _remove_group(folder: str) -> None:
    """A group stays busy for a moment after its last process has ended."""
    for _ in range(200):
        try:
            return os.rmdir(folder)
        except FileNotFoundError:
            return None
        except OSError:
            time.sleep(0.01)
    raise Failure(f"the control group {folder} cannot be removed")


def _unmount() -> None:
    points = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        point = line.split()[4].encode().decode("unicode_escape")
        if point.startswith(f"{STATE}/"):
            points.append(point)
    if points:
        run("umount", "--lazy", *reversed(points))


def _remove_chains(save: str, before: list[str]) -> None:
    restore = []
    for table in run(save, check=False).split("*")[1:]:
        name, *lines = table.splitlines()
        ours = [chain for chain in CHAIN.findall(table) if chain not in before]
        into = [line for line in lines if line.startswith("-A ") and line.split()[1] not in ours
                and any(f" -j {chain}" in f"{line} " for chain in ours)]
        if ours:
            restore += [f"*{name}", *(f":{chain} - [0:0]" for chain in ours), *(f"-D {line[3:]}" for line in into),
                        *(f"-X {chain}" for chain in ours), "COMMIT"]
    if restore:
        run(save.replace("save", "restore"), "--noflush", given="\n".join(restore) + "\n")
