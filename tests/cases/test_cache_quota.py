"""A cache with a quota: what stays, what goes beside readers, and what is found when some of it is rotten."""
import json
import time

import pytest

import front as fake
import machine
from endpoint import NAME, TAG
from endpoint import make_backend, make_image, make_place  # noqa: F401 # pylint: disable=unused-import # fixtures


@pytest.fixture(name="front")
def make_front(backend):
    with fake.Front(backend) as front:
        yield front


@pytest.fixture(name="cache")
def make_cache(work):
    def cache(*arguments, status=0):
        done = machine.imgfs("cache", "--json", "--cache", work / "cache", *arguments, check=False)
        assert done.returncode == status, done.stderr
        return json.loads(done.stdout) if done.stdout else done.stderr

    return cache


@pytest.fixture(name="pulled")
def make_pulled(front, work):
    """The reference of an image that the test's cache has whole."""
    reference = f"{front.host}/{NAME}:{TAG}"
    machine.imgfs("pull", "--quiet", "--cache", work / "cache", reference)
    return reference


def age(directory, seconds):
    """As if the chunks of all blobs had been used so long ago; the layout is that of fs/cache/cache-present.h."""
    then = int(time.time() - seconds).to_bytes(4, "little")
    for path in directory.glob("blobs/*/present"):
        data = bytearray(path.read_bytes())
        # The length says how many chunks there are: 8 bytes of bits for 64, and 16 bytes each.
        count = next(n for n in range(len(data)) if (n + 63) // 64 * 8 + 16 * n == len(data))
        for at in range((count + 63) // 64 * 8, len(data), 16):
            if any(data[at + 4:at + 8]):
                data[at + 4:at + 8] = then
        with open(path, "r+b") as file:
            file.write(data)


def test_evict(cache, pulled, work):
    """The oldest goes until the cache is within the quota, and what is asked for comes again."""
    row = cache("ls")[0]
    assert row["complete"] and row["reference"] == pulled and time.time() - row["used"] < 300
    assert not row["pinned"] and not row["sealed"]
    total = cache("size")["total"]
    assert cache("evict", "--quota", "100G")["chunks"] == 0
    # What was used this very moment stays; when that is over, it goes.
    age(work / "cache", 1000)
    assert abs(time.time() - 1000 - cache("ls")[0]["used"]) < 300
    done = cache("evict", "--quota", str(total // 2))
    assert done["enough"] and done["chunks"] > 10 and done["bytes"] > total // 2 >= done["total"]
    assert cache("size")["total"] == done["total"]
    row = cache("ls")[0]
    assert not row["complete"] and 0 < row["presentBytes"] < row["totalBytes"]
    assert cache("evict", "--free", "300k")["bytes"] >= 300_000
    machine.imgfs("pull", "--quiet", "--cache", work / "cache", pulled)
    assert cache("ls")[0]["complete"]


def test_pins(cache, pulled, work):
    """Nothing takes what is pinned away; unpinned it goes like the rest."""
    assert cache("pin", pulled)["reference"] == pulled
    row = cache("ls")[0]
    assert row["pinned"]
    assert "pinned" in machine.imgfs("cache", "--cache", work / "cache", "ls").stdout
    age(work / "cache", 1000)
    done = machine.imgfs("cache", "--cache", work / "cache", "evict", "--quota", "1M", check=False)
    assert done.returncode == 1 and "pinned or sealed" in done.stderr
    assert cache("prune", "--all")["objects"] == 0 and not cache("ls")
    machine.imgfs("pull", "--quiet", "--plan", "--cache", work / "cache", pulled)
    assert cache("ls")[0]["complete"]
    # By the words it was pinned by, or by its digest.
    assert cache("unpin", row["manifest"])["manifest"] == row["manifest"]
    assert "neither pinned nor sealed" in cache("unpin", pulled, status=3)
    assert cache("evict", "--quota", "1M")["enough"]
    assert cache("ls")[0]["presentBytes"] < 1_000_000
    assert "has not seen" in cache("pin", "nobody:1/case/serve:v1", status=3)
    assert "imgfs pull" in cache("pin", "sha256:" + "0" * 64, status=3)


def test_sealed(cache, pulled, work):
    """A sealed image stays as one that is pinned, until the seal is taken back."""
    machine.imgfs("pull", "--quiet", "--seal", "--cache", work / "cache", pulled)
    age(work / "cache", 1000)
    row = cache("ls")[0]
    assert row["sealed"] and not row["pinned"]
    machine.imgfs("cache", "--cache", work / "cache", "evict", "--quota", "1M", check=False)
    # Also where only the layers' seals are there, as a server leaves them.
    (work / "cache/seals" / row["manifest"].removeprefix("sha256:")).unlink()
    machine.imgfs("cache", "--cache", work / "cache", "evict", "--quota", "1M", check=False)
    assert cache("ls")[0] == row
    assert cache("unpin", pulled)["manifest"] == row["manifest"]
    assert not cache("ls")[0]["sealed"]
    assert cache("evict", "--quota", "1M")["enough"]


def flip(path, at):
    with open(path, "r+b") as file:
        file.seek(at)
        byte = file.read(1)
        file.seek(at)
        file.write(bytes([byte[0] ^ 1]))


def test_verify(cache, pulled, work, mount, image):
    """What is rotten is found, told and dropped, whatever it is, and a mount gets it again."""
    directory = work / "cache"
    row = cache("ls")[0]
    sound = cache("verify")
    assert sound["rottenCount"] == sound["unknownBlobs"] == 0 and sound["chunks"] > 50 and sound["bytes"] > row["totalBytes"]
    machine.imgfs("pull", "--quiet", "--seal", "--cache", directory, pulled)
    assert cache("ls")[0]["sealed"]
    used = cache("ls")[0]["used"]
    blob = max(directory.glob("blobs/*/data"), key=lambda path: path.stat().st_size)
    flip(blob, 5000)
    flip(blob, 2_000_000)
    found = cache("verify", status=4)
    digest = f"sha256:{blob.parent.name}"
    assert found["rotten"] == [{"kind": "blob", "digest": digest, "chunks": 2}] and found["rottenCount"] == 2
    assert [row["reference"] for row in found["unsealed"]] == [pulled]
    row = cache("ls")[0]
    assert not row["complete"] and not row["sealed"] and row["pinned"] and row["used"] == used
    assert cache("verify")["rottenCount"] == 0
    for kind, name in (("view", "views"), ("index", "indexes"), ("manifest", "manifests")):
        mounted = mount("--cache", directory, pulled)
        assert (mounted.directory / "usr/noise").read_bytes() == image.files["usr/noise"]
        mounted.unmount()
        path = next((directory / name).iterdir())
        flip(path, path.stat().st_size // 2)
        found = cache("verify", status=4)
        assert [row["kind"] for row in found["rotten"]] == [kind] and not path.exists()
        assert found["unknownBlobs"] == (1 if kind == "index" else 0)
        done = machine.imgfs("cache", "--cache", directory, "verify")
        assert " 0 rotten" in done.stdout


@pytest.mark.parametrize("arguments", [
    ("evict",), ("evict", "--quota", "much"), ("evict", "--quota", "-5"), ("ls", "--free", "1M"), ("pin",), ("pin", "a", "b"), ("size", "a"),
])
def test_wrong_usage(arguments, cache):
    cache(*arguments, status=2)
