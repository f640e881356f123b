"""The cluster's processes: found, started and ended by what they are, not by a file
that says so. A process is ours if its first argument is a program of the state folder."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import parts
from layout import BIN, LOGS, PARTS, STATE, Failure

SHIM = "containerd-shim-runc-v2"
GRACE = 20.0


def found() -> dict[str, list[int]]:
    """Process ids of every part that runs, and of the containers' shims."""
    names: dict[str, list[int]] = {}
    prefix = os.fsencode(BIN) + b"/"
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        try:
            first = Path(entry.path, "cmdline").read_bytes().split(b"\0", 1)[0]
        except OSError:
            continue
        name = os.fsdecode(first.removeprefix(prefix))
        if first.startswith(prefix) and (name in PARTS or name == SHIM):
            names.setdefault(name, []).append(int(entry.name))
    return names


def log(name: str) -> Path:
    return LOGS / f"{name}.log"


def last_line(name: str) -> str:
    """The last thing a part said, for whoever asks why it is not there."""
    try:
        with log(name).open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 4096))
            lines = file.read().decode(errors="replace").split("\n")
    except OSError:
        return "(no log)"
    said = [line for line in lines if line.strip()]
    return said[-1][:400] if said else "(said nothing)"


def start(name: str) -> subprocess.Popen:
    """In a session of its own, so that it outlives the terminal and the script."""
    LOGS.mkdir(parents=True, exist_ok=True)
    path = f"{BIN}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    with log(name).open("ab") as out:
        return subprocess.Popen(
            parts.command(name), stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True, cwd="/",
            env={"PATH": path, "HOME": str(STATE / "data"), "TMPDIR": str(STATE / "run")})


def died(name: str, process: subprocess.Popen) -> None:
    """Raises if the process that was started has ended."""
    if process.poll() is not None:
        raise Failure(f"{name} ended at once ({process.returncode}): {last_line(name)}\n  all it said: {log(name)}")


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


def end(pids: list[int], how: signal.Signals, wait: float = GRACE) -> bool:
    """Signals processes and waits until they are gone. False if some stay."""
    for pid in pids:
        try:
            os.kill(pid, how)
        except ProcessLookupError:
            pass
    deadline = time.monotonic() + wait
    while any(_alive(pid) for pid in pids):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def stop(name: str, now: bool) -> bool:
    """Ends a part; False if it did not run."""
    pids = found().get(name, [])
    if not pids:
        return False
    if (now or not end(pids, signal.SIGTERM)) and not end(pids, signal.SIGKILL):
        raise Failure(f"{name} (process {pids}) does not end")
    return True


def settle(name: str, process: subprocess.Popen, seconds: float = 0.5) -> None:
    """Gives a part that was just started the time to say that it cannot."""
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return
    died(name, process)
