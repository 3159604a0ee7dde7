"""A docker engine of one's own: containerd and dockerd on private directories and sockets, in a network namespace."""
import contextlib
import http.server
import json
import os
import socketserver
import subprocess
import threading
from pathlib import Path

import machine

QUIET = """disabled_plugins = ["io.containerd.grpc.v1.cri"]\n"""


class Docker:
    """A running engine below `root`; `prefix` is the command that enters its network namespace, `options` are more of dockerd's."""

    def __init__(self, root, prefix=(), options=()):
        self.options = options
        self.root, self.prefix = Path(root), [str(word) for word in prefix]
        self.root.mkdir(parents=True, exist_ok=True)
        self.socket = self.root / "docker.sock"
        self.children = []
        try:
            self._start()
        except BaseException:
            self.stop()
            raise

    def _spawn(self, name, *command):
        with open(self.root / f"{name}.log", "wb") as log:
            words = [*self.prefix, name, *(str(word) for word in command)]
            child = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.children.append(child)
        return child

    def _start(self):
        for left in ("docker.sock", "containerd.sock", "docker.pid"):  # by an engine that was here before
            (self.root / left).unlink(missing_ok=True)
        (self.root / "containerd.toml").write_text(QUIET)
        address = self.root / "containerd.sock"
        self._spawn(
            "containerd", "--config", self.root / "containerd.toml", "--root", self.root / "containerd",
            "--state", self.root / "containerd-state", "--address", address,
        )
        machine.wait_until(address.exists, "containerd's socket")
        engine = self._spawn(
            "dockerd", "--host", f"unix://{self.socket}", "--containerd", address, "--data-root", self.root / "data",
            "--exec-root", self.root / "exec", "--pidfile", self.root / "docker.pid", "--bridge", "none",
            "--iptables=false", "--ip6tables=false", "--ip-forward=false", "--ip-masq=false",
            "--storage-driver", "overlay2", *self.options,
        )

        def answers():
            assert engine.poll() is None, (self.root / "dockerd.log").read_text()
            return self.run("version", check=False).returncode == 0

        machine.wait_until(answers, "dockerd", 60)

    def command(self, *arguments):
        return [*self.prefix, "docker", "--host", f"unix://{self.socket}", *map(str, arguments)]

    def run(self, *arguments, **options):
        return machine.run(*self.command(*arguments), **{"timeout": 600, **options})

    def stop(self):
        for child in reversed(self.children):
            machine.end(child)
        for point in machine.mount_points(self.root):
            with contextlib.suppress(AssertionError):
                machine.run("umount", point)


class Names(socketserver.ThreadingUnixStreamServer):
    """As much of docker's API as names containers: ids by their names. As a context it is the environment in which it is the engine."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            known = self.server.ids.get(self.path.split("?")[0].removesuffix("/json").rpartition("/containers/")[2])
            body = json.dumps({"Id": known} if known else {"message": "No such container"}).encode()
            self.send_response(200 if known else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_arguments):
            pass

        def address_string(self):
            return "unix"

    def __init__(self, path, ids):
        super().__init__(str(path), self.Handler)
        self.ids = ids
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def __enter__(self):
        return {**os.environ, "DOCKER_HOST": f"unix://{self.server_address}"}

    def __exit__(self, *_exception):
        self.shutdown()
        self.server_close()
        os.unlink(self.server_address)
