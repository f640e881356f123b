"""Builds the cluster's programs from Go's module proxy, and its images from them.

A stamp beside the binaries names what they were built from; as long as it is true
nothing is built. Nothing here needs root.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections import deque
from pathlib import Path

from layout import BIN, DNS_IMAGE, IMAGES, MODULE, PARTS, PAUSE_IMAGE, PROBE_IMAGE, ROOT, Failure, Unfit, say

sys.path.insert(0, str(ROOT / "dev" / "images"))
import oci
import recipes

CONTAINERD = "github.com/containerd/containerd/v2/cmd"
CONTAINERD_VERSION = "v2.2.2"
GO = (1, 26)


def kubernetes_version() -> str:
    found = re.search(r"^\s*k8s\.io/kubernetes (v\S+)$", (MODULE / "go.mod").read_text(), re.M)
    return found.group(1) if found else "v0.0.0"


def _stamp() -> str:
    digest = hashlib.sha256(CONTAINERD_VERSION.encode())
    sources = [MODULE / "go.mod", MODULE / "go.sum", *sorted(MODULE.glob("*/*.go"))]
    for path in [*sources, Path(oci.__file__), ROOT / "dev" / "images" / "pause.c"]:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _check_go() -> None:
    if shutil.which("go") is None:
        raise Unfit(f"Go >= {GO[0]}.{GO[1]} is missing: the cluster's programs are built with it")
    told = subprocess.run(["go", "env", "GOVERSION"], capture_output=True, text=True, cwd="/").stdout
    version = tuple(int(n) for n in re.findall(r"\d+", told)[:2])
    if version < GO:
        raise Unfit(f"Go >= {GO[0]}.{GO[1]} is needed to build the cluster's programs, found {told.strip()}")


def _go(what: str, *arguments: str, **env: str) -> None:
    """Runs a Go command, telling every ten seconds how far it is."""
    command = ["go", *arguments]
    process = subprocess.Popen(
        command, cwd=MODULE, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-buildvcs=false", **env})
    last: deque[str] = deque(maxlen=20)
    lines = 0
    done = threading.Event()
    began = time.monotonic()

    def tell() -> None:
        while not done.wait(10):
            at = last[-1] if last else "…"
            say(f"building {what}: {lines} packages so far, {time.monotonic() - began:.0f} s ({at})")

    teller = threading.Thread(target=tell, daemon=True)
    teller.start()
    for line in process.stderr:
        last.append(line.rstrip())
        lines += not line.startswith("go: ")
    done.set()
    teller.join()
    if process.wait() != 0:
        raise Failure("\n".join([*last, f"building {what} failed (see above)"]))
    say(f"built {what} in {time.monotonic() - began:.0f} s")


def build() -> bool:
    """Builds what is missing or out of date. Returns whether anything had to be."""
    stamp, want = BIN / "stamp", _stamp()
    if stamp.exists() and stamp.read_text() == want:
        return False
    _check_go()
    BIN.mkdir(parents=True, exist_ok=True)
    stamp.unlink(missing_ok=True)
    say("building Kubernetes, etcd, containerd and CoreDNS; from nothing this takes about ten minutes on two cores")
    version = kubernetes_version()
    _, minor, _ = version.split(".")
    package = "k8s.io/component-base/version"
    said = f"-X {package}.gitVersion={version} -X {package}.gitMajor=1 -X {package}.gitMinor={minor}"
    # Built beside the old ones and renamed: a program that runs cannot be written to.
    new = BIN / "new"
    shutil.rmtree(new, ignore_errors=True)
    flags = ("-v", "-trimpath")
    names = [f"{CONTAINERD}/{name}@{CONTAINERD_VERSION}" for name in ("containerd", "containerd-shim-runc-v2", "ctr")]
    _go(f"containerd {CONTAINERD_VERSION}", "install", *flags, "-ldflags", "-s -w", *names, GOBIN=str(new))
    _go(f"Kubernetes {version} and etcd", "build", *flags, "-ldflags", f"-s -w {said}", "-o", f"{new}/", "./components")
    _go("CoreDNS and the probe", "build", *flags, "-ldflags", "-s -w", "-o", f"{new}/", "./dns", "./probe")
    for program in new.iterdir():
        program.replace(BIN / program.name)
    new.rmdir()
    for name in (*PARTS, "kubectl"):
        if name != "containerd":
            link = BIN / name
            link.unlink(missing_ok=True)
            link.symlink_to("components")
    _images()
    stamp.write_text(want)
    return True


def _images() -> None:
    layer, config = recipes.pause()
    oci.write(IMAGES / "pause.tar", PAUSE_IMAGE, layer, config)
    for program, image in (("dns", DNS_IMAGE), ("probe", PROBE_IMAGE)):
        layer = oci.Layer()
        layer.add(f"/{program}", BIN / program)
        layer.accounts()
        oci.write(IMAGES / f"{program}.tar", image, layer, oci.Config([f"/{program}"]))
