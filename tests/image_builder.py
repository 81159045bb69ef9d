"""The image without a Docker engine: a Debian base by debootstrap, buildah to build it, podman to run it.

`DIFFSE_TEST_IMAGES` names a folder that keeps base and images for the next time (10 GB); by default they go
with the test run.
"""

import hashlib
import os
import shutil
import subprocess
import tempfile
import urllib.error
import urllib.request
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
TOOLS = ("buildah", "podman", "runc", "debootstrap")
CERTIFICATES = "/etc/ssl/certs"
BASE = "localhost/debian-python:12"
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
ROOM_GB = 30  # for the layers of the larger target and what makes them
BUILD_SECONDS = 3000

STORAGE = """[storage]
driver = "overlay"
graphroot = "{folder}/images"
runroot = "{folder}/run"
"""
# runc and these limits: what works without an init system and without CAP_SYS_RESOURCE.
CONTAINERS = """[containers]
default_ulimits = ["nofile=20000:20000", "nproc=4096:4096"]
netns = "host"
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
"""


def why_not(folder: Path) -> str:
    """Why no image can be built here; "" where it can."""
    missing = [tool for tool in TOOLS if not shutil.which(tool)]
    if missing:
        return f"{', '.join(missing)} not installed (Debian: apt-get install {' '.join(missing)})"
    if os.geteuid() != 0:
        return "debootstrap and chroot need root"
    free = shutil.disk_usage(folder).free / 1e9
    return f"{folder}: {free:.0f} GB are free, {ROOM_GB} are needed" if free < ROOM_GB else ""


def has_cpu_wheels() -> bool:
    """Whether the index of PyTorch for processors can be reached from here."""
    try:
        with urllib.request.urlopen(f"{CPU_INDEX}/torch/", timeout=10):
            return True
    except (urllib.error.URLError, OSError):
        return False


class Images:
    """A store of images in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        settings = folder / "settings"
        settings.mkdir(parents=True, exist_ok=True)
        (settings / "storage.conf").write_text(STORAGE.format(folder=folder))
        (settings / "containers.conf").write_text(CONTAINERS)
        (settings / "policy.json").write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
        (settings / "pip.conf").write_text(_pip_settings())
        (settings / "uv.toml").write_text(_uv_settings())
        self.settings = settings

    def run(self, *command: str | Path, timeout: float = 300) -> subprocess.CompletedProcess:
        """Run buildah or podman on this store."""
        environment = os.environ | {
            "CONTAINERS_STORAGE_CONF": str(self.settings / "storage.conf"),
            "CONTAINERS_CONF": str(self.settings / "containers.conf"),
            "TMPDIR": str(self.folder),
        }
        return subprocess.run(
            list(map(str, command)), env=environment, capture_output=True, text=True, timeout=timeout
        )

    def must(self, *command: str | Path, timeout: float = 300) -> str:
        done = self.run(*command, timeout=timeout)
        assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done.stdout

    def has(self, name: str) -> bool:
        return self.run("podman", "image", "exists", name).returncode == 0

    def make_base(self) -> None:
        """What python:3.11-slim is to the Dockerfile: Debian with Python, from Debian's own packages."""
        if self.has(BASE):
            return
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            root, archive = Path(folder, "root"), Path(folder, "root.tar")
            packages = "--include=python3,python3-venv,ca-certificates"
            self.must("debootstrap", "--variant=minbase", packages, "bookworm", root, timeout=BUILD_SECONDS)
            self.must("tar", "-C", root, "-cf", archive, ".")
            self.must("podman", "import", archive, BASE)

    def build(self, target: str, **arguments: str) -> str:
        """Build a target of the Dockerfile, unless it is there from the same files; its name."""
        name, content = f"localhost/diffse-python:{target}", _content()
        label = '--format={{index .Config.Labels "content"}}'
        if self.run("podman", "image", "inspect", label, name).stdout.strip() == content:
            return name
        options = [f"--build-arg={key}={value}" for key, value in arguments.items()]
        mounts = {CERTIFICATES: CERTIFICATES}
        mounts |= {self.settings / "pip.conf": "/etc/pip.conf", self.settings / "uv.toml": "/etc/uv/uv.toml"}
        options += [f"--volume={here}:{there}:ro" for here, there in mounts.items()]
        self.must(
            "buildah", "bud", "--isolation=chroot", "--network=host", "--layers", "--format=docker",
            f"--signature-policy={self.settings / 'policy.json'}", f"--build-arg=BASE_IMAGE={BASE}",
            f"--target={target}", f"--tag={name}", f"--label=content={content}", *options, PROJECT,
            timeout=BUILD_SECONDS,
        )  # fmt: skip
        return name

    def step(self, image: str, *words: str | Path, **options: str | Path) -> subprocess.CompletedProcess:
        """Run a command in a container as a cluster does: nothing can be written but /tmp and `workspace`.

        options: `entrypoint`, and `workspace`, a folder that is mounted as /workspace.
        """
        found = ["--read-only", "--read-only-tmpfs=false", "--tmpfs=/tmp:rw,mode=1777", "--cap-drop=all"]
        found += ["--security-opt=no-new-privileges", "--network=none"]
        if "workspace" in options:
            found.append(f"--volume={options['workspace']}:/workspace")
        if "entrypoint" in options:
            found.append(f"--entrypoint={options['entrypoint']}")
        return self.run("podman", "run", "--rm", *found, image, *words, timeout=600)

    def remove(self) -> None:
        """Delete everything: with podman first, which knows what is mounted."""
        self.run("podman", "rmi", "--all", "--force")
        shutil.rmtree(self.folder, ignore_errors=True)


def _content() -> str:
    """Checksum of what an image is built from."""
    names = (
        "Dockerfile",
        ".dockerignore",
        "requirements.lock",
        "pyproject.toml",
        "README.md",
        "LICENSE",
        "NOTICE",
    )
    files = [*(PROJECT / name for name in names), *sorted((PROJECT / "src/diffse").rglob("*.[pyjhc]*"))]
    digest = hashlib.sha256()
    for file in files:
        if file.is_file() and "__pycache__" not in file.parts:
            digest.update(
                f"{file.relative_to(PROJECT)}\0{hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode()
            )
    return digest.hexdigest()


def _index() -> str:
    """The package index that pip uses here where it is not the usual one."""
    found = subprocess.run(["pip", "config", "get", "global.index-url"], capture_output=True, text=True)
    return found.stdout.strip()


def _pip_settings() -> str:
    options = {"cert": f"{CERTIFICATES}/ca-certificates.crt", "timeout": "180"}
    if _index():
        options["index-url"] = _index()
    return "[global]\n" + "".join(f"{key} = {value}\n" for key, value in options.items())


def _uv_settings() -> str:
    lines = ["native-tls = true"]
    if _index():
        lines += ["[[index]]", f'url = "{_index()}"', "default = true"]
    return "\n".join(lines) + "\n"
