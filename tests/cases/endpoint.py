"""What cases about `imgfs serve` share: a small image, processes that get ready, the server and a plain client of it."""
import contextlib
import hashlib
import http.client
import io
import json
import os
import random
import shutil
import socket
import ssl
import subprocess
import tarfile
import tempfile
import time
from pathlib import Path

import pytest

from machine import IMGFS

BASE = Path(os.environ.get("IMGFS_CASES_DIR", "/var/tmp"))
NAME, TAG = "case/serve", "v1"


def need(*programs):
    """Skips where a program is missing, or the right to run it."""
    missing = [program for program in programs if not shutil.which(program)]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
    if os.geteuid() != 0:
        pytest.skip("wants root")


def run(*command, timeout=120, **options):
    words = [str(word) for word in command]
    done = subprocess.run(words, capture_output=True, text=True, timeout=timeout, check=False, **options)
    assert done.returncode == 0, f"{' '.join(words)}: exit {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


def digest_of(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def member(name, data=None, kind=tarfile.REGTYPE, **fields):
    info = tarfile.TarInfo(name)
    info.type, info.mode, info.mtime = kind, 0o755 if kind == tarfile.DIRTYPE else 0o644, 1700000000
    info.size = len(data) if data is not None else 0
    for field, value in fields.items():
        setattr(info, field, value)
    return info, data


def tar_of(members):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for info, data in members:
            tar.addfile(info, io.BytesIO(data) if data is not None else None)
    return file.getvalue()


def make_layers():
    """Two tars: large and small files, text and noise, links, long names; then changes on top, a whiteout among them."""
    noise = random.Random(1)
    text = b"".join(b"line %d of a file that compresses well\n" % number for number in range(60000))
    lower = [member("usr", kind=tarfile.DIRTYPE), member("usr/noise", noise.randbytes(3_000_000)), member("usr/text", text)]
    lower += [member(f"usr/small-{number:03}", noise.randbytes(number * 13)) for number in range(300)]
    lower += [
        member("usr/" + "n" * 150, b"a long name\n"),
        member("usr/link", kind=tarfile.SYMTYPE, linkname="text"),
        member("usr/hard", kind=tarfile.LNKTYPE, linkname="usr/text"),
    ]
    upper = [member("usr/.wh.small-001", b""), member("usr/text", text[: len(text) // 2]), member("etc", kind=tarfile.DIRTYPE)]
    return [tar_of(lower), tar_of(upper)]


def files_of(layers):
    """What the regular files of an image hold, by path, after all layers."""
    files = {}
    for layer in layers:
        with tarfile.open(fileobj=io.BytesIO(layer)) as tar:
            for info in tar:
                directory, _, name = info.name.rpartition("/")
                if name.startswith(".wh."):
                    files.pop(f"{directory}/{name.removeprefix('.wh.')}")
                elif info.isreg() or info.islnk():
                    files[info.name] = tar.extractfile(info).read()
    return files


class Image:
    """An image as `docker save` writes it."""

    def __init__(self, path):
        self.path = path
        self.layers = make_layers()
        self.files = files_of(self.layers)
        self.diff_ids = [digest_of(layer) for layer in self.layers]
        self.config = json.dumps({
            "architecture": "amd64", "os": "linux", "created": "2023-11-14T22:13:20Z",
            "config": {"Cmd": ["/bin/true"], "Labels": {"case": "serve"}},
            "rootfs": {"type": "layers", "diff_ids": self.diff_ids},
            "history": [{"created_by": "lower"}, {"created_by": "upper"}],
        }, indent=1).encode()
        self.id = digest_of(self.config)
        names = [f"{number}/layer.tar" for number in range(len(self.layers))]
        config_name = self.id.removeprefix("sha256:") + ".json"
        listing = [{"Config": config_name, "RepoTags": [f"{NAME}:{TAG}"], "Layers": names}]
        path.write_bytes(tar_of(
            [member(config_name, self.config)] + [member(*pair) for pair in zip(names, self.layers)]
            + [member("manifest.json", json.dumps(listing).encode())]
        ))


@contextlib.contextmanager
def started(command, ready, log, seconds=60):
    """A process that is ready when ready() is true; ended by its number."""
    with open(log, "ab") as output:
        process = subprocess.Popen([str(word) for word in command], stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        end = time.monotonic() + seconds
        while not ready():
            said = Path(log).read_text(errors="replace")
            assert process.poll() is None, f"{command[0]} ended with {process.returncode}:\n{said}"
            assert time.monotonic() < end, f"{command[0]} was not ready within {seconds} s:\n{said}"
            time.sleep(0.05)
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(60)


def accepts(path):
    """Does somebody listen on this unix socket?"""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True


def unmount_below(path):
    points = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    for point in sorted((point for point in points if point.startswith(f"{path}/")), reverse=True):
        subprocess.run(["umount", "-l", point], check=True)


class Server:
    def __init__(self, process, address):
        self.process = process
        self.host, _, port = address.rpartition(":")
        self.port = int(port)
        self.address = address
        self.tls, self.trust = False, None  # `trust`: the command that the server printed, without the program

    def connect(self, timeout=30):
        """A connection that speaks HTTP; whose certificate it is does not matter here."""
        host = self.host.strip("[]")
        if not self.tls:
            return http.client.HTTPConnection(host, self.port, timeout=timeout)
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return http.client.HTTPSConnection(host, self.port, timeout=timeout, context=context)

    def ask(self, path, method="GET", **headers):
        connection = self.connect()
        connection.request(method, path, headers={key.replace("_", "-"): value for key, value in headers.items()})
        reply = connection.getresponse()
        body = reply.read()
        connection.close()
        return reply, body


@contextlib.contextmanager
def serving(store, log, *options, prefix=(), what="--store"):
    """`prefix` is a command to run the server under, such as one that enters a namespace; `what` is served, a cache perhaps."""
    log.write_bytes(b"")
    command = [*prefix, IMGFS, "serve", what, store, *options]
    with started(command, lambda: b"listening on http" in log.read_bytes(), log) as process:
        lines = log.read_text().splitlines()
        scheme, _, address = next(line for line in lines if line.startswith("listening on ")).split()[-1].partition("://")
        server = Server(process, address)
        server.tls = scheme == "https"
        server.trust = next((line.split()[1:] for line in lines if line.startswith("imgfs trust ")), None)
        yield server


def reference(server):
    return f"{server.address}/{NAME}:{TAG}"


def chain_id(diff_ids):
    chain = diff_ids[0]
    for diff_id in diff_ids[1:]:
        chain = digest_of(f"{chain} {diff_id}".encode())
    return chain


@pytest.fixture(name="place", scope="module")
def make_place():
    path = Path(tempfile.mkdtemp(prefix="imgfs-serve-", dir=BASE))
    yield path
    unmount_below(path)
    shutil.rmtree(path)


@pytest.fixture(name="image", scope="module")
def make_image(place):
    image = Image(place / "image.tar")
    run(IMGFS, "export", "--store", place / "store", f"docker-archive:{image.path}")
    return image


@pytest.fixture(name="backend", scope="module")
def make_backend(place, image):  # pylint: disable=unused-argument # the image fills the store
    """The address of a server of the image."""
    with serving(place / "store", place / "backend.log", "--listen", "127.0.0.1:0") as server:
        yield server.address
