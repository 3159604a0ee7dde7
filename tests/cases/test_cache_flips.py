"""Bits that flip anywhere in a cache that has everything: sealed layers, decoded copies and their sums, profiles, tags. What is read stays right.

IMGFS_FLIPS sets how many rounds each test makes (a few by default), IMGFS_FLIPS_SEED the seed.
"""
import json
import os
import random
import shutil

import pytest

import machine
from daemon import Daemon
from endpoint import NAME, TAG
from endpoint import make_backend, make_image, make_place  # noqa: F401 # pylint: disable=unused-import # fixtures

FLIPS = int(os.environ.get("IMGFS_FLIPS", "6"))
SEED = int(os.environ.get("IMGFS_FLIPS_SEED", "1"))
BITS = 12  # a round


@pytest.fixture(name="full")
def make_full(backend, place, work, mount):
    """A cache that has all of an image in every form, and its start-up profile; returns the image's reference."""
    reference, cache = f"{backend}/{NAME}:{TAG}", work / "cache"
    mounted = mount("--cache", work / "first", reference)
    (mounted.directory / "usr/noise").read_bytes()
    machine.imgfs("profile", "record", mounted.directory, work / "profile")
    mounted.unmount()
    machine.imgfs("profile", "import", "--store", place / "store", f"{NAME}:{TAG}", work / "profile")
    mounted = mount("--cache", cache, reference)
    mounted.unmount()
    assert list((cache / "profiles").iterdir())
    machine.imgfs("pull", "--quiet", "--decoded", "--cache", cache, reference)
    machine.run("cp", "-a", cache, work / "sound")
    return reference


def files_of(cache):
    return sorted(path for path in cache.rglob("*") if path.is_file() and path.stat().st_size)


def flip_in(path, dice):
    """One bit; the ends, where headers and sums are, come as often as the rest."""
    size = path.stat().st_size
    at = dice.choice((dice.randrange(size), dice.randrange(min(size, 200)), size - 1 - dice.randrange(min(size, 200))))
    with open(path, "r+b", buffering=0) as file:
        byte = os.pread(file.fileno(), 1, at)[0]
        os.pwrite(file.fileno(), bytes([byte ^ 1 << dice.randrange(8)]), at)
    return f"{path.name}@{at}"


def spoil(cache, dice):
    """Flips bits in files of all kinds alike, however large they are. Returns where."""
    kinds = {}
    for path in files_of(cache):
        kinds.setdefault(f"{path.relative_to(cache).parts[0]}/{path.name if path.parents[1].name == 'blobs' else ''}", []).append(path)
    return [f"{kind}{flip_in(dice.choice(kinds[kind]), dice)}" for kind in (dice.choice(sorted(kinds)) for _ in range(BITS))]


def put_back(work):
    shutil.rmtree(work / "cache")
    machine.run("cp", "-a", work / "sound", work / "cache")


def check(directory, image):
    for name, content in image.files.items():
        assert (directory / name).read_bytes() == content, name
    assert os.readlink(directory / "usr/link") == "text"


def test_between_mounts(full, work, mount, image):
    dice = random.Random(SEED)
    for turn in range(FLIPS):
        where = spoil(work / "cache", dice)
        print(turn, where)
        mounted = mount("--cache", work / "cache", full, fill=True)
        check(mounted.directory, image)
        mounted.unmount()
        # Whatever it was: a verification finds it or it is mended, and afterwards all is sound.
        machine.imgfs("cache", "--cache", work / "cache", "verify", check=False)
        assert json.loads(machine.imgfs("cache", "--json", "--cache", work / "cache", "verify").stdout)["rottenCount"] == 0
        machine.imgfs("pull", "--quiet", "--decoded", "--cache", work / "cache", full)
        mounted = mount("--cache", work / "cache", full)
        check(mounted.directory, image)
        mounted.unmount()
        put_back(work)


def test_under_mounts(full, work, mount, image):
    """The server that has the files open, and the ones that come after it."""
    dice = random.Random(SEED + 1)
    for turn in range(FLIPS):
        mounted = mount("--cache", work / "cache", full)
        (mounted.directory / "usr/small-017").read_bytes()
        for kind in ("blobs", "decoded", "seals", "profiles"):  # views and indexes are the next mount's to repair, and EIO until then
            print(turn, kind, [flip_in(path, dice) for path in files_of(work / "cache" / kind)])
        machine.drop_caches()
        check(mounted.directory, image)
        victim = mounted.server()
        os.kill(victim, 9)
        mounted.server(other_than=victim)
        machine.drop_caches()
        check(mounted.directory, image)
        mounted.unmount()
        put_back(work)


def test_before_a_reboot(full, work, image):
    """imgfsd starts all the same, has the image back once the host is asked, and reads what it was."""
    dice = random.Random(SEED + 2)
    daemon = Daemon(work)
    daemon.start()
    try:
        daemon.mount(full, work / "a")
        for turn in range(FLIPS):
            daemon.reboot()
            print(turn, spoil(work / "cache", dice))
            daemon.start()
            machine.wait_until(lambda: daemon.list()[str(work / "a")]["mounted"], "the image's return", 60)
            check(work / "a", image)
            daemon.kill()
            daemon.sweep()
            put_back(work)
            daemon.start()
    finally:
        daemon.close()
