"""`imgfs pull`: all of an image on the node, planned beforehand, resumed, sealed, and then used without anybody else."""
import json
import signal
import subprocess
import time

import pytest

import front as fake
import machine
import tree
from endpoint import NAME, TAG
from endpoint import make_backend, make_image, make_place  # noqa: F401 # pylint: disable=unused-import # fixtures


@pytest.fixture(name="front")
def make_front(backend):
    with fake.Front(backend) as front:
        yield front


def pull(reference, cache, *options, **more):
    done = machine.imgfs("pull", "--json", "--cache", cache, *options, reference, timeout=120, **more)
    return json.loads(done.stdout) if done.returncode == 0 else done


def test_plan_pull_and_use_without_the_server(store, serve, work, mount, unpacked_scan):
    """The plan says what will move; afterwards a mount needs nobody, also in a machine that has started anew."""
    name = store.add("inv-v1")
    log = work / "access.log"
    server = serve(options=("--access-log", log))
    reference = f"{server.host}/{name}"
    plan = pull(reference, work / "cache", "--plan")
    assert not plan["complete"] and plan["presentBytes"] == plan["copiedBytes"] == 0 and plan["fetchedBytes"] == plan["totalBytes"] > 300_000_000
    before = sum(int(line.split()[5]) for line in log.read_text().splitlines())
    done = pull(reference, work / "cache", "--seal")
    moved = sum(int(line.split()[5]) for line in log.read_text().splitlines()) - before
    assert done["complete"] and done["sealed"] and done["fetchedBytes"] == plan["totalBytes"]
    assert plan["totalBytes"] <= moved < plan["totalBytes"] + 10_000
    again = pull(reference, work / "cache", "--plan")
    assert again["complete"] and again["presentBytes"] == again["totalBytes"]
    server.stop()
    # The tag is believed as it was; by its digest the image needs no belief.
    for text in (reference, f"{reference.rpartition(':')[0]}@{done['manifest']}"):
        mounted = mount("--cache", work / "cache", text)
        assert not tree.compare(unpacked_scan("inv-v1"), tree.scan_apart(mounted.directory))
        mounted.unmount()
    assert pull(reference, work / "cache", "--seal")["stale"]


def test_the_next_version(store, serve, work):
    """Of the next version only what no other image here has is fetched."""
    old, new = store.add("inv-v1"), store.add("inv-v2")
    server = serve()
    pull(f"{server.host}/{old}", work / "cache")
    plan = pull(f"{server.host}/{new}", work / "cache", "--plan")
    assert plan["fetchedBytes"] < 1_400_000 and plan["copiedBytes"] > 0
    done = pull(f"{server.host}/{new}", work / "cache", "--seal")
    assert done["fetchedBytes"] == plan["fetchedBytes"] and done["sealed"]
    assert pull(f"{server.host}/{new}", work / "cache", "--plan")["complete"]


def test_killed_and_resumed(front, image, work):
    """Killed again and again, it goes on where it was; what was fetched is not fetched again."""
    reference = f"{front.host}/{NAME}:{TAG}"
    front.fault = "trickle"
    for _ in range(3):
        with subprocess.Popen([machine.IMGFS, "pull", "--quiet", "--cache", str(work / "cache"), reference]) as process:
            machine.wait_until(lambda: front.met.get("trickle", 0), "a request for a blob")
            time.sleep(0.3)
            process.send_signal(signal.SIGKILL)
        front.met.clear()
    front.fault = None
    done = pull(reference, work / "cache", "--seal")
    assert done["sealed"] and done["presentBytes"] + done["fetchedBytes"] == done["totalBytes"]
    assert image.files


def test_rotten_chunks_are_fetched_again(front, work):
    """What the cache does not give back as it was given is found by --seal, and by it alone."""
    reference = f"{front.host}/{NAME}:{TAG}"
    pull(reference, work / "cache", "--seal")
    for path in (work / "cache/blobs").rglob("data"):
        with open(path, "r+b") as file:
            for at in range(1000, path.stat().st_size, 400_000):
                file.seek(at)
                file.write(b"rot")
    before = len(front.log)
    assert pull(reference, work / "cache")["complete"]
    blobs = [entry for entry in front.log[before:] if "/blobs/" in entry[1]]
    assert not blobs
    assert pull(reference, work / "cache", "--seal")["sealed"]
    assert [entry for entry in front.log[before:] if "/blobs/" in entry[1]]
    front.kill()
    assert pull(reference, work / "cache", "--seal")["sealed"]


@pytest.mark.parametrize("fault", ["stall-accept", "500", "corrupt"])
def test_source_that_gives_nothing(fault, front, work):
    reference = f"{front.host}/{NAME}:{TAG}"
    plan = pull(reference, work / "cache", "--plan")
    front.fault = fault
    begin = time.monotonic()
    done = machine.imgfs("pull", "--timeout", "2", "--cache", work / "cache", reference, check=False)
    assert done.returncode == 1 and "gave nothing of use within 2 s" in done.stderr and time.monotonic() - begin < 30
    if fault == "corrupt":
        assert "copy is corrupt" in done.stderr
    front.fault = None
    done = pull(reference, work / "cache", "--seal")
    assert done["sealed"] and done["totalBytes"] == plan["totalBytes"]


def test_disk_full(store, serve, work):
    name = store.add("inv-v1")
    (work / "cache").mkdir()
    machine.run("mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", work / "cache")
    try:
        done = machine.imgfs("pull", "--cache", work / "cache", f"{serve().host}/{name}", check=False)
        assert done.returncode == 1 and "is its disk full?" in done.stderr
    finally:
        machine.run("umount", "--lazy", work / "cache")


def test_wrong_usage(work):
    for options in ((), ("--plan", "--seal", "h/a:b"), ("--timeout", "0", "h/a:b"), ("a", "b")):
        assert machine.imgfs("pull", "--cache", work / "cache", *options, check=False).returncode == 2
