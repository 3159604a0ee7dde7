"""What runs for months: images come and go, thousands of times, and no process keeps memory or descriptors of what has gone.

IMGFS_ROUNDS sets how often (a hundred times by default; leaks of a few hundred bytes a round need thousands).
"""
import os
from pathlib import Path

import pytest

import machine
from daemon import Daemon
from endpoint import NAME, TAG
from endpoint import make_backend, make_image, make_place  # noqa: F401 # pylint: disable=unused-import # fixtures
from test_daemon import layers_of

ROUNDS = int(os.environ.get("IMGFS_ROUNDS", "100"))
# Where the allocator keeps more than is used, it does so at the beginning.
SLACK = 6 << 20
BYTES_A_ROUND = 300
DESCRIPTORS = 4
FILES = ("usr/small-007", "usr/small-299")


def usage(pid):
    """Anonymous memory in bytes, descriptors, threads."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(status["RssAnon"].split()[0]) << 10, len(os.listdir(f"/proc/{pid}/fd")), int(status["Threads"])


class Watch:
    """Processes by name, and what they used when it began."""

    def __init__(self, **pids):
        self.pids = pids
        self.before = {name: usage(pid) for name, pid in pids.items()}

    def check(self, rounds):
        found = {name: usage(pid) for name, pid in self.pids.items()}
        print({name: [self.before[name], now] for name, now in found.items()}, "after", rounds, "rounds more")
        for name, (memory, descriptors, threads) in found.items():
            before = self.before[name]
            assert memory - before[0] < SLACK + rounds * BYTES_A_ROUND, f"{name} has grown from {before[0]} to {memory} bytes"
            assert descriptors - before[1] <= DESCRIPTORS, f"{name} has {descriptors} descriptors, {before[1]} before"
            assert threads - before[2] <= DESCRIPTORS, f"{name} has {threads} threads, {before[2]} before"


@pytest.fixture(name="daemon")
def make_daemon(work):
    one = Daemon(work)
    yield one
    one.close()


class Rounds:
    def __init__(self, daemon, reference, source, layers, image, directory):
        self.daemon, self.reference, self.source, self.layers = daemon, reference, source, layers
        self.image, self.directory = image, directory
        self.directory.mkdir()
        self.control = daemon.control()

    def call(self, **request):
        answer = self.control.call(**request)
        assert "ok" in answer, answer
        return answer["ok"]

    def read(self, path):
        for name in FILES:
            if (Path(path) / name).exists():
                assert (Path(path) / name).read_bytes() == self.image.files[name]

    def attach(self, number):
        """The image or a part of it, with a directory or without, from all ways of asking; then it goes."""
        what = {"reference": self.reference} if number % 2 else {"layers": self.layers[:1 + number % 4 // 2], "reference": self.source}
        where = {"directory": str(self.directory)} if number % 3 == 0 else {}
        answer = self.call(call="attach", owner="me", no_fill=bool(number % 5), **what, **where)
        self.read(answer["path"])
        if where:
            self.read(self.directory)
        if number % 7 == 0:
            self.call(call="attach", owner="you", reference=self.reference)
            self.call(call="detach", owner="you")
        self.call(call="detach", owner="me")

    def others(self, number):
        """What is asked beside that, and what fails."""
        self.call(call="pull", reference=self.reference, seal=bool(number % 2))
        self.call(call="pin", reference=self.reference)
        self.call(call="unpin", reference=self.reference)
        for request in ({"call": "list"}, {"call": "status"}):
            self.call(**request)
        nobodys = {**self.layers[0], "index": "sha256:" + "5" * 64}
        for request in ({"call": "attach", "owner": "x", "reference": self.reference + "x"}, {"call": "detach", "owner": "x"},
                        {"call": "attach", "owner": "x", "layers": [nobodys], "reference": self.source}, {"call": "fly"}):
            assert "error" in self.control.call(**request)
        self.control.close()
        self.control = self.daemon.control()

    def run(self, first, count):
        for number in range(first, first + count):
            self.attach(number)
            if number % 10 == 0:
                self.others(number)


def test_images_come_and_go(daemon, backend, place, image, work):
    daemon.start()
    rounds = Rounds(daemon, f"{backend}/{NAME}:{TAG}", f"{backend}/{NAME}", layers_of(place), image, work / "a")
    warm = min(200, ROUNDS // 2)
    rounds.run(0, warm)
    watch = Watch(manager=daemon.process.pid, keeper=daemon.keeper(), server=daemon.server())
    rounds.run(warm, ROUNDS - warm)
    watch.check(ROUNDS - warm)
    assert not daemon.list() and not os.listdir(daemon.runtime / "fs/plain") and not os.listdir(daemon.state / "attached")
    assert not os.listdir(daemon.runtime / "bound")


def test_a_leak_is_seen():
    watch = Watch(me=os.getpid())
    kept = [os.open("/dev/null", os.O_RDONLY) for _ in range(2 * DESCRIPTORS)]
    with pytest.raises(AssertionError, match="descriptors"):
        watch.check(100)
    for fd in kept:
        os.close(fd)
    kept = [b"x" * (64 << 20)]
    with pytest.raises(AssertionError, match="has grown"):
        watch.check(100)
    assert kept


def test_reads_of_a_server(daemon, backend, image, work):
    """The same bytes from the kernel's cache, from the server's, by open, by map and by walk: it holds what it did."""
    daemon.start()
    daemon.mount(f"{backend}/{NAME}:{TAG}", work / "a")
    names = [name for name in image.files if "small" in name][:60]

    def read_all(count):
        for _ in range(count):
            for name in names:
                fd = os.open(work / "a" / name, os.O_RDONLY)
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
                assert os.read(fd, 1 << 16) == image.files[name]
                os.close(fd)
            machine.drop_caches()
            assert len(list(os.walk(work / "a"))) > 2

    read_all(max(2, ROUNDS // 20))
    watch = Watch(manager=daemon.process.pid, keeper=daemon.keeper(), server=daemon.server())
    read_all(ROUNDS // 10)
    watch.check(ROUNDS // 10)
