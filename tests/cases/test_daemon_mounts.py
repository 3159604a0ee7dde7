"""Keeper and server of the node daemon: images that come and go, kills under readers, an upgrade, damage to one image alone."""
import contextlib
import errno
import os
import signal
import struct
import subprocess
import sys
import tarfile
import threading
import time
from pathlib import Path

import pytest

import machine
import tree
from images import Image, docker_archive, tar_of

sys.path.append(str(machine.TOP / "tests/crash"))
import servers  # noqa: E402 # pylint: disable=wrong-import-position
from readers import Readers  # noqa: E402 # pylint: disable=wrong-import-position

DRIVER = machine.BUILD / "tests/fake/daemon-driver"
KILLS = int(os.environ.get("IMGFS_KILLS", "0")) or 40
UPGRADES = int(os.environ.get("IMGFS_UPGRADES", "0")) or 3
AT_CULPRIT = 12  # in the journal (journal.c): where a crash is noted
ANSWER_SECONDS = 120


class Refused(Exception):
    """What the keeper does not do: the name of the errno, and the sentence."""

    def __init__(self, line):
        super().__init__(line)
        self.name = line.split()[1]


class Driver:
    """A manager, as far as the keeper can tell."""

    def __init__(self, runtime, log, cache):
        self.runtime, self.log, self.cache = runtime, log, cache
        self.process = subprocess.Popen([DRIVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
        self.tell("open", runtime, log)

    def tell(self, *words):
        self.process.stdin.write((" ".join(str(word) for word in words) + "\n").encode())
        line = machine.read_line(self.process.stdout, "the driver", ANSWER_SECONDS)
        if line.startswith("error"):
            raise Refused(line)
        return line.split()[1:]

    def attach(self, slot, reference):
        """Where it is then."""
        return self.runtime / "fs" / self.tell("attach", slot, reference, self.cache)[0]

    def slots(self):
        return {int(item.split(",")[0]): item.split(",")[1:] for item in self.tell("list")}

    def keeper(self):
        return servers.find_keeper(self.runtime / "fs")

    def server(self, other_than=0):
        keeper = self.keeper()
        return machine.wait_until(lambda: (pid := servers.find_server(keeper)) != other_than and pid, "a server")

    def close(self):
        """It ends with its input; if it hangs, it is ended."""
        self.process.stdin.close()
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            machine.end(self.process)
        self.process.stdout.close()


@pytest.fixture
def driver(work):
    """A manager with a keeper of its own."""
    runtime = work / "run"
    one = Driver(runtime, work / "daemon.log", work / "cache")
    yield one
    one.close()
    keepers = machine.keepers_below(runtime)
    for pid in keepers:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    for pid in keepers:
        machine.wait_until(lambda pid=pid: pid not in machine.processes(), "the end of the keeper", 60)
    for point in machine.mount_points(runtime):
        subprocess.run(["umount", "-l", point], check=False)


@pytest.fixture
def host(store, serve):
    """A server that has two images."""
    store.add("inv-v1")
    store.add("inv-v2")
    return serve().host


def with_xattrs():
    """An image of which one file has an xattr, and many have content to read."""
    marked = tarfile.TarInfo("marked")
    marked.mode, marked.pax_headers = 0o644, {"SCHILY.xattr.user.note": "here"}
    files = [(f"dir-{i % 7}/file-{i}", os.urandom(1000 + 977 * i)) for i in range(150)]
    return Image(tar_of(marked, *files))


def export(store, work, name, image):
    archive = work / "image.tar"
    archive.write_bytes(docker_archive([(image, [name])]))
    machine.imgfs("export", "--store", store.path, "--tag", name, f"docker-archive:{archive}", timeout=600)
    return name


def unpack(image, work):
    root = work / "expected"
    root.mkdir()
    for layer in image.layers:
        subprocess.run(["tar", "-x", "-p", "-C", root], input=layer, check=True)
    return root


def errno_of(function, *arguments):
    try:
        function(*arguments)
    except OSError as fault:
        return fault.errno
    return 0


def test_images_come_and_go(driver, store, host, work, unpacked_scan):
    first = driver.attach(1, f"{host}/{store.add('inv-v1')}")
    second = driver.attach(7, f"{host}/{export(store, work, 'case/xattrs:1', with_xattrs())}")
    assert first.parent.name == "plain" and second.parent.name == "xattr"
    assert os.listdir(first.parent) == [first.name] and os.listdir(second.parent) == [second.name]
    assert not tree.compare(unpacked_scan("inv-v1"), tree.scan_apart(first))
    assert os.getxattr(second / "marked", "user.note") == b"here"
    assert errno_of(os.getxattr, first / "etc/os-release", "user.note") == errno.EOPNOTSUPP
    assert (second / "..").resolve() == second.parent
    assert int(driver.tell("reads", 1)[0]) > 0
    assert sorted(driver.slots().items()) == [(1, ["plain", first.name]), (7, ["xattr", second.name])]

    held = os.open(first, os.O_RDONLY | os.O_DIRECTORY)
    driver.tell("detach", 1)
    assert os.listdir(first.parent) == []
    assert errno_of(os.stat, first) == errno.ENOENT
    assert errno_of(lambda: os.open("no-such-name-yet", os.O_RDONLY, dir_fd=held)) == errno.ESTALE
    os.close(held)
    assert os.getxattr(second / "marked", "user.note") == b"here"
    again = driver.attach(8, f"{host}/{store.add('inv-v1')}")
    assert again == first
    assert (again / "etc/os-release").read_bytes()


def test_what_is_refused(driver, store, host):
    reference = f"{host}/{store.add('inv-v1')}"
    driver.attach(1, reference)
    for words, name in ((("attach", 1, reference, driver.cache), "EEXIST"), (("attach", 2, reference, driver.cache), "EEXIST"),
                        (("attach", 0, reference, driver.cache), "EINVAL"), (("detach", 3), "ENOENT"), (("reads", 3), "ENOENT")):
        with pytest.raises(Refused) as refused:
            driver.tell(*words)
        assert refused.value.name == name
    assert list(driver.slots()) == [1]


def test_detached_while_servers_die(driver, store, host):
    """Whatever the server is at when an image is taken away: it goes."""
    for number in range(1, 9):
        place = driver.attach(number, f"{host}/{store.add('inv-v1')}")
        servers.kill_server(driver.keeper())
        time.sleep(0.004 * number)
        driver.tell("detach", number)
        assert driver.slots() == {}
        assert errno_of(os.stat, place) == errno.ENOENT


def test_managers_come_and_go(driver, store, host, work):
    """What is attached does not depend on who attached it."""
    place = driver.attach(1, f"{host}/{store.add('inv-v1')}")
    keeper = driver.keeper()
    driver.process.kill()
    driver.process.wait(60)
    other = Driver(driver.runtime, work / "other.log", driver.cache)
    try:
        assert other.slots() == {1: ["plain", place.name]}
        assert other.keeper() == keeper
        assert (place / "etc/os-release").read_bytes()
        other.tell("end")
        assert not machine.mount_points(driver.runtime)
        machine.wait_until(lambda: keeper not in machine.processes(), "the end of the keeper")
    finally:
        other.close()


def test_sandbox(driver, store, host):
    """The server is nobody, without capabilities, and behind a filter; and still reads."""
    place = driver.attach(1, f"{host}/{store.add('inv-v1')}")
    status = dict(line.split(":", 1) for line in Path(f"/proc/{driver.server()}/status").read_text().splitlines())
    assert status["Uid"].split() == ["65534"] * 4 and status["Gid"].split() == ["65534"] * 4
    assert {int(status[name], 16) for name in ("CapEff", "CapPrm", "CapInh", "CapAmb")} == {0}
    assert status["NoNewPrivs"].strip() == "1"
    assert status["Groups"].strip() == ""
    if machine.build_option("sandbox") and machine.build_option("b_sanitize") == "none":
        assert status["Seccomp"].strip() == "2"
    assert (place / "etc/os-release").read_bytes()


class Comings:
    """Attaches and detaches an image again and again beside a test."""

    def __init__(self, driver, reference):
        self.driver, self.reference = driver, reference
        self.rounds, self.fault = 0, None
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        try:
            while not self.stopping.is_set():
                slot = 1000 + self.rounds
                place = self.driver.attach(slot, self.reference)
                assert os.listdir(place)
                self.driver.tell("detach", slot)
                assert not place.exists()
                self.rounds += 1
        except BaseException as fault:  # it has to get to the test
            self.fault = fault

    def stop(self):
        self.stopping.set()
        self.thread.join(2 * ANSWER_SECONDS)
        assert not self.thread.is_alive(), "it hangs"
        if self.fault:
            raise self.fault
        return self.rounds


def test_killed_under_readers(driver, store, host, work, unpacked):
    """Readers of images on both connections notice nothing of servers that are killed while other images come and go."""
    image = with_xattrs()
    plain = driver.attach(1, f"{host}/{store.add('inv-v1')}")
    xattr = driver.attach(2, f"{host}/{export(store, work, 'case/xattrs:2', image)}")
    keeper = driver.keeper()
    readers = [Readers(3, plain, unpacked("inv-v1"), 1, walkers=1), Readers(2, xattr, unpack(image, work), 2)]
    comings = Comings(driver, f"{host}/{store.add('inv-v2')}")
    kills = 0
    try:
        while kills < KILLS and not any(one.hung() or one.broken for one in readers):
            time.sleep(0.05 + 0.01 * (kills % 10))
            kills += servers.kill_server(keeper)
    finally:
        reports = [one.finish() for one in readers]
        rounds = comings.stop()
    for report in reports:
        assert not any(report[kind] for kind in ("errors", "short", "wrong", "hung", "broken")), report
        assert report["operations"] > 0
    assert kills == KILLS and rounds > 0
    assert driver.keeper() == keeper
    assert sorted(driver.slots()) == [1, 2]
    assert "refused" not in str(driver.slots())
    print(f"{kills} kills, {rounds} images attached and detached, {sum(report['operations'] for report in reports)} operations")


def test_keeper_killed(driver, store, host):
    """With the keeper the mounts are gone. Who opens them again clears what is left and starts anew."""
    reference = f"{host}/{store.add('inv-v1')}"
    place = driver.attach(1, reference)
    server = driver.server()
    os.kill(driver.keeper(), signal.SIGKILL)
    machine.wait_until(lambda: server not in machine.processes(), "the end of the server")
    assert errno_of(os.stat, place) in (errno.ENOTCONN, errno.ECONNABORTED)
    with pytest.raises(Refused) as refused:
        driver.tell("list")
    assert refused.value.name == "EPIPE"
    driver.tell("open", driver.runtime, driver.log)
    assert driver.slots() == {}
    assert len(machine.mount_points(driver.runtime)) == 2
    assert (driver.attach(2, reference) / "etc/os-release").read_bytes()


def test_upgrade_under_readers(driver, store, host, unpacked):
    """The keeper becomes another program, as the same process; its manager stays connected; readers notice nothing."""
    plain = driver.attach(1, f"{host}/{store.add('inv-v1')}")
    keeper = driver.keeper()
    readers = Readers(3, plain, unpacked("inv-v1"), 3)
    try:
        for number in range(UPGRADES):
            server = driver.server()
            driver.tell("upgrade")
            assert driver.keeper() == keeper
            assert driver.server(other_than=server) != server
            driver.attach(10 + number, f"{host}/{store.add('inv-v2')}")
            assert sorted(driver.slots()) == [1, 10 + number]
            driver.tell("detach", 10 + number)
    finally:
        report = readers.finish()
    assert not any(report[kind] for kind in ("errors", "short", "wrong", "hung", "broken")), report
    assert (plain / "etc/os-release").read_bytes()


def blame(keeper, slot):
    """Notes in the plain mount's journal what a crashing server would note: the image of the request it was at."""
    for path in sorted((Path("/proc") / str(keeper) / "fd").iterdir(), key=lambda path: int(path.name)):
        if "imgfs-journal" in os.readlink(path):
            with open(path, "r+b", buffering=0) as file:
                file.seek(AT_CULPRIT)
                file.write(struct.pack("=I", slot))
            return
    raise AssertionError("the keeper has no journal")


def test_quarantine(driver, store, host):
    """Three servers that die of one image are enough: it is EIO from then on, and the others go on. Kills from outside do not count."""
    bad = driver.attach(1, f"{host}/{store.add('inv-v1')}")
    good = driver.attach(2, f"{host}/{store.add('inv-v2')}")
    keeper, server = driver.keeper(), driver.server()
    for number, death in enumerate([signal.SIGKILL] * 3 + [signal.SIGSEGV] * 3):
        assert "refused" not in driver.slots()[1], number
        assert (bad / "etc/os-release").read_bytes() == (good / "etc/os-release").read_bytes()
        blame(keeper, 1)
        os.kill(server, death)
        server = driver.server(other_than=server)
        os.listdir(good.parent)
    machine.wait_until(lambda: "refused" in driver.slots()[1], "the image to be refused")
    assert errno_of(os.listdir, bad / "usr") == errno.EIO
    assert (good / "usr/lib/os-release").read_bytes()
    assert "refused" not in driver.slots()[2]
    assert driver.log.read_text().count("every request is answered with EIO, since 3 servers died of it") == 1
    driver.tell("detach", 1)
    assert (driver.attach(3, f"{host}/{store.add('inv-v1')}") / "usr/lib/os-release").read_bytes()


def test_damaged_under_the_mount(driver, store, host):
    """What rots of one image's files is EIO for that image alone, once the server that had it in memory is gone."""
    first = driver.attach(1, f"{host}/{store.add('inv-v1')}")
    views = {path for path in (driver.cache / "views").rglob("*") if path.is_file()}
    second = driver.attach(2, f"{host}/{store.add('inv-v2')}")
    for path in views:
        os.truncate(path, 5000)
    server = driver.server()
    os.kill(server, signal.SIGKILL)
    driver.server(other_than=server)
    assert errno_of(os.stat, first / "usr/lib/no-such-file") == errno.EIO
    assert (second / "usr/lib/os-release").read_bytes()
    assert driver.log.read_text().count("every request is answered with EIO") == 1
