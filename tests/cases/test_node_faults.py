"""The node daemon under everything at once: faulty hosts and mirrors, servers and managers that are killed, copies that rot, evictions; readers compare all.

IMGFS_READS sets how many verified reads the mixture gets, IMGFS_KILLS how many servers are killed, IMGFS_EVICT_SECONDS how long chunks are evicted beside readers.
"""
import contextlib
import os
import random
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest

import front as fake
import machine
import tree
from daemon import Daemon
from images import Image, docker_archive, tar_of
from test_cache_quota import age
from test_source_faults import SEED, SLACK, WORKER, spoil

sys.path.append(str(machine.TOP / "tests/crash"))
from readers import FAULTS, Readers  # noqa: E402 # pylint: disable=wrong-import-position

READS = int(os.environ.get("IMGFS_READS", "100"))
KILLS = int(os.environ.get("IMGFS_KILLS", "0")) or 20
SECONDS = float(os.environ.get("IMGFS_EVICT_SECONDS", "6"))
DEADLINE = 10
WORKERS = 4 if READS < 20_000 else 12
# Many reads are to be of what is present, or they would take days.
SPOIL_SECONDS = 5 if READS < 20_000 else 60
GROWTH = 48 << 20  # of a server: what its slots for decoded chunks and its connections may come to


class Made:
    """A small image in a store, and the tree that tar makes of it: noise, text, directories, links; an xattr if it is wanted."""

    def __init__(self, store, place, name, xattr):
        dice = random.Random(f"{SEED} {name}")
        marked, link = tarfile.TarInfo("marked"), tarfile.TarInfo("dir-1/link")
        marked.mode, link.type, link.linkname = 0o644, tarfile.SYMTYPE, "../marked"
        if xattr:
            marked.pax_headers = {"SCHILY.xattr.user.note": "here"}
        files = [(f"dir-{i % 7}/file-{i}", dice.randbytes(1000 + 977 * i) if i % 3 else b"text %d\n" % i * 300 * i) for i in range(150)]
        files.append(("noise", dice.randbytes(6_000_000)))
        directories = [tarfile.TarInfo(f"dir-{i}") for i in range(7)]
        for directory in directories:
            directory.type, directory.mode, directory.mtime = tarfile.DIRTYPE, 0o755, 1700000000
        image = Image(tar_of(*directories, marked, *files, link))
        self.name, self.tree = f"case/{name}:1", place / f"tree-{name}"
        (place / "image.tar").write_bytes(docker_archive([(image, [self.name])]))
        machine.imgfs("export", "--store", store, "--tag", self.name, f"docker-archive:{place}/image.tar", timeout=300)
        self.tree.mkdir()
        subprocess.run(["tar", "-x", "-p", "--xattrs", "-C", self.tree], input=image.layers[0], check=True)
        self.scan = tree.scan_apart(self.tree)

    def check(self, directory):
        # No layer has an entry for the root, and tar moves the times of directories that it comes back to.
        assert not tree.compare(self.scan, tree.scan_apart(directory),
                                lambda path, field: path == "." or (field == "mtime" and (self.tree / path).is_dir()))


@pytest.fixture(name="made", scope="module")
def make_made(session_dir):
    """A store with three images; the last has an xattr."""
    place = session_dir / "node-faults"
    place.mkdir()
    images = [Made(place / "store", place, name, name == "three") for name in ("one", "two", "three")]
    server = machine.Serve(place / "store", place / "serve.log")
    yield server.host, images
    server.stop()


@pytest.fixture(name="daemon")
def make_daemon(work):
    one = Daemon(work)
    yield one
    one.close()


def configure(daemon, text):
    conf = daemon.work / "imgfs.conf"
    conf.write_text(text)
    words = daemon.command()
    daemon.command = lambda: [words[0], "--config", conf, *words[1:], "--deadline", str(DEADLINE)]


def memory(pid):
    with contextlib.suppress(OSError, StopIteration):
        return next(int(line.split()[1]) << 10 for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("RssAnon"))
    return 0


def kill(pid):
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, 9)


class Troubles:
    """What goes wrong in a turn of the mixture, by dice."""

    def __init__(self, daemon, fronts, dice):
        self.daemon, self.fronts, self.dice = daemon, fronts, dice
        self.counts = {"spoilt": 0, "fronts killed": 0, "servers killed": 0, "managers killed": 0}

    def turn(self):
        if self.dice.random() < 0.5 / SPOIL_SECONDS:
            spoil(self.daemon.cache)
            self.counts["spoilt"] += 1
        if self.dice.random() < 0.05:
            front = self.dice.choice(self.fronts)
            front.kill()
            time.sleep(self.dice.random())
            front.revive()
            self.counts["fronts killed"] += 1
        if self.dice.random() < 0.05:
            kill(self.daemon.server())
            self.counts["servers killed"] += 1
        if self.dice.random() < 0.02:
            self.daemon.kill()
            self.daemon.start()
            self.counts["managers killed"] += 1


def test_mixture(daemon, made, work):
    """Images of one host with two mirrors, each of whose answers has a fault one time in four."""
    backend, images = made
    with contextlib.ExitStack() as stack:
        fronts = [stack.enter_context(fake.Front(backend, seed=SEED + number)) for number in range(3)]
        configure(daemon, f"[host {fronts[0].host}]\nmirrors = {fronts[1].host} {fronts[2].host}\n")
        daemon.start()
        for number, image in enumerate(images):
            daemon.mount(f"{fronts[0].host}/{image.name}", work / f"m{number}", "--no-fill")
        for front in fronts:
            front.faults = (fake.FAULTS, 0.25)
        troubles = Troubles(daemon, fronts, random.Random(SEED))
        workers = [
            subprocess.Popen([sys.executable, "-c", WORKER, str(work / f"m{number % 3}"), str(images[number % 3].tree), str(SEED + number),
                              str(READS // WORKERS), str(DEADLINE + SLACK)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            for number in range(WORKERS)
        ]
        largest = 0
        try:
            while any(worker.poll() is None for worker in workers):
                time.sleep(0.5)
                troubles.turn()
                largest = max(largest, memory(daemon.server()))
            results = [worker.communicate(timeout=60)[0] for worker in workers]
            assert all(worker.returncode == 0 for worker in workers), (SEED, results, troubles.counts)
        finally:
            for worker in workers:
                worker.kill()
                worker.wait()
        totals = [[float(word) for word in result.split()] for result in results]
        met = {fault: sum(front.met.get(fault, 0) for front in fronts) for fault in fake.FAULTS}
        print(f"seed {SEED}: {int(sum(total[0] for total in totals))} reads right, {int(sum(total[1] for total in totals))} ended with an error, longest "
              f"{max(total[2] for total in totals):.1f} s, {sum(len(front.log) for front in fronts)} requests, faults {met}, {troubles.counts}, "
              f"a server's memory at most {largest >> 20} MB")
        assert sum(met.values()) > 0
        for front in fronts:
            front.faults = None
        for number, image in enumerate(images):
            image.check(work / f"m{number}")


def rot(directory, dice):
    """Writes over pages of the copies, in place."""
    for path in directory.iterdir():
        if path.name.startswith("."):
            continue
        with open(path, "r+b", buffering=0) as file:
            for _ in range(50):
                os.pwrite(file.fileno(), b"rot!", dice.randrange(path.stat().st_size))


def test_killed_with_copies(daemon, made, work):
    """Servers and managers die under readers of three images, two of which are read from decoded copies, that rot half-way."""
    (host, images), dice = made, random.Random(SEED)
    for image in images[1:]:
        machine.imgfs("pull", "--quiet", "--decoded", "--cache", daemon.cache, f"{host}/{image.name}", timeout=300)
    daemon.start()
    for number, image in enumerate(images):
        daemon.mount(f"{host}/{image.name}", work / f"m{number}")
    keeper, kills, managers = daemon.keeper(), 0, 0
    readers = [Readers(2, work / f"m{number}", image.tree, SEED + number, walkers=number == 0) for number, image in enumerate(images)]
    try:
        while kills < KILLS and not any(one.hung() or one.broken for one in readers):
            time.sleep(0.05 + 0.01 * (kills % 10))
            kill(daemon.server())
            kills += 1
            if kills == KILLS // 2:
                rot(daemon.cache / "decoded", dice)
            if kills % 10 == 0:
                daemon.kill()
                daemon.start()
                managers += 1
    finally:
        reports = [one.finish() for one in readers]
    for report in reports:
        assert not any(report[kind] for kind in FAULTS), report
        assert report["operations"] > 0
    assert kills == KILLS and daemon.keeper() == keeper and len(daemon.list()) == 3
    print(f"{kills} servers and {managers} managers killed, {sum(report['operations'] for report in reports)} operations, "
          f"{sum(report['bytes'] for report in reports) >> 20} MB compared")


def test_evicted_beside_readers(daemon, mount, made, work):
    """imgfsd, a private mount and pulls have one cache that holds a fraction of what they read; several evict from it at once, some are killed."""
    host, images = made
    references = [f"{host}/{image.name}" for image in images]
    configure(daemon, "[cache]\nquota = 12M\n")
    daemon.start()
    # A fill would be held up by the quota, and what is sealed is not evicted.
    for number, reference in enumerate(references):
        daemon.mount(reference, work / f"m{number}", "--no-fill")
    private = mount("--cache", daemon.cache, "--quota", "10M", references[0])
    places = [(work / f"m{number}", image.tree) for number, image in enumerate(images)] + [(private.directory, images[0].tree)]
    readers = [Readers(2, place, of, SEED + number) for number, (place, of) in enumerate(places)]
    turns, evicted, kills, largest, first, end = 0, 0, 0, 0, memory(daemon.server()), time.monotonic() + SECONDS
    try:
        while time.monotonic() < end and not any(one.hung() or one.broken for one in readers):
            age(daemon.cache, 100)
            done = machine.imgfs("cache", "--cache", daemon.cache, "evict", "--quota", "3M", check=False)
            evicted += done.returncode == 0
            if turns % 4 == 1:
                machine.imgfs("pull", "--quiet", "--cache", daemon.cache, references[turns // 4 % 3], check=False, timeout=300)
            if turns % 4 == 3:
                kill([private.server, daemon.server][turns // 4 % 2]())
                kills += 1
            largest = max(largest, memory(daemon.server()))
            turns += 1
    finally:
        reports = [one.finish() for one in readers]
    for report in reports:
        assert not any(report[kind] for kind in FAULTS), report
        assert report["operations"] > 0
    print(f"{turns} turns, {evicted} of `cache evict`, {kills} servers killed, {sum(report['operations'] for report in reports)} operations, "
          f"{sum(report['bytes'] for report in reports) >> 20} MB compared, imgfsd's server {first >> 20} to {largest >> 20} MB")
    assert turns > 1 and largest < first + GROWTH
    private.unmount()
    found = machine.imgfs("cache", "--cache", daemon.cache, "verify", check=False, timeout=300)
    assert found.returncode == 0 and " 0 rotten" in found.stdout, found.stdout + found.stderr
