"""`imgfs status`: what is mounted, how much of it is here, and who waits. The oracle is what the test itself read, killed and stalled."""
import json
import re
import os
import signal
import threading
from pathlib import Path

import pytest

import front as fake
import machine
from endpoint import NAME, TAG, accepts, started
from endpoint import make_backend, make_image, make_place  # noqa: F401 # pylint: disable=unused-import # fixtures


@pytest.fixture(name="front")
def make_front(backend):
    with fake.Front(backend) as front:
        yield front


def status_of(mounted, *arguments):
    """What status says of that mount, others of this machine left out."""
    rows = json.loads(machine.imgfs("status", "--json", *arguments).stdout)
    found = [row for row in rows if row["directory"] == str(mounted.directory)]
    assert len(found) == 1, rows
    return found[0]


def test_identity_and_readiness(front, image, work, mount):
    reference = f"{front.host}/{NAME}:{TAG}"
    mounted = mount("--cache", work / "cache", reference)
    said = machine.imgfs("inspect", "--json", "--store", image.path.parent / "store", f"{NAME}:{TAG}").stdout
    first = status_of(mounted)
    assert first["reference"] == reference and first["image"] == image.id and first["keeper"] == mounted.keeper
    assert json.loads(said)["manifest"] == first["manifest"]
    assert first["presentBytes"] == 0 and first["readyPercent"] == 0 and not first["sealed"]
    assert first["record"]["reads"] == 0 and first["record"]["startUp"] == "nothing read yet" and first["record"]["servers"] == 1

    # Half of it, then a server that dies, then all.
    text = (mounted.directory / "usr/text").read_bytes()
    assert text == image.files["usr/text"]
    some = machine.wait_until(lambda: (s := status_of(mounted))["record"]["readBytes"] >= len(text) and s, "the reads in the record")
    assert 0 < some["presentBytes"] < some["neededBytes"] and some["record"]["startUp"] == "recording"
    # The whole of it at 4 KiB a page, read ahead or not.
    assert len(text) <= some["record"]["readBytes"] <= len(text) + 4096
    server = mounted.server()
    os.kill(server, signal.SIGKILL)
    mounted.server(other_than=server)
    for path, content in image.files.items():
        assert (mounted.directory / path).read_bytes() == content
    whole = status_of(mounted)
    assert whole["record"]["servers"] == 2 and whole["record"]["reads"] > some["record"]["reads"]
    # The chunks of what the upper layer hides are the image's, too.
    machine.imgfs("pull", "--seal", "--cache", work / "cache", reference)
    seal = work / "cache/seals" / whole["manifest"].removeprefix("sha256:")
    assert status_of(mounted)["sealed"] == seal.exists()
    seal.parent.mkdir(exist_ok=True)
    seal.touch()
    sealed = status_of(mounted)
    assert sealed["presentBytes"] == sealed["neededBytes"] and sealed["readyPercent"] == 100 and sealed["sealed"]
    for row in (first, whole):
        assert (row["manifest"], row["neededBytes"]) == (sealed["manifest"], sealed["neededBytes"])
    shown = machine.imgfs("status").stdout
    assert all(word in shown for word in (str(mounted.directory), reference, image.id, "sealed"))
    mounted.unmount()
    assert str(mounted.directory) not in machine.imgfs("status", "--json").stdout


def test_waiting_and_failed_readers(front, image, work, mount):
    mounted = mount("--cache", work / "cache", "--deadline", "8", f"{front.host}/{NAME}:{TAG}")
    front.fault = "stall-accept"
    errors = []

    def read():
        try:
            (mounted.directory / "usr/noise").read_bytes()
        except OSError as error:
            errors.append(error)

    readers = [threading.Thread(target=read, daemon=True) for _ in range(2)]
    for reader in readers:
        reader.start()
    waiting = machine.wait_until(lambda: (s := status_of(mounted)["record"])["waitingReaders"] > 0 and s["waitingLongestMs"] > 500 and s, "waiting")
    assert waiting["failedReads"] == 0 and waiting["waitingLongestMs"] < 60000
    assert re.search("readers? waits? for the network.*\n.*`imgfs doctor`", machine.imgfs("status").stdout)
    for reader in readers:
        reader.join()
    assert len(errors) == 2
    failed = machine.wait_until(lambda: (s := status_of(mounted)["record"])["failedReads"] and not s["waitingReaders"] and s, "failures")
    assert failed["lastError"] == "Connection timed out" and failed["lastErrorAt"] > failed["mountedAt"]
    assert re.search("reads? failed.*\n.*`imgfs doctor`", machine.imgfs("status").stdout)
    front.fault = None

    def reads_again():
        # Right after a failure the kernel's own second try shares its fate.
        errors.clear()
        read()
        return not errors

    machine.wait_until(reads_again, "reads that work again")


def test_images_of_the_daemon(front, image, work):
    """Status, why, profiles and metrics of what imgfsd has attached, there itself and where it is mounted, through a manager that ends."""
    run, attached = work / "run", work / "attached"
    attached.mkdir()
    command = [machine.IMGFS, "daemon", "--foreground", "--runtime", run, "--state", work / "state", "--cache", work / "cache"]
    socket = ("--socket", run / "imgfsd.sock")
    reference = f"{front.host}/{NAME}:{TAG}"

    def start():
        return started(command, lambda: accepts(run / "imgfsd.sock"), work / "daemon.log")

    with start():
        held = json.loads(machine.imgfs("attach", *socket, "--json", "--owner", "case", reference).stdout)
        directory = Path(held["path"])
        assert (directory / "usr/text").read_bytes() == image.files["usr/text"]
    machine.run("mount", "--bind", directory, attached)
    try:
        # The manager is gone; what it attached is seen all the same.
        assert (attached / "usr/small-200").read_bytes() == image.files["usr/small-200"]
        size = len(image.files["usr/text"]) + len(image.files["usr/small-200"])

        def row():
            rows = json.loads(machine.imgfs("status", "--json").stdout)
            return next(one for one in rows if one["directory"] == str(directory))

        seen = machine.wait_until(lambda: (found := row())["record"]["readBytes"] >= size and found, "the reads in the record")
        assert seen["daemon"] and seen["reference"] == reference and seen["manifest"] == held["manifest"] and seen["image"] == image.id
        assert 0 < seen["presentBytes"] <= seen["neededBytes"]
        for where in (directory, attached):
            report = json.loads(machine.imgfs("why", "--json", where).stdout)
            assert {file["path"] for file in report["files"]} == {"/usr/text", "/usr/small-200"}, where
        machine.imgfs("profile", "record", attached, work / "profile")
        shown = json.loads(machine.imgfs("profile", "show", "--json", work / "profile").stdout)
        assert shown["manifest"] == held["manifest"] and shown["ranges"]
        text = machine.imgfs("metrics").stdout
        assert f'imgfs_reads_total{{mount="{directory}"}}' in text and f'imgfs_takeovers_total{{server="{run}/fs"}} 0' in text
    finally:
        machine.run("umount", attached)
    with start():
        machine.imgfs("detach", *socket, "case")
        machine.wait_until(lambda: str(directory) not in machine.imgfs("status", "--json").stdout, "the image's end")
        machine.imgfs("stop", *socket)


def test_usage():
    done = machine.imgfs("status", "somewhere", check=False)
    assert done.returncode == 2 and "takes no argument" in done.stderr
