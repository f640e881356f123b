"""The images that the tests on a cluster run, each packed from what is on this machine.

To add one: a function that returns the layer and what it runs, a line in RECIPES and,
if tests need it on the cluster, its name in `cluster_images` of dev/test.
"""

from __future__ import annotations

import atexit
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from oci import Config, ImageError, Layer

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
SERVERS = ROOT / "dev" / "protocol"
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))


@dataclass(frozen=True)
class Recipe:
    image: str
    about: str
    make: Callable[[], tuple[Layer, Config]]


def run(*command: object, **more) -> str:
    done = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, text=True, **more)
    if done.returncode != 0:
        raise ImageError(f"{' '.join(str(word) for word in command)} failed (see above)")
    return done.stdout


def staging(name: str) -> Path:
    """An empty folder for what must be changed before it is packed; gone when this
    program ends."""
    parent = ROOT / "target" / "images"
    parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=parent))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def protocol() -> dict[str, str]:
    """Where dev/protocol/install put things."""
    env = Path(os.environ.get("MCP_GATEWAY_PROTOCOL_DIR", ROOT / "target" / "protocol")) / "env"
    if not env.exists():
        raise ImageError(f"{env} is missing: run dev/protocol/install first")
    return dict(line.split("=", 1) for line in env.read_text().splitlines())


def cargo_binary(package: str, binary: str) -> Path:
    """The development build of one of the workspace's binaries, without debug information.

    The same build that `cargo test` uses, so nothing is compiled twice. With
    $MCP_GATEWAY_IMAGE_BINARIES, a folder, what is there is taken as it is.
    """
    ready = os.environ.get("MCP_GATEWAY_IMAGE_BINARIES")
    if not ready:
        run("cargo", "build", "--locked", "--quiet", "--package", package, "--bin", binary, cwd=ROOT)
    stripped = staging(binary) / binary
    run("strip", "-o", stripped, Path(ready or TARGET / "debug") / binary)
    return stripped


def demo() -> tuple[Layer, Config]:
    layer = Layer()
    layer.add("/usr/local/bin/mcp-gateway", cargo_binary("mcp-gateway", "mcp-gateway"))
    layer.libraries()
    layer.accounts()
    return layer, Config(["/usr/local/bin/mcp-gateway", "demo-server"], env=["HOST=0.0.0.0", "PORT=8000"])


def gateway() -> tuple[Layer, Config]:
    layer, _ = demo()
    return layer, Config(["/usr/local/bin/mcp-gateway"], ["serve", "--kubernetes"])


def agent() -> tuple[Layer, Config]:
    """Nothing but the agent: also what an image volume mounts and the form `init` copies from."""
    layer = Layer()
    layer.add("/mcp-gateway-agent", Path(run(ROOT / "dev" / "build-agent").strip()))
    return layer, Config(["/mcp-gateway-agent"])


def embedded() -> tuple[Layer, Config]:
    """The demo server with the agent as its entry point: what `agent: embedded` asks of an image."""
    layer, _ = demo()
    layer.add("/mcp-gateway-agent", Path(run(ROOT / "dev" / "build-agent").strip()))
    command = ["/usr/local/bin/mcp-gateway", "demo-server", "--transport", "http"]
    return layer, Config(["/mcp-gateway-agent"], command)


def witness() -> tuple[Layer, Config]:
    """The load test's server that tells of each call it ran."""
    layer = Layer()
    binary = cargo_binary("mcp-gateway-loadtest", "mcp-gateway-loadtest")
    layer.add("/usr/local/bin/mcp-gateway-loadtest", binary)
    layer.libraries()
    layer.accounts()
    return layer, Config(["/usr/local/bin/mcp-gateway-loadtest", "serve", "witness"], env=["HOST=0.0.0.0", "PORT=8000"])


def node_packages(modules: Path, wanted: str) -> list[Path]:
    """The folders of a package and all it depends on, found as Node would find them."""
    found: dict[Path, None] = {}
    queue = [modules / wanted]
    while queue:
        package = queue.pop()
        if package in found:
            continue
        found[package] = None
        about = json.loads((package / "package.json").read_text())
        for name in about.get("dependencies", {}):
            folder = package
            while folder != modules.parent and not (folder / "node_modules" / name).is_dir():
                folder = folder.parent
            if not (folder / "node_modules" / name).is_dir():
                raise ImageError(f"{name}, which {package} needs, is not installed")
            queue.append(folder / "node_modules" / name)
    return list(found)


def node() -> tuple[Layer, Config]:
    env = protocol()
    modules = Path(env["NODE_MODULES"])
    layer = Layer()
    layer.add("/usr/local/bin/node", Path(env["NODE22"]))
    layer.libraries()
    for package in node_packages(modules, "@modelcontextprotocol/server-everything"):
        layer.add(f"/app/node_modules/{package.relative_to(modules)}", package, frozenset({"node_modules"}))
    layer.accounts()
    server = "/app/node_modules/@modelcontextprotocol/server-everything/dist/index.js"
    return layer, Config(["/usr/local/bin/node", server], ["stdio"], workdir="/app")


def python() -> tuple[Layer, Config]:
    """The interpreter and its library, and what pip installed, compiled ahead.

    Byte code beside the sources would be taken for stale, as the image gives every
    file the same time: it is compiled anew in the form that is not checked.
    """
    env = protocol()
    told = run(env["PY2"], "-c", "import json, os, sys, sysconfig; p = sysconfig.get_path; v = sys.version_info; "
               "print(json.dumps([os.path.realpath(sys.executable), p('stdlib'), p('purelib'), "
               "f'{v.major}.{v.minor}']))")
    executable, stdlib, packages, version = json.loads(told)
    stage = staging("python")
    unneeded = shutil.ignore_patterns(
        "__pycache__", "site-packages", "dist-packages", "test", "tests", "idlelib", "tkinter", "turtledemo",
        "ensurepip", "lib2to3", "config-*", "pip", "pip-*", "_distutils_hack", "setuptools", "setuptools-*")
    shutil.copytree(stdlib, stage / "lib", ignore=unneeded)
    shutil.copytree(packages, stage / "packages", ignore=unneeded)
    run(env["PY2"], "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash", "-s", stage, stage / "lib",
        stage / "packages")
    layer = Layer()
    # By the name that documents may use whatever this machine's version is, and by the one its library is looked for.
    for name in (f"python{version}", "python3"):
        layer.add(f"/opt/python/bin/{name}", Path(executable))
    layer.add(f"/opt/python/lib/python{version}", stage / "lib")
    layer.add("/opt/packages", stage / "packages")
    layer.libraries()
    layer.add("/app/server.py", SERVERS / "servers" / "py2_server.py")
    layer.add("/app/fixture.py", SERVERS / "fixture" / "server.py")
    layer.accounts()
    config = Config([f"/opt/python/bin/python{version}", "/app/server.py"], ["stdio"], workdir="/app", env=[
        "PATH=/opt/python/bin:/usr/local/bin:/usr/bin:/bin", "PYTHONHOME=/opt/python", "PYTHONPATH=/opt/packages",
        "PYTHONDONTWRITEBYTECODE=1", "PYTHONUNBUFFERED=1", "HOST=0.0.0.0", "PORT=8000",
    ])
    return layer, config


def static_c(name: str) -> Path:
    binary = staging(name) / name
    run("cc", "-static", "-Os", "-s", "-Wall", "-Werror", "-o", binary, HERE / f"{name}.c")
    return binary


def pause() -> tuple[Layer, Config]:
    layer = Layer()
    layer.add("/pause", static_c("pause"))
    return layer, Config(["/pause"])


RECIPES = {
    "pause": Recipe("localhost/mcp-gateway-pause:dev", "the sandbox of every pod; dev/cluster loads it", pause),
    "rust-demo": Recipe("localhost/mcp-gateway-demo:dev", "mcp-gateway demo-server [--transport http]", demo),
    "gateway": Recipe("localhost/mcp-gateway:dev", "the gateway itself, for dev/manifests", gateway),
    "agent": Recipe("localhost/mcp-gateway-agent:dev", "the agent, for pods that do not embed it", agent),
    "rust-demo-embedded": Recipe("localhost/mcp-gateway-demo-embedded:dev", "the demo over HTTP, agent: embedded", embedded),
    "witness": Recipe("localhost/mcp-gateway-witness:dev", "serve witness of the load test, for chaos", witness),
    "node": Recipe("localhost/mcp-everything:dev", "npm server-everything: stdio | streamableHttp | sse", node),
    "python": Recipe("localhost/mcp-python:dev", "PyPI mcp 2.x: stdio | http; /app/fixture.py: conformance", python),
}
