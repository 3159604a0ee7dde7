"""A node daemon of a test's own: its directories, its processes, its socket, and a service manager that listens to it."""
import contextlib
import itertools
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import time

import machine

IMGFS = machine.IMGFS
NUMBERS = itertools.count()


class Control:
    """The control socket, spoken to by the document alone."""

    def __init__(self, path, greet=True):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(60)
        self.socket.connect(str(path))
        if greet:
            assert self.receive() == {"imgfsd": 1}
            self.send({"imgfsd": 1})

    def send(self, message):
        body = json.dumps(message).encode()
        self.socket.sendall(struct.pack("<I", len(body)) + body)

    def _read(self, size):
        data = b""
        while len(data) < size:
            part = self.socket.recv(size - len(data))
            if not part:
                raise EOFError
            data += part
        return data

    def receive(self):
        return json.loads(self._read(struct.unpack("<I", self._read(4))[0]))

    def call(self, **request):
        """The last frame of the answer; "progress" has those before it."""
        self.send(request)
        progress = []
        while "progress" in (frame := self.receive()):
            progress.append(frame["progress"])
        return {**frame, "progress": progress}

    def close(self):
        self.socket.close()


class Hung(Control):
    """An imgfsd that greets one client, hears one call, and says nothing more, as long as the context lasts."""

    def __init__(self, path):  # pylint: disable=super-init-not-called
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen()
        self.listener.settimeout(60)
        self.socket = None

    def wait(self):
        """The call of the client that comes."""
        self.socket, _ = self.listener.accept()
        self.socket.settimeout(60)
        self.send({"imgfsd": 1})
        assert self.receive() == {"imgfsd": 1}
        return self.receive()

    def __enter__(self):
        return self

    def __exit__(self, *_exception):
        if self.socket:
            self.close()
        self.listener.close()


class ServiceManager:
    """The socket that NOTIFY_SOCKET names."""

    def __init__(self, path):
        self.path = str(path)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.path)

    def expect(self, word, seconds=60, process=None):
        """Waits for a message with that line, and not longer than the process lives."""
        end = time.monotonic() + seconds
        self.socket.settimeout(0.2)
        while time.monotonic() < end:
            ended = process and process.poll() is not None
            try:
                message = self.socket.recv(4096).decode().split("\n")
            except TimeoutError:
                if ended:
                    break
                continue
            if word in message:
                return message
        raise AssertionError(f"imgfsd has not said {word}{', and ended' if ended else ''}")

    def close(self):
        self.socket.close()


class Daemon:
    """`imgfsd` on directories below `work`; `prefix` is a command to run it and the client under."""

    def __init__(self, work, prefix=(), program=IMGFS, options=()):
        self.work, self.prefix, self.program, self.options = work, prefix, program, options
        self.runtime, self.state, self.cache, self.log = (work / name for name in ("run", "state", "cache", "imgfsd.log"))
        self.socket = self.runtime / "imgfsd.sock"
        self.process = self.manager = None

    def command(self, *options):
        return [
            *self.prefix, self.program, "daemon", "--foreground", "--runtime", self.runtime, "--state", self.state,
            "--cache", self.cache, "--log", self.log, *self.options, *options,
        ]

    def start(self, *options, ready=True):
        self.manager = ServiceManager(self.work / f"notify-{next(NUMBERS)}")
        self.process = subprocess.Popen(
            [str(word) for word in self.command(*options)], stdin=subprocess.DEVNULL,
            env={**os.environ, "NOTIFY_SOCKET": self.manager.path},
        )
        if ready:
            try:
                self.manager.expect("READY=1", process=None if "--keeper" in options else self.process)
            except AssertionError as fault:
                raise AssertionError(f"{fault}:\n{self.log.read_text()}") from None
        return self

    def imgfs(self, verb, *words, **options):
        return machine.run(*self.prefix, self.program, verb, "--socket", self.socket, *words, **options)

    def mount(self, reference, directory, *words, **options):
        directory.mkdir(exist_ok=True)
        return self.imgfs("mount", *words, reference, directory, **options)

    def list(self):
        return {entry["owner"]: entry for entry in json.loads(self.imgfs("list", "--json").stdout)}

    def control(self, **options):
        return Control(self.socket, **options)

    def call(self, **request):
        control = self.control()
        try:
            return control.call(**request)
        finally:
            control.close()

    def keepers(self):
        """Of this runtime directory, whoever started them."""
        return machine.keepers_below(self.runtime)

    def keeper(self, other_than=None):
        def running():
            return [pid for pid in self.keepers() if pid != other_than and machine.parent_of(pid) not in self.keepers()]

        return machine.wait_until(running, "a keeper")[0]

    def server(self, other_than=None):
        def running():
            return [pid for pid, path in machine.processes().items()
                    if path.endswith("imgfs-server") and pid != other_than and machine.parent_of(pid) in self.keepers()]

        return machine.wait_until(running, f"a server; log: {self.log}")[0]

    def kill(self):
        """As a crash of the manager."""
        self.process.kill()
        self.process.wait(60)
        self.manager.close()

    def stop(self):
        """As the service manager ends it; returns its exit status."""
        self.process.send_signal(signal.SIGTERM)
        self.manager.expect("STOPPING=1")
        status = self.process.wait(60)
        self.manager.close()
        return status

    def reboot(self):
        """All processes, all mounts and the runtime directory are gone; the disk stays."""
        if self.process.poll() is None:
            self.kill()
        self.sweep()
        shutil.rmtree(self.runtime)

    def sweep(self):
        """Ends whatever is left."""
        left = self.keepers()
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        machine.wait_until(lambda: not set(left) & machine.processes().keys(), "the keeper's end")
        table = machine.run(*self.prefix, "cat", "/proc/self/mountinfo").stdout
        points = [line.split()[4] for line in table.splitlines() if line.split()[4].startswith(f"{self.work}/")]
        for point in reversed(points):
            machine.run(*self.prefix, "umount", "--lazy", point, check=False)

    def close(self):
        """For clean-up: whatever the state."""
        if self.process and self.process.poll() is None:
            machine.end(self.process)
        if self.manager:
            self.manager.close()
        if self.runtime.exists():
            self.sweep()
