"""Servers of other people that hand out what imgfs exported, on free ports of a loopback address."""
import contextlib
import json
import socket

import machine
from endpoint import need, started

CONFIG = machine.TOP / "tools/deploy/nginx/imgfs.conf"
LISTEN, ROOT = "127.0.0.1:8500", "/var/lib/imgfs/store"
MAIN = """daemon off; user root; worker_processes 2; pid {place}/nginx.pid; error_log stderr;
events {{ worker_connections 512; }}
http {{
    access_log {place}/nginx-access.log;
    client_body_temp_path {place}/nginx-1; proxy_temp_path {place}/nginx-2; fastcgi_temp_path {place}/nginx-3;
    uwsgi_temp_path {place}/nginx-4; scgi_temp_path {place}/nginx-5;
    include {place}/imgfs.conf;
}}
"""


def free_address():
    """They cannot be told to take any port and say which: one is chosen that was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return f"127.0.0.1:{probe.getsockname()[1]}"


def listens(address):
    host, port = address.split(":")
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) == 0


@contextlib.contextmanager
def nginx(store, place):
    """nginx over a store by the configuration as it is shipped, but for address and root; the address. Its files are in `place`."""
    need("nginx")
    text = CONFIG.read_text()
    assert text.count(LISTEN) == 1 and text.count(f"root {ROOT};") == 1
    address = free_address()
    (place / "imgfs.conf").write_text(text.replace(LISTEN, address).replace(f"root {ROOT};", f"root {store};"))
    (place / "nginx.conf").write_text(MAIN.format(place=place))
    command = ["nginx", "-p", place, "-e", "stderr", "-c", place / "nginx.conf"]
    with started(command, lambda: listens(address), place / "nginx.log"):
        yield address


@contextlib.contextmanager
def docker_registry(place):
    """Debian's docker-registry, empty; the address."""
    need("docker-registry", "skopeo")
    address, config = free_address(), place / "registry.json"
    config.write_text(json.dumps({
        "version": 0.1, "storage": {"filesystem": {"rootdirectory": str(place / "registry")}}, "http": {"addr": address},
    }))
    with started(["docker-registry", "serve", config], lambda: listens(address), place / "registry.log"):
        yield address
