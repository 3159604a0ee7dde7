"""Everything that can go wrong at the source of an image, alone and mixed: nothing wrong is read, nobody hangs, all is well again by itself.

IMGFS_READS sets how many verified reads the mixture gets (a few hundred by default), IMGFS_READS_SEED its seed.
"""
import errno
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import front as fake
import machine
import tree
from endpoint import NAME, TAG
from endpoint import make_backend, make_image, make_place  # noqa: F401 # pylint: disable=unused-import # fixtures
from namespace import MountNamespace
from test_status import status_of

DEADLINE = 2
# A read that waits ends by the deadline; the rest is for this machine, which does other things too. It is less than the deadline would be by default.
SLACK = 25
READS = int(os.environ.get("IMGFS_READS", "400"))
# Seconds between two losses of all that was fetched. Many reads are to be of what is present, or they would take days.
SPOIL_SECONDS = 3 if READS < 20_000 else 150
WORKERS = 4 if READS < 20_000 else 16
SEED = int(os.environ.get("IMGFS_READS_SEED", str(time.time_ns() % 1000000)))
NOISE = 3_000_000
READ = "import os, sys\nfd = os.open(sys.argv[1], os.O_RDONLY)\nsys.stdout.buffer.write(os.pread(fd, int(sys.argv[3]), int(sys.argv[2])))\n"
# What the log says of each. Those without a word do not fail: what comes is enough.
WORDS = {
    "stall-accept": "sends nothing", "stall-headers": "sends nothing", "stall-body": "sends nothing", "trickle": "sends nothing",
    "reset": "", "close": "", "500": "status 500", "503": "status 503", "401": "status 401", "404": "status 404", "429": "status 429",
    "truncated": "", "too-long": None, "wrong-range": "another range", "whole": "ignores ranges", "corrupt": "copy is corrupt",
    "redirect-loop": "redirects without end",
}


@pytest.fixture(name="front")
def make_front(backend):
    with fake.Front(backend, seed=SEED) as front:
        yield front


@pytest.fixture(name="attach")
def make_attach(mount, work):
    def attach(front, *options, host=None, name=f"{NAME}:{TAG}", **more):
        return mount("--cache", work / "cache", "--deadline", str(DEADLINE), *options, f"{host or front.host}/{name}", **more)

    return attach


def piece(mounted, image, at, size=4096):
    """Reads in this process, past the page cache: True for the right bytes, or the errno. Anything else fails."""
    begin = time.monotonic()
    try:
        fd = os.open(mounted.directory / "usr/noise", os.O_RDONLY)
        try:
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            assert os.pread(fd, size, at) == image.files["usr/noise"][at:at + size]
        finally:
            os.close(fd)
        return True
    except OSError as fault:
        assert fault.errno == errno.EIO
        return fault.errno
    finally:
        assert time.monotonic() - begin < DEADLINE + SLACK


def read_all(mounted, image):
    for path, content in image.files.items():
        assert (mounted.directory / path).read_bytes() == content, path


def warnings_of(mounted):
    return [line for line in mounted.log.read_text().splitlines() if "cannot fetch from" in line]


@pytest.mark.parametrize("fault", ["stall-accept", "stall-body", "503", "killed"])
def test_a_reader_that_is_killed(fault, front, image, attach):
    """Who waits for what cannot come dies of SIGKILL, long before the deadline; and nobody waits for him."""
    mounted = attach(front, "--deadline", "1000")
    assert piece(mounted, image, 0) is True
    if fault == "killed":
        front.kill()
    front.fault = fault
    with subprocess.Popen([sys.executable, "-c", READ, str(mounted.directory / "usr/noise"), str(NOISE // 3), "4096"],
                          stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as reader:
        try:
            machine.wait_until(lambda: status_of(mounted)["record"]["waitingReaders"], "a reader that waits")
            assert reader.poll() is None
        finally:
            reader.kill()
        assert reader.wait(120) == -signal.SIGKILL
    mounted.unmount()


@pytest.mark.parametrize("fault", sorted(WORDS))
def test_while_reading(fault, front, image, attach):
    assert sorted(WORDS) == sorted(fake.FAULTS)
    mounted = attach(front)
    assert piece(mounted, image, 0) is True
    front.fault = fault
    assert piece(mounted, image, 0) is True
    outcomes = {piece(mounted, image, at) for at in (NOISE // 2, NOISE - 5000)}
    assert front.met[fault] > 0
    if WORDS[fault] is None:
        assert outcomes == {True}
    elif fault in ("stall-accept", "500", "404", "wrong-range", "whole", "redirect-loop", "close"):
        assert outcomes == {errno.EIO}
    lines = warnings_of(mounted)
    if WORDS[fault]:
        named = [line for line in lines if WORDS[fault] in line]
        assert len(named) == 1 and f"{front.url}/v2/{NAME}/blobs/" in named[0]
    # One line for a reason, however often it is met.
    assert len(lines) <= 3
    front.fault = None
    read_all(mounted, image)
    assert not lines or "works again" in mounted.log.read_text()
    mounted.unmount()


def test_killed_and_back(front, image, attach):
    mounted = attach(front)
    assert piece(mounted, image, 0) is True
    for _ in range(3):
        front.kill()
        assert piece(mounted, image, 0) is True
        assert piece(mounted, image, NOISE // 2) in (True, errno.EIO)
        front.revive()
        assert piece(mounted, image, NOISE // 2) is True
    read_all(mounted, image)
    assert len(warnings_of(mounted)) <= 6
    mounted.unmount()


def test_busy(front, image, attach):
    """A server that asks for time gets it: few requests, and success as soon as it is through."""
    mounted = attach(front, "--deadline", "10")
    front.fault = "429"
    front.retry_after = 2
    before = len(front.log)
    with subprocess.Popen([sys.executable, "-c", READ, str(mounted.directory / "usr/noise"), "0", "4096"], stdout=subprocess.PIPE) as reader:
        time.sleep(3.5)
        assert len(front.log) - before <= 3
        front.fault = None
        assert reader.communicate(timeout=20)[0] == image.files["usr/noise"][:4096]
    mounted.unmount()


@pytest.mark.parametrize("fault", [*sorted(WORDS), "killed"])
def test_while_mounting(fault, front, image, attach, work):
    """It fails soon and says why, or works; either way the next attempt works, and a cache gets nothing wrong."""
    (work / "mount").mkdir()
    front.fault = fault
    if fault == "killed":
        front.kill()
    done = machine.run(machine.IMGFS, "mount", "--cache", work / "cache", "--deadline", "2", f"{front.host}/{NAME}:{TAG}",
                       work / "mount", check=False, timeout=60)
    if done.returncode == 0:
        assert fault in ("too-long", "reset", "truncated")
        machine.imgfs("umount", work / "mount")
    else:
        # Several requests, tried several times, none of them longer than the deadline.
        assert done.returncode in (1, 3, 4)
        assert front.host in done.stderr and (WORDS.get(fault) or "") in done.stderr.replace("no answer within 2000 ms", "sends nothing").replace(
            "the index of layer", "copy is corrupt")
    front.fault = None
    if fault == "killed":
        front.revive()
    mounted = attach(front)
    read_all(mounted, image)
    mounted.unmount()


@pytest.mark.parametrize("wrong", ["garbage", "truncated", "another", "empty", "huge"])
def test_wrong_manifest(wrong, front, image, attach, work):
    changes = {
        "garbage": lambda body: b"\xff{" + body, "truncated": lambda body: body[:-20], "another": lambda body: body.replace(b'"size"', b'"size" '),
        "empty": lambda body: b"", "huge": lambda body: body + b" " * (20 << 20),
    }
    mounted = attach(front)
    digest = next(line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(mounted.directory) in line).split("@")[1].split()[0]
    mounted.unmount()
    front.manifests = changes[wrong]
    (work / "mount").mkdir()
    for reference, cache in ((f"{front.host}/{NAME}:{TAG}", "cache-2"), (f"{front.host}/{NAME}@{digest}", "cache-3")):
        done = machine.run(machine.IMGFS, "mount", "--cache", work / cache, "--deadline", "2", reference, work / "mount", check=False)
        if done.returncode == 0:  # by tag, another manifest that means the same is as good
            assert wrong == "another" and "@" not in reference
            machine.imgfs("umount", work / "mount")
        else:
            assert done.returncode in (1, 4) and f"{front.host}/v2/{NAME}/manifests/" in done.stderr, done.stderr
    front.manifests = None
    mounted = attach(front)
    read_all(mounted, image)
    mounted.unmount()


def test_certificate_changed(backend, image, attach, place):
    """Another authority's certificate is refused, a renewed one of the same is not noticed."""
    first, other = (fake.make_authority(place / "tls", name) for name in ("first", "other"))
    renewed = fake.make_authority(place / "tls-2", "first")
    with fake.Front(backend, tls=fake.server_context(*first[1:])) as front:
        mounted = attach(front, "--ca", first[0])
        assert piece(mounted, image, 0) is True
        front.kill()
        front.tls = fake.server_context(*other[1:])
        front.revive()
        assert piece(mounted, image, 0) is True
        assert piece(mounted, image, NOISE // 2) == errno.EIO
        lines = warnings_of(mounted)
        assert [line for line in lines if "is not of an authority that this machine trusts" in line]
        assert len(front.log) < 20 and len(lines) <= 3
        front.kill()
        front.tls = fake.server_context(*first[1:])
        front.revive()
        read_all(mounted, image)
        mounted.unmount()
        assert renewed


def test_name_not_found(front, image, attach, work):
    """The name service fails: a server that has just been started cannot even ask for the address."""
    hosts, resolver = work / "hosts", work / "resolv.conf"
    hosts.write_text("127.0.0.1 registry.test\n")
    resolver.write_text("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
    namespace = MountNamespace(work)
    try:
        namespace.run("mount", "--bind", hosts, "/etc/hosts")
        namespace.run("mount", "--bind", resolver, "/etc/resolv.conf")
        mounted = attach(front, "--plain-http", host=f"registry.test:{front.port}", prefix=namespace.prefix)

        def read(at):
            return namespace.run("/usr/bin/python3", "-c", f"import os\nos.write(1, os.pread(os.open('{mounted.directory}/usr/noise', os.O_RDONLY), 16, {at}).hex().encode())",
                                 check=False, timeout=DEADLINE + SLACK + 5)

        assert read(0).stdout == image.files["usr/noise"][:16].hex()
        hosts.write_text("127.0.0.1 localhost\n")
        os.kill(mounted.server(), signal.SIGKILL)
        done = read(NOISE // 2)
        assert "Errno" in done.stderr and not done.stdout
        assert "resolve host" in mounted.log.read_text()
        hosts.write_text("127.0.0.1 registry.test\n")
        assert read(NOISE // 2).stdout == image.files["usr/noise"][NOISE // 2:][:16].hex()
        namespace.run(machine.IMGFS, "umount", mounted.directory)
    finally:
        namespace.close()


WORKER = """
import errno, os, random, sys, time
mount, reference, seed, count, limit = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), float(sys.argv[5])
dice, files = random.Random(seed), []
for parent, _, names in os.walk(reference):
    for name in names:
        path = os.path.join(parent, name)
        if os.path.isfile(path) and not os.path.islink(path) and os.path.getsize(path):
            files.append((os.path.relpath(path, reference), os.path.getsize(path)))
files.sort()
large = sorted(files, key=lambda file: -file[1])[:40]
done = failed = 0
longest = 0.0
while done < count:
    name, length = dice.choice(files if dice.random() < 0.5 else large)
    at, size = dice.randrange(length), dice.choice((1, 4096, 4096, 65536))
    begin = time.monotonic()
    try:
        with open(f"{reference}/{name}", "rb", buffering=0) as file:
            expected = os.pread(file.fileno(), size, at)
        begin = time.monotonic()
        with open(f"{mount}/{name}", "rb", buffering=0) as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            got = os.pread(file.fileno(), size, at)
        if got != expected:
            sys.exit(f"wrong bytes: {name} at {at}, {size}")
        done += 1
    except OSError as fault:
        if fault.errno != errno.EIO:
            raise
        failed += 1
    longest = max(longest, time.monotonic() - begin)
    if longest > limit:
        sys.exit(f"hung: {longest}")
print(done, failed, longest)
"""


def test_mixture(store, serve, attach, unpacked, unpacked_scan, work):
    """Readers compare while one answer in four has a fault, the front is killed and revived, and the cache is spoilt over and over."""
    reference, name = unpacked("inv-v1"), store.add("inv-v1")
    with fake.Front(serve().host, seed=SEED) as front:
        mounted = attach(front, "--deadline", "10", name=name)
        front.faults = (fake.FAULTS, 0.25)
        dice, deaths, spoilt = random.Random(SEED), 0, 0
        workers = [
            subprocess.Popen([sys.executable, "-c", WORKER, str(mounted.directory), str(reference), str(SEED + number), str(READS // WORKERS),
                              str(10 + SLACK)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            for number in range(WORKERS)
        ]
        try:
            while any(worker.poll() is None for worker in workers):
                time.sleep(0.5)
                if dice.random() < 0.5 / SPOIL_SECONDS:
                    spoil(work / "cache")
                    spoilt += 1
                if dice.random() < 0.05:
                    front.kill()
                    time.sleep(dice.random())
                    front.revive()
                    deaths += 1
            results = [worker.communicate(timeout=60)[0] for worker in workers]
            assert all(worker.returncode == 0 for worker in workers), (SEED, results)
        finally:
            for worker in workers:
                worker.kill()
                worker.wait()
        totals = [[float(word) for word in result.split()] for result in results]
        done, failed = (int(sum(column)) for column in list(zip(*totals))[:2])
        print(f"seed {SEED}: {done} reads right, {failed} ended with an error, longest {max(total[2] for total in totals):.1f} s, "
              f"{len(front.log)} requests, {sum(front.met.values())} faults {front.met}, front killed {deaths} times, "
              f"cache spoilt {spoilt} times, {len(warnings_of(mounted))} lines in the log")
        assert done >= READS // WORKERS * WORKERS and front.met
        front.faults = None
        assert not tree.compare(unpacked_scan("inv-v1"), tree.scan_apart(mounted.directory))
        mounted.unmount()


def spoil(cache):
    """Takes the bytes of all frames away."""
    for path in (cache / "blobs").rglob("data"):
        size = path.stat().st_size
        os.truncate(path, 0)
        os.truncate(path, size)
    machine.drop_caches()
