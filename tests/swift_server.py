"""OpenStack Swift with its s3api behind nginx, from Debian's packages: a real object store on this machine.

One account, container and object server with one copy of everything. Swift wants its configuration in
/etc/swift: the servers see a folder of ours there, and nothing of the system is changed.
"""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

KEY, SECRET = "test:tester", "planted-secret-of-swift"
SERVERS = ("account", "container", "object")
PROGRAMS = (
    "swift-ring-builder",
    *(f"swift-{name}-server" for name in (*SERVERS, "proxy")),
    "memcached",
    "nginx",
)
START_SECONDS = 60.0

HASHES = "[swift-hash]\nswift_hash_path_suffix = tests\nswift_hash_path_prefix = tests\n"
BACKEND = """
[DEFAULT]
devices = {folder}/srv
mount_check = false
bind_ip = 127.0.0.1
bind_port = {port}
workers = 0
user = root
[pipeline:main]
pipeline = {name}-server
[app:{name}-server]
use = egg:swift#{name}
"""
# The order matters: with symlink left of versioned_writes, objects come back empty.
FILTERS = "s3api tempauth copy slo dlo versioned_writes symlink proxy-server"
PROXY = """
[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {port}
workers = 0
user = root
[pipeline:main]
pipeline = catch_errors gatekeeper cache listing_formats {filters}
[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
[filter:catch_errors]
use = egg:swift#catch_errors
[filter:gatekeeper]
use = egg:swift#gatekeeper
[filter:cache]
use = egg:swift#memcache
memcache_servers = 127.0.0.1:{memcached}
[filter:listing_formats]
use = egg:swift#listing_formats
[filter:s3api]
use = egg:swift#s3api
location = us-east-1
[filter:tempauth]
use = egg:swift#tempauth
user_test_tester = {secret} .admin
[filter:copy]
use = egg:swift#copy
[filter:slo]
use = egg:swift#slo
[filter:dlo]
use = egg:swift#dlo
[filter:versioned_writes]
use = egg:swift#versioned_writes
[filter:symlink]
use = egg:swift#symlink
"""
# Without nginx, clients of HTTP/1.1 stumble over the end of a chunk that Swift sends after an answer to HEAD.
NGINX = """
daemon off;
user root;
pid {folder}/nginx.pid;
error_log {folder}/nginx.log;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port};
        client_max_body_size 0;
        location / {{
            proxy_pass http://127.0.0.1:{proxy};
            proxy_http_version 1.0;
            proxy_set_header Host $http_host;
        }}
    }}
}}
"""


def missing() -> str:
    """Why it cannot run here, or nothing."""
    lacking = [name for name in PROGRAMS if shutil.which(name) is None]
    if lacking:
        return (
            f"not installed: {', '.join(lacking)} (Debian: swift-proxy, swift-account, ..., memcached, nginx)"
        )
    inside = subprocess.run(["unshare", "-m", "true"], capture_output=True)
    return (
        "" if os.geteuid() == 0 and inside.returncode == 0 else "needs to be root, to show Swift its settings"
    )


@contextmanager
def running(folder: Path) -> Iterator[str]:
    """The address of the store; everything it keeps is below `folder`."""
    ports = dict(zip(("memcached", *SERVERS, "proxy", "nginx"), free_ports(6), strict=True))
    settings = folder / "etc"
    for name in ("etc", "srv/d1"):
        (folder / name).mkdir(parents=True)
    (settings / "swift.conf").write_text(HASHES)
    for name in SERVERS:
        text = BACKEND.format(folder=folder, port=ports[name], name=name)
        (settings / f"{name}-server.conf").write_text(text)
        build_ring(settings, name, ports[name])
    text = PROXY.format(port=ports["proxy"], memcached=ports["memcached"], secret=SECRET, filters=FILTERS)
    (settings / "proxy-server.conf").write_text(text)
    (folder / "nginx.conf").write_text(NGINX.format(folder=folder, port=ports["nginx"], proxy=ports["proxy"]))
    with ExitStack() as stack:
        address = ("-l", "127.0.0.1", "-p", str(ports["memcached"]))
        stack.enter_context(started(folder, "memcached", "-u", "root", *address))
        for name in (*SERVERS, "proxy"):
            stack.enter_context(started(folder, f"swift-{name}-server", f"/etc/swift/{name}-server.conf"))
        stack.enter_context(started(folder, "nginx", "-c", str(folder / "nginx.conf")))
        for name, port in ports.items():
            wait_for(name, port, folder)
        yield f"http://127.0.0.1:{ports['nginx']}"


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def build_ring(settings: Path, name: str, port: int) -> None:
    builder = str(settings / f"{name}.builder")
    device = f"r1z1-127.0.0.1:{port}/d1"
    for words in (("create", "4", "1", "1"), ("add", device, "1"), ("rebalance",)):
        subprocess.run(["swift-ring-builder", builder, *words], check=True, capture_output=True)


@contextmanager
def started(folder: Path, *command: str) -> Iterator[None]:
    """A program that sees our settings in /etc/swift; it ends with the block."""
    shown = 'mount --bind "$0" /etc/swift && exec "$@"'
    words = ["unshare", "-m", "sh", "-c", shown, str(folder / "etc"), *command]
    with open(folder / f"{command[0]}.log", "wb") as log:
        program = subprocess.Popen(words, stdout=log, stderr=log)
    try:
        yield
    finally:
        program.terminate()
        program.wait(20)


def wait_for(name: str, port: int, folder: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        with socket.socket() as one:
            if one.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    said = "\n".join(f"{path.name}: {path.read_text()[-500:]}" for path in sorted(folder.glob("*.log")))
    raise RuntimeError(f"{name} does not listen on {port}\n{said}")
