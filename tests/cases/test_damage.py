"""Files of the cache that are damaged while an image is mounted from it, and between mounts."""
import errno
import mmap
import os
import stat
import struct
import subprocess
import sys
from pathlib import Path

import pytest

import machine
import tree

READ = "import os, sys\nfor name in sys.argv[1:]:\n    try:\n        os.stat(name); open(name, 'rb').read(); print('read')\n" \
       "    except OSError as fault:\n        print(fault.errno)\n"


def outcomes(*paths):
    """What a process of its own gets of each file: "read" or an errno. One that hangs fails the test."""
    done = machine.run(sys.executable, "-c", READ, *paths, timeout=60)
    return done.stdout.split()


def host_of(serve, store):
    """A server that has the image."""
    store.add("inv-v1")
    return serve().host


def cache_files(work, kind):
    found = sorted(path for path in (work / "cache" / kind).rglob("*") if path.is_file() and path.stat().st_size)
    assert found
    return found


def flip_bits(path):
    with open(path, "r+b") as file:
        size = path.stat().st_size
        for at in sorted({0, size // 3, size // 2, size - 1}):
            file.seek(at)
            byte = file.read(1)[0]
            file.seek(at)
            file.write(bytes([byte ^ 0x10]))


# Within a page as well: what is left of it reads as zeros in a map, and without a signal.
DAMAGES = {"rotten": flip_bits, "cut": lambda path: os.truncate(path, 5000)}


@pytest.mark.parametrize("damage", sorted(DAMAGES))
@pytest.mark.parametrize("kind", ["views", "indexes"])
def test_damaged_under_the_mount(kind, damage, store, serve, mount_http, work, unpacked_scan):
    """The server has it in memory. The next one has not: readers get EIO, nobody waits for ever, and a new mount repairs it."""
    name = store.add("inv-v1")
    host = serve().host
    mounted = mount_http(host, name)
    assert outcomes(mounted.directory / "etc/os-release") == ["read"]
    for path in cache_files(work, kind):
        DAMAGES[damage](path)
    assert not tree.compare(unpacked_scan("inv-v1"), tree.scan_apart(mounted.directory))
    os.kill(mounted.server(), 9)
    assert outcomes(mounted.directory / "usr/lib/os-release-none") == [str(errno.EIO)]
    assert mounted.log.read_text().count("every request is answered with EIO") == 1
    os.kill(mounted.server(), 9)
    assert outcomes(mounted.directory / "usr/lib/os-release-none") == [str(errno.EIO)]
    mounted.unmount()

    again = mount_http(host, name)
    assert not tree.compare(unpacked_scan("inv-v1"), tree.scan_apart(again.directory))
    again.unmount()


@pytest.mark.parametrize("kind", ["blobs", "views", "indexes", "manifests", "tags"])
def test_bits_flipped_between_mounts(kind, store, serve, mount_http, work, unpacked_scan):
    """Whatever rots in the cache is found and got again."""
    name = store.add("inv-v1")
    host = serve().host
    first = mount_http(host, name)
    assert not tree.compare(unpacked_scan("inv-v1"), tree.scan_apart(first.directory))
    first.unmount()
    for path in cache_files(work, kind):
        flip_bits(path)
    again = mount_http(host, name)
    assert not tree.compare(unpacked_scan("inv-v1"), tree.scan_apart(again.directory))
    again.unmount()


def test_data_rots_under_the_mount(store, serve, mount_http, work, unpacked_scan):
    """Every frame is checked when it is decoded, also long after it was fetched."""
    mounted = mount_http(host_of(serve, store), "case/inv-v1:1")
    assert not tree.compare(unpacked_scan("inv-v1"), tree.scan_apart(mounted.directory))
    for path in cache_files(work, "blobs"):
        size = path.stat().st_size
        with open(path, "r+b") as file:
            for at in range(0, size, 300000):
                file.seek(at)
                file.write(b"rot!")
    machine.drop_caches()
    subprocess.run(["sh", "-c", "echo 3 >/proc/sys/vm/drop_caches"], check=False)
    assert not tree.compare(unpacked_scan("inv-v1"), tree.scan_apart(mounted.directory))
    mounted.unmount()


def test_cache_deleted_under_the_mount(store, serve, mount_http, work, unpacked_scan):
    """The keeper has all files open that a server needs, the next one too."""
    name = store.add("inv-v1")
    mounted = mount_http(serve().host, name)
    machine.run("rm", "-rf", work / "cache")
    os.kill(mounted.server(), 9)
    assert not tree.compare(unpacked_scan("inv-v1"), tree.scan_apart(mounted.directory))
    mounted.unmount()


@pytest.mark.parametrize("ill", ["full", "read-only"])
def test_cache_disk(ill, store, serve, mount_http, work, unpacked_scan):
    """Reads go on without the cache, and the log says why; the next server and the next mount do as well."""
    (work / "cache").mkdir()
    machine.run("mount", "-t", "tmpfs", "-o", "size=40m" if ill == "full" else "size=400m", "tmpfs", work / "cache")
    name = store.add("inv-v1")
    host = serve().host
    try:
        mounted = mount_http(host, name)
        if ill == "read-only":
            # The kernel refuses it while files are open for writing; so a disk that fails becomes read-only by its own file system.
            machine.run("mount", "--bind", work / "cache", work / "cache")
            machine.run("mount", "-o", "remount,bind,ro", work / "cache")
        assert not tree.compare(unpacked_scan("inv-v1"), tree.scan_apart(mounted.directory))
        if ill == "full":
            assert "No space left on device" in mounted.log.read_text()
        os.kill(mounted.server(), 9)
        assert not tree.compare(unpacked_scan("inv-v1"), tree.scan_apart(mounted.directory))
        mounted.unmount()
        again = mount_http(host, name)
        assert not tree.compare(unpacked_scan("inv-v1"), tree.scan_apart(again.directory))
        again.unmount()
    finally:
        for _ in range(2 if ill == "read-only" else 1):
            machine.run("umount", "--lazy", work / "cache")


def test_two_owners_of_one_cache(store, serve, work, unpacked_scan):
    """Two mounts of one image that begin at the same instant, over one empty cache, filled by both at once."""
    reference = f"{host_of(serve, store)}/case/inv-v1:1"
    directories = [work / "one", work / "two"]
    commands = [[machine.IMGFS, "mount", "--cache", work / "cache", reference, directory] for directory in directories]
    try:
        for directory in directories:
            directory.mkdir()
        mounts = [subprocess.Popen([str(word) for word in command], stdout=subprocess.DEVNULL) for command in commands]
        assert [process.wait(60) for process in mounts] == [0, 0]
        scans = [subprocess.Popen([sys.executable, tree.__file__, "scan", str(directory)], stdout=subprocess.PIPE, text=True)
                 for directory in directories]
        outputs = [scan.communicate(timeout=300)[0] for scan in scans]
        assert outputs[0] == outputs[1] and outputs[0]
        for directory in directories:
            assert not tree.compare(unpacked_scan("inv-v1"), tree.scan_apart(directory))
    finally:
        for directory in directories:
            machine.imgfs("umount", directory, check=False)


class BadDisk:
    """What tests/fake/bad-disk.c does to a mount that is started with `prefix`."""

    NAMES = ("read_eio", "read_short", "read_flip", "write_eio", "write_full", "no_memory")

    def __init__(self, path, directory):
        self.path = path
        path.write_bytes(struct.pack("=12I256s", *[0] * 12, os.fsencode(directory)))
        self.prefix = ("env", f"LD_PRELOAD={machine.BUILD}/tests/fake/bad-disk.so", f"IMGFS_BAD_DISK={path}")

    def set(self, **shares):
        """Of 100,000 calls each."""
        with open(self.path, "r+b") as file:
            file.write(struct.pack("=6I", *[shares.get(name, 0) for name in self.NAMES]))

    def counts(self):
        return dict(zip(self.NAMES, struct.unpack("=12I", self.path.read_bytes()[:48])[6:]))


@pytest.fixture(name="bad_disk")
def make_bad_disk(work):
    return BadDisk(work / "ills", work / "cache")


def scan_or_eio(mounted, expected, errors=(errno.EIO,)):
    """Compares all; what cannot be read may end with EIO, and with nothing else. Returns how many files did."""
    failed = 0
    for name, fields in expected.items():
        path = mounted.directory / name
        try:
            at = os.lstat(path)
            assert stat.S_IFMT(at.st_mode) == fields["type"] and at.st_mtime_ns == fields["mtime"]
            if fields.get("sha256"):
                assert tree.digest(path) == fields["sha256"], f"wrong bytes: {name}"
        except OSError as fault:
            assert fault.errno in errors, f"{name}: {fault}"
            failed += 1
    return failed


def part_of(scan, count):
    """So many names of a scan, from all over it."""
    names = list(scan)
    return {name: scan[name] for name in names[::max(1, len(names) // count)]}


@pytest.mark.parametrize("ill", ["read_eio", "read_short", "read_flip", "write_eio", "write_full"])
def test_bad_disk(ill, store, serve, mount_http, bad_disk, unpacked_scan):
    """One access of the cache in ten goes wrong: what the disk does not give is fetched again, and no reader sees an error."""
    mounted = mount_http(host_of(serve, store), "case/inv-v1:1", prefix=bad_disk.prefix)
    bad_disk.set(**{ill: 10000})
    assert scan_or_eio(mounted, unpacked_scan("inv-v1")) == 0
    machine.drop_caches()
    subprocess.run(["sh", "-c", "echo 3 >/proc/sys/vm/drop_caches"], check=False)
    assert scan_or_eio(mounted, unpacked_scan("inv-v1")) == 0
    assert bad_disk.counts()[ill] > 20
    mounted.unmount()


def test_bad_disk_while_mounting(store, serve, mount_http, bad_disk, work, unpacked_scan):
    """Mounts from a cache whose disk fails now and then: they work, or fail and say what could not be read."""
    name = store.add("inv-v1")
    host = serve().host
    bad_disk.set(read_eio=5000, read_flip=5000, write_eio=2000)
    worked = 0
    for turn in range(15):
        try:
            mounted = mount_http(host, name, prefix=bad_disk.prefix)
        except AssertionError as fault:
            assert "imgfs mount: " in str(fault) and ("Input/output error" in str(fault) or "rotten" in str(fault) or "index" in str(fault)), fault
            continue
        worked += 1
        if turn % 5 == 0:
            bad_disk.set()
            assert scan_or_eio(mounted, unpacked_scan("inv-v1")) == 0
            bad_disk.set(read_eio=5000, read_flip=5000, write_eio=2000)
        mounted.unmount()
    assert worked > 0 and sum(bad_disk.counts().values()) > 10
    bad_disk.set()
    mounted = mount_http(host, name)
    assert not tree.compare(unpacked_scan("inv-v1"), tree.scan_apart(mounted.directory))
    mounted.unmount()
    assert work.exists()


@pytest.mark.parametrize("share", [100, 1000])
def test_out_of_memory(share, store, serve, mount_http, bad_disk, unpacked_scan):
    """The server lacks memory now and then, or often: reads fail cleanly or go on, and all is well when there is memory again."""
    name = store.add("inv-v1")
    mounted = mount_http(serve().host, name, "--deadline", "2", prefix=bad_disk.prefix)
    bad_disk.set(no_memory=share)
    failed = scan_or_eio(mounted, part_of(unpacked_scan("inv-v1"), 40 if share >= 1000 else 300), (errno.EIO, errno.ENOMEM))
    print(f"{share}: {bad_disk.counts()['no_memory']} allocations failed, {failed} files could not be read")
    assert bad_disk.counts()["no_memory"] > 0
    bad_disk.set()
    machine.wait_until(lambda: not scan_or_eio(mounted, unpacked_scan("inv-v1"), (errno.EIO, errno.ENOMEM)), "all files", 60)
    mounted.unmount()


def test_memory_limit(store, serve, mount_http, unpacked_scan):
    """A server that may have hardly more address space than it needs to start."""
    name = store.add("inv-v1")
    host = serve().host
    mounted = mount_http(host, name)
    size = int(Path(f"/proc/{mounted.server()}/statm").read_text().split()[0]) * 4096
    mounted.unmount()
    mounted = mount_http(host, name, "--deadline", "1", prefix=("prlimit", f"--as={size + (1 << 20)}"))
    failed = scan_or_eio(mounted, part_of(unpacked_scan("inv-v1"), 20), (errno.EIO, errno.ENOMEM))
    print(f"{failed} files could not be read")
    mounted.unmount()


def test_bitmap_and_data_cut_short(store, serve, mount_http, work, unpacked_scan):
    """Both files of a blob lose their ends while the image is mounted, also before the next server starts."""
    mounted = mount_http(host_of(serve, store), "case/inv-v1:1")
    assert not tree.compare(unpacked_scan("inv-v1"), tree.scan_apart(mounted.directory))
    for turn, size in enumerate((5000, 0)):
        for path in cache_files(work, "blobs"):
            if path.stat().st_size > size:
                os.truncate(path, size)
        if turn:
            os.kill(mounted.server(), 9)
        machine.drop_caches()
        subprocess.run(["sh", "-c", "echo 3 >/proc/sys/vm/drop_caches"], check=False)
        assert not tree.compare(unpacked_scan("inv-v1"), tree.scan_apart(mounted.directory))
    mounted.unmount()


def test_cut_short_under_a_map(store, serve, mount_http, work, unpacked):
    """A process has mapped a file of the mount; the cache loses its bytes. The map has the right ones, from memory or fetched again."""
    mounted = mount_http(host_of(serve, store), "case/inv-v1:1")
    path = "usr/bin/perl"
    expected = (unpacked("inv-v1") / path).read_bytes()
    with open(mounted.directory / path, "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        assert mapped[:4096] == expected[:4096]
        for blob in cache_files(work, "blobs"):
            os.truncate(blob, 0)
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        machine.drop_caches()
        assert mapped[:] == expected
    mounted.unmount()
