"""A mount whose keeper was killed: what its users see, and how it goes away or comes back."""
import contextlib
import errno
import fcntl
import os
import signal
import subprocess

import pytest

import machine
from test_first_light import probe, whole

FILE = "etc/passwd"


def fault_of(path):
    """The errno of statfs(), which is never answered from a cache; 0: none."""
    try:
        os.statvfs(path)
    except OSError as fault:
        return fault.errno
    return 0


def kill_keeper(mounted):
    """Also waits until keeper and server are gone. A request that is under way then still fails in another way."""
    server = mounted.server()
    os.kill(mounted.keeper, signal.SIGKILL)
    machine.wait_until(lambda: not {mounted.keeper, server} & machine.processes().keys(), "the end of keeper and server")
    faults = set()
    machine.wait_until(lambda: faults.add(fault_of(mounted.directory)) or errno.ENOTCONN in faults, "ENOTCONN")
    assert faults <= {errno.ENOTCONN, errno.ECONNABORTED}


@pytest.fixture
def dead_mount(store, mount):
    """A function that mounts the invoker and kills the keeper."""

    def make():
        mounted = mount("--store", store.path, store.add("inv-v1"))
        kill_keeper(mounted)
        return mounted

    return make


def is_mounted(mounted):
    return str(mounted.directory) in machine.mount_points(mounted.directory)


def test_users_see_that_it_is_gone(dead_mount):
    mounted = dead_mount()
    assert fault_of(mounted.directory) == errno.ENOTCONN
    assert probe(mounted.directory / FILE) == {"errno": "ENOTCONN"}
    assert is_mounted(mounted)
    assert machine.imgfs("umount", mounted.directory).stderr == ""
    assert not is_mounted(mounted)


def test_open_files_fail_at_once(store, mount):
    """Who waits for a read gets an error, not the wait."""
    mounted = mount("--store", store.path, store.add("inv-v1"))
    file = os.open(mounted.directory / FILE, os.O_RDONLY)
    try:
        kill_keeper(mounted)
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        with pytest.raises(OSError) as fault:
            os.pread(file, 4096, 0)
        assert fault.value.errno == errno.ENOTCONN
        done = machine.imgfs("umount", mounted.directory, check=False)
        assert done.returncode == 1
        assert "--lazy" in done.stderr
        machine.imgfs("umount", "--lazy", mounted.directory)
        assert not is_mounted(mounted)
    finally:
        with contextlib.suppress(OSError):  # close() flushes, which fails as well; the descriptor is gone all the same
            os.close(file)


def test_container_on_it(store, container, mount, unpacked_scan):
    """Overlayfs does not keep the directory busy; the container has lost its files and has to go."""
    mounted = mount("--store", store.path, store.add("inv-v1"))
    sleeper = container(mounted.directory, "inv-v1", arguments=["sh", "-c", "echo READY; exec sleep 1000"])
    sleeper.start()
    sleeper.lines_until("READY")
    kill_keeper(mounted)
    assert probe(sleeper.root / FILE) == {"errno": "ENOTCONN"}
    machine.imgfs("umount", mounted.directory)
    assert not is_mounted(mounted)
    again = mount("--store", store.path, store.add("inv-v1"))
    assert probe(again.directory / FILE) == whole(unpacked_scan("inv-v1"), FILE)
    assert probe(sleeper.root / FILE) == {"errno": "ENOTCONN"}
    sleeper.close()
    again.unmount()


def test_mounting_again(dead_mount, store, work, unpacked_scan):
    """The dead mount makes room, and the new one is like any other."""
    old = dead_mount()
    again = machine.imgfs("mount", "--cache", work / "cache", "--store", store.path, store.add("inv-v1"), old.directory)
    try:
        assert f"detached a dead mount from {old.directory}" in again.stderr
        assert machine.mount_points(old.directory) == [str(old.directory)]
        assert probe(old.directory / FILE) == whole(unpacked_scan("inv-v1"), FILE)
    finally:
        machine.imgfs("umount", old.directory)
    assert not is_mounted(old)


def test_a_living_mount_stays(store, work, mount):
    """A server that does not answer is not dead: its mount is in the way, as ever."""
    mounted = mount("--store", store.path, store.add("inv-v1"))
    server = mounted.server()
    os.kill(server, signal.SIGSTOP)
    try:
        done = machine.imgfs("mount", "--cache", work / "cache", "--store", store.path, store.add("inv-v1"), mounted.directory,
                             check=False)
        assert done.returncode == 1
        assert f"imgfs umount {mounted.directory}" in done.stderr
        assert is_mounted(mounted)
    finally:
        os.kill(server, signal.SIGCONT)
    mounted.unmount()


def test_two_at_once(store, work):
    """The kernel would stack them. One of them mounts; who comes while it is at it is told so."""
    (work / "a").mkdir()
    words = [machine.IMGFS, "mount", "--private", "--cache", work / "cache", "--store", store.path, store.add("inv-v1"), work / "a"]
    lock = os.open(work / "a", os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    done = machine.run(*words, check=False)
    os.close(lock)
    assert done.returncode == 1 and f"another mount on {work}/a is under way" in done.stderr and not machine.mount_points(work)
    both = [subprocess.Popen([str(word) for word in words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for _ in range(2)]
    assert sorted(one.wait(60) for one in both) == [0, 1]
    assert machine.mount_points(work) == [str(work / "a")]
    machine.imgfs("umount", work / "a")


def test_upgrade_says_what_to_do(dead_mount):
    mounted = dead_mount()
    done = machine.imgfs("upgrade", mounted.directory, check=False)
    assert done.returncode == 1
    assert "has lost its imgfs-keeper" in done.stderr
    machine.imgfs("umount", mounted.directory)


def test_hung_server_ends_with_its_keeper(store, mount):
    """Also one that is stopped."""
    mounted = mount("--store", store.path, store.add("inv-v1"))
    server = mounted.server()
    os.kill(server, signal.SIGSTOP)
    os.kill(mounted.keeper, signal.SIGKILL)
    machine.wait_until(lambda: server not in machine.processes(), "the server's end")
    subprocess.run([machine.IMGFS, "umount", mounted.directory], check=True, timeout=60)
    assert not is_mounted(mounted)
