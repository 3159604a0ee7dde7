"""A cache with a quota: what stays, what goes beside readers, and what is found when some of it is rotten."""
import json
import os
import signal
import subprocess
import time

import pytest

import front as fake
import machine
from endpoint import NAME, TAG, accepts
from images import Image, docker_archive, tar_of
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
        data = path.read_bytes()
        # The length says how many chunks there are: 8 bytes of bits for 64, and 16 bytes each.
        count = next(n for n in range(len(data)) if (n + 63) // 64 * 8 + 16 * n == len(data))
        with open(path, "r+b", buffering=0) as file:
            for at in range((count + 63) // 64 * 8, len(data), 16):
                if any(data[at + 4:at + 8]):
                    os.pwrite(file.fileno(), then, at + 4)


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


def other_image(place, work):
    """Another image in the store, of 3 MB that share nothing with anything."""
    archive = work / "other.tar"
    archive.write_bytes(docker_archive([(Image(tar_of(("noise", os.urandom(3_000_000)))), ["case/other:x"])]))
    machine.imgfs("export", "--store", place / "store", "--tag", "case/other:x", f"docker-archive:{archive}")


def test_pull_makes_room(cache, pulled, place, work):
    """What was used longest ago goes before the image comes; where it cannot fit, nothing goes and nothing comes."""
    other_image(place, work)
    reference = pulled.replace(f"{NAME}:{TAG}", "case/other:x")
    age(work / "cache", 1000)
    total = cache("size")["total"]
    refused = machine.imgfs("pull", "--quiet", "--cache", work / "cache", "--quota", "2M", reference, check=False)
    assert refused.returncode == 1 and "quota of 2.0 MB" in refused.stderr and "imgfs cache unpin" in refused.stderr
    assert [row["complete"] for row in cache("ls") if row["reference"] == pulled] == [True]
    assert cache("size")["total"] < total + 200_000
    quota = total + 1_500_000
    conf = work / "imgfs.conf"
    conf.write_text(f"[cache]\nquota = {quota}\n")
    machine.imgfs("--config", conf, "pull", "--quiet", "--cache", work / "cache", reference)
    rows = {row["reference"]: row for row in cache("ls")}
    assert rows[reference]["complete"] and not rows[pulled]["complete"]
    assert cache("size")["total"] < quota + 300_000
    # Beside what stays whatever the quota there is no room for the first one any more.
    cache("pin", reference)
    refused = machine.imgfs("--config", conf, "pull", "--quiet", "--cache", work / "cache", "--quota", "3500k", pulled, check=False)
    assert refused.returncode == 1 and "pinned or sealed" in refused.stderr
    machine.imgfs("--config", conf, "pull", "--quiet", "--seal", "--cache", work / "cache", reference)


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


def janitor_of(mounted):
    """The process beside the server that evicts."""
    server = mounted.server()

    def running():
        return [pid for pid in machine.processes_of(machine.SERVER) if machine.parent_of(pid) == server]

    return machine.wait_until(running, "a janitor")[0]


def worker_of(guard):
    """The janitor's child, which does the work."""
    return machine.wait_until(lambda: [pid for pid in machine.processes_of(machine.SERVER) if machine.parent_of(pid) == guard], "a worker")[0]


def test_janitors_that_are_killed(front, work, mount, image, cache):
    """Whichever of the two is killed alone is there again while the server goes on, and evicts; nothing of them is left after the mount."""
    mounted = mount("--cache", work / "cache", "--quota", "2M", f"{front.host}/{NAME}:{TAG}")
    server, guard = mounted.server(), janitor_of(mounted)
    worker = worker_of(guard)
    os.kill(worker, signal.SIGKILL)
    second = machine.wait_until(lambda: (pid := worker_of(guard)) != worker and pid, "another worker")
    os.kill(guard, signal.SIGKILL)
    third = worker_of(second)  # it has become the guard
    read_round(mounted, image, names_of(image))
    machine.wait_until(lambda: cache("size")["total"] <= 2_000_000, "a cache within its quota", seconds=60)
    assert mounted.server() == server and worker_of(second) == third
    mounted.unmount()
    machine.wait_until(lambda: not {server, guard, worker, second, third} & set(machine.processes_of(machine.SERVER)), "their end")


def read_round(mounted, image, names):
    """Reads files past the page cache and compares them."""
    for name in names:
        fd = os.open(mounted.directory / name, os.O_RDONLY)
        try:
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            data = b"".join(iter(lambda: os.read(fd, 1 << 18), b""))  # pylint: disable=cell-var-from-loop
        finally:
            os.close(fd)
        assert data == image.files[name], name


def names_of(image):
    return ["usr/noise", "usr/text", *(name for name in image.files if name.startswith("usr/small"))][:60]


def test_quota_smaller_than_the_image(front, work, mount, image, cache):
    """Two mounts of one cache that cannot hold the image, readers that compare everything, and janitors and servers that are killed."""
    reference = f"{front.host}/{NAME}:{TAG}"
    quota = 2_000_000
    mounts = [mount("--cache", work / "cache", "--quota", "2M", reference) for _ in range(2)]
    names = names_of(image)
    for turn in range(6):
        if turn in (1, 4):
            os.kill(janitor_of(mounts[turn % 2]), signal.SIGKILL)
        if turn in (2, 3, 5):  # the next server has a janitor of its own
            victim = mounts[turn % 2].server()
            os.kill(victim, signal.SIGKILL)
            mounts[turn % 2].server(other_than=victim)
        for mounted in mounts:
            read_round(mounted, image, names)
        # Evictions beside the janitors' own, of all that is not in use.
        age(work / "cache", 100)
        machine.imgfs("cache", "--cache", work / "cache", "evict", "--quota", "1M", check=False)
    victim = mounts[0].server()
    os.kill(victim, signal.SIGKILL)
    mounts[0].server(other_than=victim)
    # Once nobody reads, the cache is within its quota again.
    machine.wait_until(lambda: cache("size")["total"] <= quota, "a cache within its quota", seconds=60)
    read_round(mounts[0], image, names)
    for mounted in mounts:
        mounted.unmount()
    found = cache("verify")
    assert found["rottenCount"] == 0 and found["chunks"] > 0


def test_quota_of_the_configuration(front, work, mount, image, monkeypatch, cache):
    """[cache] quota is for mounts too, and a verb's own section wins."""
    conf = work / "imgfs.conf"
    conf.write_text("[mount]\nquota = 100G\n\n[cache]\nquota = 1500k\n")
    monkeypatch.setenv("IMGFS_CONFIG", str(conf))
    mounted = mount("--cache", work / "cache", f"{front.host}/{NAME}:{TAG}")
    read_round(mounted, image, ["usr/noise"])
    mounted.unmount()
    assert cache("size")["total"] > 3_000_000
    conf.write_text("[cache]\nquota = 1500k\n")
    mounted = mount("--cache", work / "cache", f"{front.host}/{NAME}:{TAG}")
    machine.wait_until(lambda: cache("size")["total"] <= 1_500_000, "a cache within its quota", seconds=60)
    mounted.unmount()
    conf.write_text("\n[cache]\nquota = much\n")
    done = machine.imgfs("mount", "--cache", work / "cache", f"{front.host}/{NAME}:{TAG}", work, check=False)
    assert done.returncode == 2 and f"{conf}:3: --quota much" in done.stderr


def test_disk_full(front, work, mount, image, cache):
    """A disk too small for the image: reads go on, what was used long ago makes room, and the log says so."""
    (work / "cache").mkdir()
    machine.run("mount", "-t", "tmpfs", "-o", "size=2500k", "tmpfs", work / "cache")
    try:
        mounted = mount("--cache", work / "cache", f"{front.host}/{NAME}:{TAG}")
        read_round(mounted, image, names_of(image))
        machine.wait_until(lambda: "cannot write to the cache" in mounted.log.read_text(), "a line about the full disk")
        before = cache("ls")[0]["presentBytes"]
        assert before < 2_500_000
        age(work / "cache", 100)

        def evicted():
            read_round(mounted, image, ["usr/noise"])
            return "the disk was full, and chunks were evicted" in mounted.log.read_text()

        machine.wait_until(evicted, "an eviction", seconds=60)
        read_round(mounted, image, names_of(image))
        mounted.unmount()
    finally:
        machine.run("umount", "--lazy", work / "cache")


@pytest.mark.parametrize("arguments", [
    ("evict",), ("evict", "--quota", "much"), ("evict", "--quota", "-5"), ("ls", "--free", "1M"), ("pin",), ("pin", "a", "b"), ("size", "a"),
])
def test_wrong_usage(arguments, cache):
    cache(*arguments, status=2)


def test_quota_of_the_daemon(front, work, image, cache):
    """imgfsd keeps the cache of all its images to the quota, and asks mirrors that the configuration names."""
    with fake.Front(front.backend) as mirror:
        conf = work / "imgfs.conf"
        conf.write_text(f"[cache]\ncache = {work}/cache\nquota = 1500k\n[host {front.host}]\nmirrors = {mirror.host}\n")
        command = [machine.IMGFS, "--config", conf, "daemon", "--foreground", "--runtime", work / "run", "--state", work / "state", "--log",
                   work / "log"]
        daemon = subprocess.Popen([str(word) for word in command], stdin=subprocess.DEVNULL)
        try:
            machine.wait_until(lambda: accepts(work / "run/imgfsd.sock"), "imgfsd")
            path = work / "image"
            path.mkdir()
            machine.imgfs("mount", "--quiet", "--socket", work / "run/imgfsd.sock", f"{front.host}/{NAME}:{TAG}", path)
            for _ in range(2):
                for name in names_of(image):
                    assert (path / name).read_bytes() == image.files[name], name
                assert any("/blobs/" in entry[1] for entry in mirror.log)
                age(work / "cache", 100)
                machine.wait_until(lambda: cache("size")["total"] <= 1_500_000, "a cache within its quota", seconds=60)
                machine.drop_caches()
            assert "chunks were evicted" in (work / "log").read_text()
        finally:
            machine.imgfs("stop", "--socket", work / "run/imgfsd.sock", check=False)
            machine.end(daemon)
