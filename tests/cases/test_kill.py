"""The server of a mount is killed again and again while it is in use: nobody notices.

IMGFS_KILLS sets how often in each test (a few times by default); IMGFS_KILLS_REPORT names a file that gets a line of JSON a test.
"""
import http.client
import json
import os
import random
import signal
import struct
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path

import pytest

import machine
from images import Image, docker_archive, tar_of

CRASH = machine.TOP / "tests/crash"
OLD_KERNEL = machine.BUILD / "tests/fake/old-kernel.so"
KILLS = int(os.environ.get("IMGFS_KILLS", "0"))
REPORT = os.environ.get("IMGFS_KILLS_REPORT")
HUNG_SECONDS = 60
SECONDS_PER_KILL = 10  # a limit for a mount that hangs
FIO_SIZE = 16 << 20


class Killer:
    """kill-readers as a process beside the test: kills the server of a mount, and reads if it is told to."""

    def __init__(self, mounted, reference, kills, *options):
        self.kills = kills
        command = [sys.executable, CRASH / "kill-readers", "--json", *options, mounted.directory, reference, kills]
        self.process = subprocess.Popen(
            [str(word) for word in command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def runs(self):
        return self.process.poll() is None

    def report(self):
        """What it counted, once it is through; fails when that is not what it should be."""
        try:
            out, errors = self.process.communicate(timeout=60 + self.kills * SECONDS_PER_KILL)
        finally:
            self.close()
        assert out, errors
        report = json.loads(out)
        faults = {kind: report[kind] for kind in ("errors", "short", "wrong", "hung", "broken")}
        assert not any(faults.values()), f"{faults}\n{errors}"
        assert report["kills"] == self.kills
        return report

    def close(self):
        machine.end(self.process)
        self.process.stdout.close()
        self.process.stderr.close()


@pytest.fixture
def killer():
    """A function that starts killing."""
    running = []

    def start(mounted, reference, kills, *options):
        running.append(Killer(mounted, reference, kills, *options))
        return running[-1]

    yield start
    for one in running:
        one.close()


@pytest.fixture
def note(request):
    """A function that writes down what a test found, for IMGFS_KILLS_REPORT."""

    def write(**found):
        if REPORT:
            with open(REPORT, "a", encoding="utf-8") as file:
                file.write(json.dumps({"test": request.node.name, **found}) + "\n")

    return write


def taken_over(mounted):
    """How many requests servers found that their predecessors had left, and how many servers found any."""
    counts = [int(line.split("took over ")[1].split()[0])
              for line in mounted.log.read_text(errors="replace").splitlines() if "took over " in line]
    return {"takeovers": len(counts), "requests": sum(counts)}


@pytest.mark.parametrize("source", ["store", "http"])
def test_readers_do_not_notice(source, store, serve, mount, mount_http, unpacked, killer, note):
    name = store.add("inv-v1")
    mounted = mount("--store", store.path, name) if source == "store" else mount_http(serve().host, name)
    report = killer(mounted, unpacked("inv-v1"), KILLS or 50, "--readers", 4, "--seed", 1).report()
    assert report["operations"] > 0
    note(**report, **taken_over(mounted))
    mounted.unmount()


def saved_init(mounted):
    """The FUSE_INIT that keeper and servers go by: the size of the request, the minor version, both words of flags."""
    for path in (Path("/proc") / str(mounted.keeper) / "fd").iterdir():
        if "imgfs-init" in os.readlink(path):
            request = path.read_bytes()
            _, minor, _, flags = struct.unpack_from("=4I", request, 40)
            return len(request), minor, flags, struct.unpack_from("=I", request, 56)[0] if len(request) > 56 else 0
    raise AssertionError("the keeper holds no FUSE_INIT")


@pytest.mark.parametrize("kernel,size,minor", [("5.15", 56, 34), ("6.1", 104, 37)])
def test_with_what_older_kernels_offer(kernel, size, minor, store, mount, unpacked, killer, note):
    """The journal asks nothing of the kernel that these do not have."""
    preload = ("env", f"LD_PRELOAD={OLD_KERNEL}", f"IMGFS_OLD_KERNEL={kernel}")
    mounted = mount("--store", store.path, store.add("inv-v1"), prefix=preload)
    assert saved_init(mounted)[:2] == (size, minor)
    assert saved_init(mounted)[3] & ~3 == 0, "resending, passthrough and idmapped mounts came later"
    report = killer(mounted, unpacked("inv-v1"), KILLS or 15, "--readers", 3, "--walkers", 1).report()
    assert report["operations"] > 0
    note(**report, **taken_over(mounted))
    mounted.unmount()


def test_under_an_overlay(store, mount, unpacked, container, killer, note):
    """Readers and walkers of a container's root file system."""
    mounted = mount("--store", store.path, store.add("inv-v1"))
    over = container(mounted.directory, "inv-v1")
    report = killer(
        mounted, unpacked("inv-v1"), KILLS or 15, "--readers", 3, "--walkers", 2, "--drop-caches", "--tree", over.root
    ).report()
    assert report["operations"] > 0
    note(**report, **taken_over(mounted))
    over.close()
    mounted.unmount()


def test_while_fetching(store, serve, mount, unpacked, work, killer, note):
    """A cache that is empty each time, so that reads wait for the network when the server is killed."""
    name, host, left, seed, reports, found = store.add("inv-v1"), serve().host, KILLS or 16, 0, [], []
    while left > 0:
        kills, seed = min(left, 8), seed + 1
        mounted = mount("--plain-http", "--cache", work / f"cache-{seed}", f"{host}/{name}")
        reports.append(killer(mounted, unpacked("inv-v1"), kills, "--readers", 4, "--seed", seed).report())
        found.append(taken_over(mounted))
        mounted.unmount()
        machine.run("rm", "-rf", work / f"cache-{seed}")
        left -= kills
    assert all(report["operations"] > 0 for report in reports)
    sums = {name: sum(report[name] for report in reports) for name in ("kills", "operations", "bytes")}
    sums |= {name: sum(one[name] for one in found) for name in ("takeovers", "requests")}
    worst = {name: max(report["stall_ms"][name] for report in reports) for name in ("p50", "max")}
    note(**sums, caches=seed, worst_ms=worst)


@pytest.fixture(scope="session", name="fio_files")
def make_fio_files(session_dir, store):
    """Two files that fio laid out for its verification, in an image; returns its name in the store."""
    directory = session_dir / "fio"
    directory.mkdir()
    for name in ("one", "two"):
        machine.run(
            "fio", "--name=write", f"--filename={name}", "--rw=write", "--bs=16k", f"--size={FIO_SIZE}", "--ioengine=psync",
            "--verify=crc32c", "--do_verify=0", cwd=directory,
        )
    image = Image(tar_of(*((name, (directory / name).read_bytes()) for name in ("one", "two"))))
    archive = directory / "image.tar"
    archive.write_bytes(docker_archive([(image, ["case/fio:1"])]))
    machine.imgfs("export", "--store", store.path, f"docker-archive:{archive}")
    return "case/fio:1"


def fio_command(directory, seconds):
    """Reads at random past the page cache, so that each is a request, and in order through it; checks each block."""
    common = ["--readonly", "--bs=16k", f"--size={FIO_SIZE}", "--ioengine=psync", "--verify=crc32c",
              "--verify_fatal=1", "--time_based", f"--runtime={seconds}"]
    random_job = ["--name=random", f"--filename={directory}/one", "--rw=randread", "--direct=1", "--numjobs=2"]
    order_job = ["--name=order", f"--filename={directory}/two", "--rw=read"]
    return ["fio", "--output-format=json", *random_job, *common, *order_job, *common]


def fio_result(process):
    """Reads and faults of a run that ended; fio's JSON may have notes before it."""
    out, errors = process.communicate(timeout=HUNG_SECONDS)
    jobs = json.loads(out[out.index("{"):])["jobs"]
    return sum(job["read"]["total_ios"] for job in jobs), [job["error"] for job in jobs if job["error"]], errors


def test_fio_verifies(fio_files, store, mount, work, killer, note):
    mounted = mount("--store", store.path, "--cache", work / "cache", fio_files)
    killing = killer(mounted, mounted.directory, KILLS or 15, "--readers", 0)
    with subprocess.Popen(
        fio_command(mounted.directory, 86400), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=work
    ) as fio:
        try:
            while killing.runs():
                assert fio.poll() is None, fio.communicate()
                time.sleep(0.05)
            fio.send_signal(signal.SIGINT)
            reads, faults, errors = fio_result(fio)
        finally:
            machine.end(fio)
    assert not faults, errors
    assert reads > 0
    note(**killing.report(), reads=reads, **taken_over(mounted))
    mounted.unmount()


def test_fio_sees_a_wrong_byte(work, fio_files, session_dir):  # pylint: disable=unused-argument # the files are its
    """The verification above means something."""
    for name in ("one", "two"):
        content = bytearray((session_dir / "fio" / name).read_bytes())
        content[5_000_000] ^= 1
        (work / name).write_bytes(content)
    with subprocess.Popen(fio_command(work, 20), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=work) as fio:
        _, faults, _ = fio_result(fio)
    assert faults


class Client:
    """Asks the service in a container for what files hold, in threads, and compares."""

    def __init__(self, port, mounted, reference):
        self.port, self.mounted, self.reference = port, mounted, reference
        self.jars = sorted((reference / "opt/invoker/lib").glob("*.jar"))
        self.sizes = {path: self.unpacked_size(path) for path in self.jars[:: len(self.jars) // 20]}
        self.requests, self.faults = 0, []
        self.stopping = threading.Event()
        self.threads = [threading.Thread(target=self._run, args=(seed,), daemon=True) for seed in range(3)]
        for thread in self.threads:
            thread.start()

    @staticmethod
    def unpacked_size(jar):
        with zipfile.ZipFile(jar) as archive:
            return sum(entry.file_size for entry in archive.infolist())

    def _ask(self, query):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=HUNG_SECONDS)
        try:
            connection.request("GET", query)
            reply = connection.getresponse()
            return reply.status, reply.read()
        finally:
            connection.close()

    def _forget(self, path):
        """So that the service's read is a request to the server of the mount."""
        file = os.open(self.mounted.directory / path, os.O_RDONLY)
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(file)

    def _compare(self, chooser):
        if chooser.random() < 0.2:
            jar, size = chooser.choice(list(self.sizes.items()))
            self._forget(jar.relative_to(self.reference))
            return self._ask(f"/jar?/{jar.relative_to(self.reference)}"), (200, b"%d" % size)
        jar = chooser.choice(self.jars)
        path, size = jar.relative_to(self.reference), jar.stat().st_size
        offset = chooser.randrange(size)
        length = min(size - offset, chooser.choice((1, 4096, 100_000, 1 << 20)))
        self._forget(path)
        with open(jar, "rb") as file:
            expected = os.pread(file.fileno(), length, offset)
        return self._ask(f"/file?/{path}?{offset}?{length}"), (200, expected)

    def _run(self, seed):
        chooser = random.Random(seed)
        while not self.stopping.is_set() and len(self.faults) < 10:
            try:
                found, expected = self._compare(chooser)
                if found != expected:
                    self.faults.append(f"status {found[0]}, {len(found[1])} bytes of {len(expected[1])}: {found[1][:300]!r}")
            except (OSError, http.client.HTTPException) as fault:
                self.faults.append(repr(fault))
            self.requests += 1

    def stop(self):
        self.stopping.set()
        for thread in self.threads:
            thread.join(2 * HUNG_SECONDS)
        assert not any(thread.is_alive() for thread in self.threads), "a request hangs"


@pytest.fixture
def file_service(work, container):
    """A function that starts tests/crash/FileService.java in a container over a mounted invoker; returns the port it listens at."""

    def start(mounted):
        machine.run("javac", "--release", "17", "-d", work / "classes", CRASH / "FileService.java")
        service = container(mounted.directory, "inv-v1", arguments=["java", "-cp", "/opt/service", "FileService"])
        (service.root / "opt/service").mkdir()
        for path in (work / "classes").iterdir():
            (service.root / "opt/service" / path.name).write_bytes(path.read_bytes())
        service.start()
        return int(service.lines_until("PORT")[-1].split()[-1])

    return start


def test_service_on_the_jvm(store, mount, unpacked, container, file_service, killer, note):
    """The invoker's own service starts, and another answers HTTP from files, both in containers, while servers are killed."""
    mounted = mount("--store", store.path, store.add("inv-v1"))
    port = file_service(mounted)
    killing = killer(mounted, unpacked("inv-v1"), KILLS or 20, "--readers", 0)
    client, starts = Client(port, mounted, unpacked("inv-v1")), 0
    try:
        while starts == 0 or killing.runs():
            invoker = container(mounted.directory, "inv-v1")
            invoker.start()
            lines = invoker.lines_until("READY")
            assert invoker.wait() == 0
            assert not [line for line in lines if "FAIL" in line]
            invoker.close()
            starts += 1
    finally:
        client.stop()
    assert not client.faults, "\n".join(client.faults)
    assert client.requests > 0
    note(**killing.report(), http_requests=client.requests, starts=starts, **taken_over(mounted))


def test_server_ends_with_its_keeper(store, mount):
    """Also one that has just been started, or is about to be: no process is left without a keeper."""
    programs = (machine.KEEPER, machine.SERVER)
    before = {pid for program in programs for pid in machine.processes_of(program)}
    for number in range(KILLS // 20 or 10):
        mounted = mount("--store", store.path, store.add("inv-v1"))
        os.kill(mounted.server(), signal.SIGKILL)
        time.sleep(number % 10 * 0.003)
        os.kill(mounted.keeper, signal.SIGKILL)
        machine.wait_until(
            lambda: {pid for program in programs for pid in machine.processes_of(program)} <= before, "the server's end"
        )
        machine.imgfs("umount", mounted.directory)
