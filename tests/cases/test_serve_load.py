"""Many clients at once, bad ones among them: everybody who asks properly is served, and memory keeps the bound that is stated."""
import concurrent.futures
import contextlib
import hashlib
import json
import resource
import socket
import time

import pytest

import machine
from endpoint import NAME, TAG, digest_of, serving
from endpoint import make_image, make_place  # noqa: F401 # pylint: disable=unused-import # fixtures

CONNECTIONS = 500
# docs/operations.md: what it has at rest, 32 MiB of decoded chunks, and so much for a connection, by TLS or without.
REST, CHUNKS, PER_CONNECTION = 24 << 20, 32 << 20, {"plain": 96 << 10, "tls": 128 << 10}


@pytest.fixture(name="server", scope="module", params=["plain", "tls"])
def make_server(request, place, image):  # pylint: disable=unused-argument # the image fills the store
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
    options = ("--tls-auto",) if request.param == "tls" else ()
    with serving(place / "store", place / f"load-{request.param}.log", "--listen", "127.0.0.1:0", *options) as server:
        server.kind = request.param
        yield server
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def half_open(server, number):
    """Connected, and perhaps begun to ask, or to shake hands."""
    connection = socket.create_connection((server.host, server.port), timeout=60)
    connection.sendall((b"", b"GET /v2/ HT", b"\x16\x03\x01\x02\x00\x01")[number % 3])
    return connection


def slow_reader(server, path):
    """Asks for much and reads little of it."""

    def create(address, timeout, _source):
        # Smaller than the answer, but not than a segment of the loopback: the kernel would drop those and send them again, later and later.
        one = socket.socket()
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 18)
        one.settimeout(timeout)
        one.connect(address)
        return one

    connection = server.connect(timeout=120)
    connection._create_connection = create  # pylint: disable=protected-access # there is no other way in before connect()
    connection.request("GET", path)
    reply = connection.getresponse()
    return connection, reply, reply.read(100)


def ask_many(server, image, number):
    """One connection that asks for all kinds of things."""
    connection = server.connect(timeout=120)
    for turn in range(6):
        digest = image.diff_ids[(number + turn) % 2]
        whole = image.layers[(number + turn) % 2]
        first = (number * 7919 + turn * 104729) % (len(whole) - 70000)
        connection.request("GET", f"/imgfs/blobs/{digest}", headers={"Range": f"bytes={first}-{first + 69999}"})
        assert connection.getresponse().read() == whole[first:first + 70000]
        connection.request("GET", f"/v2/{NAME}/manifests/{TAG}")
        assert json.loads(connection.getresponse().read())["schemaVersion"] == 2
    connection.request("GET", f"/imgfs/blobs/{image.diff_ids[1]}")
    assert digest_of(connection.getresponse().read()) == image.diff_ids[1]
    connection.close()


def gauge(server, name):
    text = server.ask("/metrics")[1].decode()
    return float(next(line.split()[-1] for line in text.splitlines() if line.startswith(f"{name} ")))


def test_five_hundred_at_once(server, image):
    with contextlib.ExitStack() as stack:
        open_ones = [stack.enter_context(half_open(server, number)) for number in range(CONNECTIONS * 3 // 10)]
        path = f"/imgfs/blobs/{image.diff_ids[0]}"
        with concurrent.futures.ThreadPoolExecutor(32) as pool:
            slow = list(pool.map(lambda _: slow_reader(server, path), range(CONNECTIONS * 5 // 10)))
        for connection, _, _ in slow:
            stack.callback(connection.close)
        with concurrent.futures.ThreadPoolExecutor(CONNECTIONS - len(open_ones) - len(slow)) as pool:
            jobs = [pool.submit(ask_many, server, image, number) for number in range(120)]
            for job in jobs:
                job.result(timeout=120)
        assert gauge(server, "imgfs_serve_connections_open") > len(slow)
        bound = REST + CHUNKS + CONNECTIONS * PER_CONNECTION[server.kind]
        held = machine.resident(server.process.pid)
        print(f"{server.kind}: {held >> 10} KiB held, {bound >> 10} stated")
        assert held < bound, f"{held >> 10} KiB held, {bound >> 10} stated"
        for _, reply, begin in slow[::50]:
            assert hashlib.sha256(begin + reply.read()).hexdigest() == image.diff_ids[0].removeprefix("sha256:")
        if server.kind == "plain":
            check_cut(server, open_ones)


def check_cut(server, open_ones):
    """Those that never asked are closed in the end, one byte now and then or not."""
    end = time.monotonic() + 60
    trickle = open_ones[1]
    while time.monotonic() < end:
        with contextlib.suppress(OSError):
            trickle.sendall(b"T")
        trickle.settimeout(0.5)
        try:
            gone = trickle.recv(1000) == b""
        except TimeoutError:
            gone = False
        except OSError:
            gone = True
        if gone:
            break
    assert gone
    assert gauge(server, "imgfs_serve_connections_cut_total") > 0


def test_connections_of_one_address(place, image):  # pylint: disable=unused-argument
    options = ("--listen", "127.0.0.1:0", "--connections-per-address", "3")
    with serving(place / "store", place / "few.log", *options) as server, contextlib.ExitStack() as stack:
        for number in range(3):
            connection = server.connect()
            stack.callback(connection.close)
            connection.request("GET", "/healthz")
            assert connection.getresponse().read() == b"ok\n", number
        assert refused(server)
        # Another address has a limit of its own.
        other = stack.enter_context(socket.create_connection((server.host, server.port), source_address=("127.0.0.2", 0)))
        other.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
        assert other.recv(12) == b"HTTP/1.1 200"
        # One that went makes room for another, as soon as the server has noticed.
        connection.close()
        machine.wait_until(lambda: not refused(server), "room for another connection")


def refused(server):
    with socket.create_connection((server.host, server.port)) as connection:
        try:
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            return connection.recv(100) == b""
        except ConnectionError:
            return True
