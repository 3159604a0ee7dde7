"""Files of the cache that are damaged while an image is mounted from it, and between mounts."""
import errno
import os
import subprocess
import sys

import pytest

import machine
import tree

READ = "import os, sys\nfor name in sys.argv[1:]:\n    try:\n        os.stat(name); open(name, 'rb').read(); print('read')\n" \
       "    except OSError as fault:\n        print(fault.errno)\n"


def outcomes(*paths):
    """What a process of its own gets of each file: "read" or an errno. One that hangs fails the test."""
    done = machine.run(sys.executable, "-c", READ, *paths, timeout=60)
    return done.stdout.split()


def cache_files(work, kind):
    found = sorted(path for path in (work / "cache" / kind).rglob("*") if path.is_file())
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
    mounted = mount_http(serve().host, store.add("inv-v1"))
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
    """The server has all files open that it needs."""
    mounted = mount_http(serve().host, store.add("inv-v1"))
    machine.run("rm", "-rf", work / "cache")
    assert not tree.compare(unpacked_scan("inv-v1"), tree.scan_apart(mounted.directory))
    mounted.unmount()


def test_cache_full_and_read_only(store, serve, mount_http, work, unpacked_scan):
    """Reads go on without the cache, and the log says why."""
    (work / "cache").mkdir()
    machine.run("mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", work / "cache")
    try:
        mounted = mount_http(serve().host, store.add("inv-v1"))
        assert not tree.compare(unpacked_scan("inv-v1"), tree.scan_apart(mounted.directory))
        assert "No space left on device" in mounted.log.read_text()
        mounted.unmount()
    finally:
        machine.run("umount", "--lazy", work / "cache")


def test_two_owners_of_one_cache(store, serve, mount_http, unpacked_scan):
    """Two mounts of one image over one cache, filled by both at once."""
    name = store.add("inv-v1")
    host = serve().host
    mounts = [mount_http(host, name), mount_http(host, name)]
    scans = [subprocess.Popen([sys.executable, tree.__file__, "scan", str(one.directory)], stdout=subprocess.PIPE, text=True)
             for one in mounts]
    outputs = [scan.communicate(timeout=300)[0] for scan in scans]
    assert outputs[0] == outputs[1]
    for one in mounts:
        assert not tree.compare(unpacked_scan("inv-v1"), tree.scan_apart(one.directory))
        one.unmount()
