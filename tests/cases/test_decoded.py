"""`imgfs pull --decoded`: copies of the layers that reads use without decoding, and never where they are not as they were written."""
import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

import front as fake
import machine
import tree
from daemon import Daemon
from endpoint import NAME, TAG
from endpoint import make_backend, make_image, make_place  # noqa: F401 # pylint: disable=unused-import # fixtures
from namespace import alone
from test_damage import BadDisk

PAGE = 4096
UNUSED = "decoded copy is not used"
ROTTEN = "a decoded copy is not as it was written"


@pytest.fixture(name="front")
def make_front(backend):
    with fake.Front(backend) as front:
        yield front


def pull(reference, cache, *options, **more):
    return json.loads(machine.imgfs("pull", "--json", "--cache", cache, *options, reference, timeout=120, **more).stdout)


def copies(work):
    return sorted(path for path in (work / "cache/decoded").iterdir() if not path.name.startswith("."))


def starve(work):
    """Takes all frames away, so that only decoded copies are left."""
    for path in (work / "cache/blobs").rglob("data"):
        os.truncate(path, 0)


def drop(mounted):
    """The kernel forgets the files that this mount has given, and the copies."""
    for directory, _, names in os.walk(mounted.directory):
        for name in names:
            path = Path(directory, name)
            if path.is_file() and not path.is_symlink():
                fd = os.open(path, os.O_RDONLY)
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
                os.close(fd)


def contents(mounted, image):
    """Are all regular files of the small image what they were?"""
    for name, expected in image.files.items():
        assert (mounted.directory / name).read_bytes() == expected, name


def test_read_from_copies_alone(store, serve, work, mount_http, unpacked_scan):
    """With copies nobody needs the frames, or the server; the copies are the tars, and are counted and cleared up like the rest."""
    name = store.add("inv-v1")
    server = serve()
    reference = f"{server.host}/{name}"
    done = pull(reference, work / "cache", "--decoded")
    assert done["sealed"] and done["decoded"] and done["complete"]
    tars = dict(line.split() for line in (machine.IMAGES / "layers/inv-v1/list").read_text().splitlines())
    assert {path.name for path in copies(work)} == set(tars)
    for digest, tar in tars.items():
        machine.run("cmp", "--bytes", os.stat(tar).st_size, tar, work / "cache/decoded" / digest)
    total = sum(os.stat(tar).st_size for tar in tars.values())
    sizes = json.loads(machine.imgfs("cache", "--json", "--cache", work / "cache", "size").stdout)
    assert total < sizes["decoded"] < total * 1.01
    assert json.loads(machine.imgfs("cache", "--json", "--cache", work / "cache", "ls").stdout)[0]["decoded"]

    server.stop()
    starve(work)
    mounted = mount_http(server.host, name, "--deadline", "1")
    assert not tree.compare(unpacked_scan("inv-v1"), tree.scan_apart(mounted.directory))
    os.kill(mounted.server(), signal.SIGKILL)
    drop(mounted)
    assert not tree.compare(unpacked_scan("inv-v1"), tree.scan_apart(mounted.directory))
    assert UNUSED not in mounted.log.read_text() and ROTTEN not in mounted.log.read_text()
    mounted.unmount()
    machine.run(*alone(), machine.IMGFS, "cache", "--cache", work / "cache", "prune", "--all")
    assert copies(work)  # what is sealed stays
    machine.imgfs("cache", "--cache", work / "cache", "unpin", reference)
    machine.run(*alone(), machine.IMGFS, "cache", "--cache", work / "cache", "prune", "--all")
    assert not copies(work)


def flip(path):
    """A bit of each page, and of each page of sums."""
    with open(path, "r+b") as file:
        for at in range(77, path.stat().st_size, PAGE):
            file.seek(at)
            byte = file.read(1)[0]
            file.seek(at)
            file.write(bytes([byte ^ 4]))


def punch(path):
    machine.run("fallocate", "--punch-hole", "--offset", 0, "--length", path.stat().st_size // 2 // PAGE * PAGE, path)


def tear(path):
    """Half of every eighth page is what stands elsewhere."""
    with open(path, "r+b") as file:
        for at in range(0, path.stat().st_size - 16 * PAGE, 8 * PAGE):
            file.seek(at + 9 * PAGE)
            other = file.read(PAGE // 2)
            file.seek(at)
            file.write(other)


def swap(path):
    """In place, so that who has the file open has another layer's bytes."""
    others = [other for other in path.parent.iterdir() if other != path]
    with open(path, "r+b") as file:
        file.write(others[0].read_bytes()[:path.stat().st_size])


def replace(path):
    """Another layer's copy, whole, under this name."""
    others = [other for other in path.parent.iterdir() if other != path]
    shutil.copy(others[0], path.with_name("other"))
    path.with_name("other").rename(path)


DAMAGES = {
    "flipped": flip, "cut": lambda path: os.truncate(path, path.stat().st_size // 2 + 100), "emptied": lambda path: os.truncate(path, 0),
    "hole": punch, "torn": tear, "swapped": swap, "replaced": replace, "removed": os.unlink,
}


@pytest.mark.parametrize("damage", sorted(DAMAGES))
def test_damaged(damage, front, image, work, mount_http):
    """Under a mount, for the next server, for the next mount: right bytes from the frames, a word in the log, and a new copy when asked for."""
    reference = f"{front.host}/{NAME}:{TAG}"
    pull(reference, work / "cache", "--decoded")
    sound = {path: path.read_bytes() for path in copies(work)}
    mounted = mount_http(front.host, f"{NAME}:{TAG}")
    for path in sound:
        DAMAGES[damage](path)
    machine.drop_caches()
    contents(mounted, image)
    unseen = damage in ("replaced", "removed")  # this server has the old file open
    if not unseen:
        machine.wait_until(lambda: ROTTEN in mounted.log.read_text(), "a word about the copy")
    os.kill(mounted.server(), signal.SIGKILL)
    drop(mounted)
    contents(mounted, image)
    if damage in ("cut", "emptied", "swapped", "flipped"):
        machine.wait_until(lambda: UNUSED in mounted.log.read_text(), "a word about the copy")
    mounted.unmount()
    again = mount_http(front.host, f"{NAME}:{TAG}")
    contents(again, image)
    if damage == "replaced":
        assert UNUSED in again.log.read_text()
    again.unmount()

    pull(reference, work / "cache", "--decoded")
    assert {path: path.read_bytes() for path in copies(work)} == sound
    starve(work)
    front.kill()
    last = mount_http(front.host, f"{NAME}:{TAG}", "--deadline", "1")
    contents(last, image)
    last.unmount()


def test_sound_copies_stay(front, work):
    """A second pull does not write again what is right, and writes what is not."""
    reference = f"{front.host}/{NAME}:{TAG}"
    pull(reference, work / "cache", "--decoded")
    before = {path: path.stat().st_ino for path in copies(work)}
    pull(reference, work / "cache", "--decoded")
    assert {path: path.stat().st_ino for path in copies(work)} == before
    flip(copies(work)[0])
    pull(reference, work / "cache", "--decoded")
    assert [path.stat().st_ino == before[path] for path in copies(work)] == [False, True]


@pytest.mark.parametrize("ill", ["read_eio", "read_short", "read_flip"])
def test_bad_disk(ill, front, image, work, mount_http):
    """One access of the cache in ten goes wrong."""
    pull(f"{front.host}/{NAME}:{TAG}", work / "cache", "--decoded")
    disk = BadDisk(work / "ills", work / "cache")
    mounted = mount_http(front.host, f"{NAME}:{TAG}", prefix=disk.prefix)
    disk.set(**{ill: 10000})
    for _ in range(3):
        contents(mounted, image)
        drop(mounted)
    assert disk.counts()[ill] > 20
    mounted.unmount()


def test_disk_full(front, image, work, mount_http):
    """The copies have no room: that is said, nothing is left of them, and the image is there all the same."""
    (work / "cache").mkdir()
    machine.run("mount", "-t", "tmpfs", "-o", "size=9m", "tmpfs", work / "cache")
    try:
        reference = f"{front.host}/{NAME}:{TAG}"
        assert pull(reference, work / "cache", "--seal")["sealed"]
        done = machine.imgfs("pull", "--decoded", "--cache", work / "cache", reference, check=False)
        assert done.returncode == 1 and "cannot write a decoded copy of layer sha256:" in done.stderr and "--decoded" in done.stderr
        assert not [path for path in (work / "cache/decoded").iterdir() if path.name.startswith(".")]
        assert pull(reference, work / "cache", "--seal")["sealed"]
        mounted = mount_http(front.host, f"{NAME}:{TAG}")
        contents(mounted, image)
        mounted.unmount()
    finally:
        machine.run("umount", "--lazy", work / "cache")


def test_killed_while_copying(store, serve, work, mount_http, unpacked_scan):
    """What is there under its name is whole, whenever the one that made it was killed."""
    name = store.add("inv-v1")
    server = serve()
    reference = f"{server.host}/{name}"
    pull(reference, work / "cache")
    for _ in range(3):
        with subprocess.Popen([machine.IMGFS, "pull", "--decoded", "--quiet", "--cache", str(work / "cache"), reference]) as process:
            machine.wait_until(lambda: process.poll() is not None or any((work / "cache/decoded").glob(".tmp-*")), "a copy in the making")
            time.sleep(0.1)
            process.send_signal(signal.SIGKILL)
        for path in (work / "cache/decoded").glob(".tmp-*"):
            path.unlink()
        mounted = mount_http(server.host, name)
        assert UNUSED not in mounted.log.read_text()
        mounted.unmount()
    pull(reference, work / "cache", "--decoded")
    server.stop()
    starve(work)
    mounted = mount_http(server.host, name, "--deadline", "1")
    assert not tree.compare(unpacked_scan("inv-v1"), tree.scan_apart(mounted.directory))
    mounted.unmount()


@pytest.fixture(name="daemon")
def make_daemon(work):
    one = Daemon(work)
    yield one
    one.close()


def row(work):
    (found,) = json.loads(machine.imgfs("cache", "--json", "--cache", work / "cache", "ls").stdout)
    return found


def await_copies(work):
    machine.wait_until(lambda: row(work)["sealed"] and row(work)["decoded"], "copies that the fill has made")


def test_made_by_the_fill(front, image, work, mount):
    """`imgfs mount --decoded`: the server that fills the image makes the copies, and reads them at once."""
    (work / "cache").mkdir()
    mounted = mount("--cache", work / "cache", "--decoded", f"{front.host}/{NAME}:{TAG}", fill=True)
    await_copies(work)
    machine.wait_until(lambda: mounted.log.read_text().count("decoded copy made") == len(image.layers), "copies in use")
    machine.imgfs("cache", "--cache", work / "cache", "verify")
    assert len(copies(work)) == len(image.layers)
    starve(work)
    drop(mounted)
    contents(mounted, image)
    assert ROTTEN not in mounted.log.read_text()
    # What is left there is a copy like any other.
    mounted.unmount()
    mounted = mount("--cache", work / "cache", "--decoded", f"{front.host}/{NAME}:{TAG}")
    contents(mounted, image)
    assert UNUSED not in mounted.log.read_text()
    mounted.unmount()


def test_made_for_what_is_sealed_already(front, image, work, mount):
    reference = f"{front.host}/{NAME}:{TAG}"
    assert pull(reference, work / "cache", "--seal")["sealed"]
    assert not row(work)["decoded"]
    mounted = mount("--cache", work / "cache", reference, fill=True)
    mounted.unmount()
    assert not any((work / "cache/decoded").iterdir())
    mounted = mount("--cache", work / "cache", "--decoded", reference, fill=True)
    await_copies(work)
    machine.wait_until(lambda: mounted.log.read_text().count("decoded copy made") == len(image.layers), "copies in use")
    starve(work)
    drop(mounted)
    contents(mounted, image)
    mounted.unmount()


def test_made_by_imgfsd(front, image, work, daemon):
    """`decoded` of imgfsd holds for all that is attached; servers that are killed while they write leave nothing that is believed."""
    daemon.start("--decoded")
    point = work / "point"
    daemon.mount(f"{front.host}/{NAME}:{TAG}", point)
    before = None
    for number in range(5):
        before = daemon.server(other_than=before)
        time.sleep(0.05 * number)
        os.kill(before, signal.SIGKILL)
    await_copies(work)
    machine.imgfs("cache", "--cache", work / "cache", "verify")
    machine.wait_until(lambda: daemon.log.read_text().count("decoded copy made") >= len(image.layers), "copies in use")
    front.kill()
    starve(work)
    for path, expected in image.files.items():
        assert (point / path).read_bytes() == expected, path
    # Another start of everything finds them too.
    daemon.reboot()
    daemon.start()
    machine.wait_until(lambda: any(point.iterdir()), "the image to be back")
    for path, expected in image.files.items():
        assert (point / path).read_bytes() == expected, path


def test_left_out_where_there_is_no_room(front, image, work, mount):
    """The disk is not filled for copies; the image is filled and sealed all the same."""
    reference = f"{front.host}/{NAME}:{TAG}"
    (work / "cache").mkdir()
    machine.run("mount", "-t", "tmpfs", "-o", "size=9m", "tmpfs", work / "cache")
    try:
        mounted = mount("--cache", work / "cache", "--decoded", reference, fill=True)
        machine.wait_until(lambda: row(work)["sealed"], "the seal")
        machine.wait_until(lambda: "cannot write a decoded copy" in mounted.log.read_text(), "the reason")
        assert not row(work)["decoded"]
        contents(mounted, image)
        mounted.unmount()
    finally:
        machine.run("umount", "--lazy", work / "cache")
