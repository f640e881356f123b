"""Writes an OCI archive: one uncompressed layer, its config, manifest and index.

The same files give the same bytes: entries are sorted, times are zero, owners are
root and modes are normalised. Nothing is run and nothing is fetched, so a file comes
from this machine or not at all. Layers are not compressed: they are read back on the
machine that wrote them.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import platform
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

NONROOT = 65532
ACCOUNTS = {
    "/etc/passwd": f"root:x:0:0:root:/root:/sbin/nologin\nnonroot:x:{NONROOT}:{NONROOT}:nonroot:/tmp:/sbin/nologin\n",
    "/etc/group": f"root:x:0:\nnonroot:x:{NONROOT}:\n",
    "/etc/nsswitch.conf": "hosts: files dns\n",
}


class ImageError(Exception):
    """Something the caller named cannot be packed; the message says what."""


@dataclass
class Layer:
    """The files of an image by their absolute path in it."""

    files: dict[str, Path | bytes] = field(default_factory=dict)
    modes: dict[str, int] = field(default_factory=dict)

    def text(self, path: str, content: str) -> None:
        self.files[absolute(path)] = content.encode()

    def folder(self, path: str, mode: int = 0o755) -> None:
        self.modes[absolute(path)] = mode

    def add(self, path: str, source: Path, skip: frozenset[str] = frozenset()) -> None:
        """A file, or a folder with all below it but what has a name in `skip`.

        Links are followed: an image has no use for a path of this machine.
        """
        path = absolute(path)
        if source.is_file():
            self.files[path] = source
        elif source.is_dir():
            self.modes.setdefault(path, 0o755)
            for child in sorted(source.iterdir()):
                if child.name not in skip and (child.is_file() or child.is_dir()):
                    self.add(f"{path}/{child.name}", child, skip)
        else:
            raise ImageError(f"{source} is neither a file nor a folder")

    def accounts(self) -> None:
        """What a program expects to find whoever runs it: /tmp, names for the two users."""
        for path, content in ACCOUNTS.items():
            self.text(path, content)
        self.folder("/tmp", 0o1777)

    def libraries(self) -> None:
        """The shared libraries of every ELF file in the layer, at this machine's paths."""
        for source in [s for s in self.files.values() if isinstance(s, Path) and is_elf(s)]:
            for library in shared_libraries(source):
                self.files.setdefault(library, Path(library))


def absolute(path: str) -> str:
    pure = PurePosixPath(path)
    if not pure.is_absolute() or ".." in pure.parts:
        raise ImageError(f"{path!r} is not an absolute path in an image")
    return str(pure)


def is_elf(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"\x7fELF"


def shared_libraries(program: Path) -> list[str]:
    """What the loader would load for this ELF file; empty if it is static."""
    told = subprocess.run(["ldd", str(program)], capture_output=True, text=True, env={**os.environ, "LC_ALL": "C"})
    if told.returncode != 0:
        return []
    found = []
    for line in told.stdout.splitlines():
        name, arrow, where = line.strip().partition(" => ")
        path = (where if arrow else name).split(" (")[0].strip()
        if path == "not found":
            raise ImageError(f"{program} needs {name}, which is not on this machine")
        if path.startswith("/"):
            found.append(path)
    return found


def _entry(path: str, kind: bytes, mode: int, size: int = 0) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(path.lstrip("/"))
    entry.type, entry.mode, entry.size = kind, mode, size
    return entry


def _write_layer(layer: Layer, out) -> None:
    folders = dict(layer.modes)
    for path in [*layer.files, *layer.modes]:
        for parent in PurePosixPath(path).parents:
            folders.setdefault(str(parent), 0o755)
    folders.pop("/", None)
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for path in sorted(folders.keys() | layer.files.keys()):
            content = layer.files.get(path)
            if content is None:
                tar.addfile(_entry(path, tarfile.DIRTYPE, folders[path]))
            elif isinstance(content, bytes):
                tar.addfile(_entry(path, tarfile.REGTYPE, 0o644, len(content)), io.BytesIO(content))
            else:
                with content.open("rb") as file:
                    stat = os.fstat(file.fileno())
                    mode = 0o755 if stat.st_mode & 0o111 else 0o644
                    tar.addfile(_entry(path, tarfile.REGTYPE, mode, stat.st_size), file)


def architecture() -> str:
    return {"x86_64": "amd64", "aarch64": "arm64", "arm64": "arm64"}.get(platform.machine(), platform.machine())


def _canonical(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _descriptor(kind: str, digest: str, size: int, **more: object) -> dict:
    return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": f"sha256:{digest}", "size": size, **more}


@dataclass
class Config:
    """What a container of the image runs when the pod does not say."""

    entrypoint: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)
    env: list[str] = field(default_factory=list)
    user: str = str(NONROOT)
    workdir: str = "/"
    labels: dict[str, str] = field(default_factory=dict)

    def oci(self, layer_digest: str) -> dict:
        paths = [e for e in self.env if e.startswith("PATH=")]
        env = self.env if paths else ["PATH=/usr/local/bin:/usr/bin:/bin", *self.env]
        config = {
            "Entrypoint": self.entrypoint, "Cmd": self.command, "Env": env, "User": self.user,
            "WorkingDir": self.workdir, "Labels": self.labels,
        }
        return {
            "architecture": architecture(), "os": "linux", "created": "1970-01-01T00:00:00Z",
            "config": {key: value for key, value in config.items() if value},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{layer_digest}"]},
        }


def check_name(name: str) -> None:
    """A name without a host part would be taken for one of docker.io's."""
    host, slash, rest = name.partition("/")
    named = "." in host or ":" in host or host == "localhost"
    if not slash or not named or ":" not in rest.rsplit("/", 1)[-1]:
        raise ImageError(f"{name!r} is no image name with host and tag, such as localhost/{name.split(':')[0]}:dev")


def write(out: Path, name: str, layer: Layer, config: Config) -> str:
    """Writes the archive and returns the digest of its manifest. `out` is replaced whole."""
    check_name(name)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=out.parent) as spool:
        _write_layer(layer, spool)
        size = spool.tell()
        spool.seek(0)
        layer_digest = hashlib.file_digest(spool, "sha256").hexdigest()
        documents: dict[str, bytes] = {}

        def blob(content: bytes) -> tuple[str, int]:
            digest = hashlib.sha256(content).hexdigest()
            documents[f"blobs/sha256/{digest}"] = content
            return digest, len(content)

        manifest, manifest_size = blob(_canonical({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": _descriptor("config.v1+json", *blob(_canonical(config.oci(layer_digest)))),
            "layers": [_descriptor("layer.v1.tar", layer_digest, size)],
        }))
        names = {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name.rsplit(":", 1)[1]}
        documents["oci-layout"] = _canonical({"imageLayoutVersion": "1.0.0"})
        documents["index.json"] = _canonical({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [_descriptor("manifest.v1+json", manifest, manifest_size, annotations=names, platform={
                "architecture": architecture(), "os": "linux"})],
        })
        half = out.with_name(f"{out.name}.{os.getpid()}")
        try:
            with tarfile.open(half, mode="w", format=tarfile.GNU_FORMAT) as tar:
                for path, content in sorted(documents.items()):
                    tar.addfile(_entry(path, tarfile.REGTYPE, 0o644, len(content)), io.BytesIO(content))
                spool.seek(0)
                tar.addfile(_entry(f"blobs/sha256/{layer_digest}", tarfile.REGTYPE, 0o644, size), spool)
            half.replace(out)
        finally:
            half.unlink(missing_ok=True)
    return f"sha256:{manifest}"
