"""The background fill of a mount: it ends in a sealed image, whatever happens meanwhile, and readers do not notice it."""
import json
import os
import shutil
import signal
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


@pytest.fixture(name="fill")
def make_fill(front, mount, work):
    """A function that mounts the image with its fill; all with the same cache."""

    def start(*options, **more):
        return mount("--cache", work / "cache", *options, f"{front.host}/{NAME}:{TAG}", fill=True, **more)

    return start


def listed(work):
    (row,) = json.loads(machine.imgfs("cache", "--json", "--cache", work / "cache", "ls").stdout)
    return row


def status_of(mounted):
    rows = json.loads(machine.imgfs("status", "--json").stdout)
    rows = rows["mounts"] if isinstance(rows, dict) else rows
    (row,) = [row for row in rows if row["directory"] == str(mounted.directory)]
    return row


def await_seal(work):
    machine.wait_until(lambda: listed(work)["sealed"], "the image to be sealed")
    row = listed(work)
    assert row["complete"] and row["presentBytes"] == row["totalBytes"]
    return row


def assert_whole(mounted, image):
    for path, content in image.files.items():
        assert (mounted.directory / path).read_bytes() == content, path


def test_fills_seals_and_needs_nobody(fill, front, image, mount, work):
    mounted = fill()
    row = await_seal(work)
    assert mounted.log.read_text().count("sealed layer=") == len(image.layers)
    state = status_of(mounted)
    assert state["sealed"] and state["presentBytes"] == state["neededBytes"]
    front.kill()
    assert_whole(mounted, image)
    # A new server looks at the seals and leaves it at that; so does the next mount, by tag and by digest.
    server = mounted.server()
    os.kill(server, signal.SIGKILL)
    mounted.server(other_than=server)
    assert_whole(mounted, image)
    assert mounted.log.read_text().count("sealed layer=") == len(image.layers)
    mounted.unmount()
    reference = f"{front.host}/{NAME}"
    for text in (f"{reference}:{TAG}", f"{reference}@{row['manifest']}"):
        again = mount("--cache", work / "cache", text, fill=True)
        assert_whole(again, image)
        again.unmount()


def test_silent_registry_is_asked_but_briefly(fill, front, image, work):
    """A registry that takes requests and never answers: a sealed image does not wait for the deadline of 100 seconds."""
    fill().unmount()
    machine.imgfs("pull", "--quiet", "--seal", "--cache", work / "cache", f"{front.host}/{NAME}:{TAG}")
    front.answer = front.stall
    began = time.monotonic()
    mounted = fill("--deadline", "100")
    assert time.monotonic() - began < 60
    assert_whole(mounted, image)
    mounted.unmount()


def test_only_what_is_read_without_it(fill, front, image, mount, work):
    """Beside a mount that was filled, one with --no-fill has fetched nothing but what was read."""
    other = work / "other"
    idle = mount("--cache", other, f"{front.host}/{NAME}:{TAG}")
    fill()
    await_seal(work)
    (row,) = json.loads(machine.imgfs("cache", "--json", "--cache", other, "ls").stdout)
    assert row["presentBytes"] == 0
    assert (idle.directory / "usr/text").read_bytes() == image.files["usr/text"]
    (row,) = json.loads(machine.imgfs("cache", "--json", "--cache", other, "ls").stdout)
    assert 0 < row["presentBytes"] < row["totalBytes"] and not row["sealed"]


def test_rate(fill, image, work):
    """Never more than the rate, on the average; readers are not bound by it, and the next mount goes on."""
    rate = 100_000
    began = time.monotonic()
    mounted = fill("--fill-rate", str(rate))
    machine.wait_until(lambda: listed(work)["presentBytes"] > 0, "a first piece")
    for _ in range(10):
        present = listed(work)["presentBytes"]
        # A piece is paid for after it was fetched, and may be a chunk of 256 KiB, with its neighbours within a gap of 64.
        assert present <= rate * (time.monotonic() - began) + 500_000
        time.sleep(0.1)
    assert not listed(work)["sealed"]
    assert_whole(mounted, image)
    mounted.unmount()
    fill()
    await_seal(work)


def test_resumes(fill, front, image, mount, work):
    """Killed again and again, unmounted and mounted again: what has come is not fetched again."""
    # What a mount needs before it answers is there.
    mount("--cache", work / "cache", f"{front.host}/{NAME}:{TAG}").unmount()
    front.fault = "trickle"
    mounted = fill()
    for _ in range(3):
        front.met.clear()
        machine.wait_until(lambda: front.met.get("trickle", 0), "a request for a blob")
        time.sleep(0.2)
        server = mounted.server()
        os.kill(server, signal.SIGKILL)
        mounted.server(other_than=server)
    front.fault = None
    some = next(path for path in image.files if image.files[path])
    assert (mounted.directory / some).read_bytes() == image.files[some]
    mounted.unmount()
    before = listed(work)["presentBytes"]
    mounted = fill()
    await_seal(work)
    assert before > 0
    assert status_of(mounted)["sealed"]
    assert_whole(mounted, image)


def test_source_that_fails(fill, front, image, work):
    """Readers come through a source that fails every other time, and so does the fill."""
    front.faults = (["503", "close", "reset", "truncated", "corrupt"], 0.5)
    mounted = fill()
    assert_whole(mounted, image)
    await_seal(work)


def test_disk_full(fill, image, work):
    """It says so once and goes on when there is room; readers get everything all the while."""
    (work / "cache").mkdir()
    machine.run("mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", work / "cache")
    try:
        mounted = fill()
        machine.wait_until(lambda: "the fill waits" in mounted.log.read_text(), "a full disk")
        assert_whole(mounted, image)
        assert not listed(work)["sealed"]
        machine.run("mount", "-o", "remount,size=100m", work / "cache")
        await_seal(work)
        assert mounted.log.read_text().count("the fill waits") == 1
        assert_whole(mounted, image)
        mounted.unmount()
    finally:
        machine.run("umount", "--lazy", work / "cache")


def test_lost_chunk_breaks_the_seal(fill, image, work):
    """A seal is worth nothing without the chunks: the next mount fills what is gone, and seals again."""
    fill().unmount()
    fill()
    await_seal(work)
    for path in (work / "cache/blobs").iterdir():
        (path / "present").write_bytes(bytes((path / "present").stat().st_size))
    shutil.rmtree(work / "cache/seals")
    assert not listed(work)["sealed"]
    mounted = fill()
    await_seal(work)
    assert_whole(mounted, image)
