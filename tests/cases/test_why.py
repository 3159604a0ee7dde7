"""`imgfs why`: what a start waited for. The oracle is what the test read, in which order, and how long the source made it wait."""
import contextlib
import json
import os
import subprocess
import threading
import xml.etree.ElementTree
from pathlib import Path

import pytest

import front as fake
import machine
from docker import Names
from endpoint import NAME, TAG
from endpoint import make_backend, make_image, make_place  # noqa: F401 # pylint: disable=unused-import # fixtures
from namespace import alone

ID = "0123456789abcdef" * 4


@pytest.fixture(name="front")
def make_front(backend):
    with fake.Front(backend) as front:
        yield front


def why(*arguments, **options):
    return json.loads(machine.imgfs("why", "--json", *arguments, **options).stdout)


def settled(mounted, reads, *arguments):
    """The report once that many reads are in it: they are written down after their answers."""
    def enough():
        done = machine.imgfs("why", "--json", *(arguments or (mounted.directory,)), check=False)
        return done.returncode == 0 and (report := json.loads(done.stdout))["total"]["reads"] >= reads and report

    return machine.wait_until(enough, f"{reads} reads in the record")


def cat(path, before=()):
    """Reads a file in a process of its own; returns its pid."""
    with subprocess.Popen([*before, "cat", str(path)], stdout=subprocess.DEVNULL) as process:
        assert process.wait(60) == 0
        return process.pid


def test_files_sources_and_readers(front, image, work, mount):
    reference = f"{front.host}/{NAME}:{TAG}"
    mounted = mount("--cache", work / "cache", reference)
    assert machine.imgfs("why", mounted.directory, check=False).returncode == 1
    first = cat(mounted.directory / "usr/small-250")
    hand_on, delay = front.answer, 0.7

    def slowly(request):
        if "/blobs/" in request.path:
            threading.Event().wait(delay)
        hand_on(request)

    front.answer = slowly
    second = cat(mounted.directory / "usr/noise")
    front.answer = hand_on
    third = cat(mounted.directory / "usr/small-251")  # comes with the chunk of small-250
    report = settled(mounted, 3)

    files = {file["path"]: file for file in report["files"]}
    assert set(files) == {"/usr/small-250", "/usr/noise", "/usr/small-251"} or set(files) == {"/usr/small-250", "/usr/noise"}
    assert report["files"][0]["path"] == "/usr/noise" and report["reference"] == reference
    noise, small = files["/usr/noise"], files["/usr/small-250"]
    assert noise["source"] == small["source"] == "network"
    # It waited at least as long as the source had it wait, once for each of its requests one after the other.
    assert noise["sum"]["waitedMs"] >= delay * 1000 and noise["sum"]["fetchedBytes"] >= len(image.files["usr/noise"])
    assert len(image.files["usr/noise"]) <= noise["sum"]["bytes"] <= len(image.files["usr/noise"]) + 4096
    assert (small["reader"]["pid"], small["reader"]["command"]) == (first, "cat")
    assert noise["reader"]["pid"] == second and small["firstMs"] < noise["firstMs"] and third not in (first, second)
    assert report["total"]["reads"] == sum(file["sum"]["reads"] for file in report["files"]) == len(report["reads"])
    assert report["total"]["reads"] == sum(source["reads"] for source in report["sources"].values())
    waited = sum(read["waitedMs"] for read in report["reads"])
    assert delay * 1000 <= report["heldUpMs"] <= waited + 1 and abs(report["total"]["waitedMs"] - waited) < 1
    assert report["heldUpMs"] <= report["endMs"] - report["beginMs"] + 1 and report["shared"]["reads"] == 0

    text = machine.imgfs("why", reference).stdout
    assert "page cache is not seen" in text and "/usr/noise" in text and f"cat[{second}]" in text and "by source" in text
    # By repository and tag, by the manifest's digest, by the image's.
    for name in (f"{NAME}:{TAG}", NAME, report["manifest"], image.id, image.id.removeprefix("sha256:")[:12]):
        found = json.loads(machine.run(*alone(work), machine.IMGFS, "why", "--json", name).stdout)
        assert found["reference"].split("/", 1)[1] == f"{NAME}:{TAG}"


def test_what_is_here_is_said_to_be_here(front, image, work, mount):
    reference = f"{front.host}/{NAME}:{TAG}"
    mount("--cache", work / "cache", reference)
    machine.imgfs("pull", "--cache", work / "cache", reference)
    mounted = mount("--cache", work / "cache", reference)
    assert (mounted.directory / "usr/text").read_bytes() == image.files["usr/text"]
    report = settled(mounted, 1)
    assert report["files"][0]["source"] == "cache" and report["total"]["waitedMs"] == 0 == report["total"]["fetchedBytes"]
    assert report["sources"]["network"]["reads"] == 0 and report["heldUpMs"] == 0


def test_plot(front, image, work, mount):
    """It is SVG, names files that are no XML as they are, and has a bar for each read."""
    mounted = mount("--cache", work / "cache", f"{front.host}/{NAME}:{TAG}")
    cat(mounted.directory / "usr/noise")
    cat(mounted.directory / ("usr/" + "n" * 150))
    settled(mounted, 2)
    report = why("--plot", work / "plot.svg", mounted.directory)
    root = xml.etree.ElementTree.parse(work / "plot.svg").getroot()
    space = "{http://www.w3.org/2000/svg}"
    assert root.tag == space + "svg"
    texts = [element.text for element in root.iter(space + "text")]
    assert "/usr/noise" in texts and any(text and text.startswith("…nnn") for text in texts)
    bars = [element for element in root.iter(space + "rect") if element.get("fill") in ("#c8483f", "#4c9f70", "#9ec9a4", "#e0a030")]
    assert len(bars) == 4 + report["total"]["reads"]  # four are the legend
    assert image.files


@contextlib.contextmanager
def cgroup(name):
    """A cgroup of that name in a hierarchy that can be written to, or the test is skipped."""
    for top in (Path("/sys/fs/cgroup"), *Path("/sys/fs/cgroup").glob("*"), *Path("/sys/fs/cgroup").glob("*/*")):
        if not (top / "cgroup.procs").exists() or top.name == "cpuset":
            continue
        own = top / f"imgfs-case-{os.getpid()}"
        try:
            own.mkdir(exist_ok=True)
        except OSError:
            continue
        inner = own / name
        inner.mkdir()
        try:
            yield inner
        finally:
            machine.wait_until(lambda: not (inner / "cgroup.procs").read_text(), "the end of the cgroup's processes")
            inner.rmdir()
            if not any(path.is_dir() for path in own.iterdir()):
                own.rmdir()
        return
    pytest.skip("no cgroup can be made here")


def test_container(front, image, work, mount):
    """By the id of a container or its beginning, and by its name; what others read is left out."""
    mounted = mount("--cache", work / "cache", f"{front.host}/{NAME}:{TAG}")
    with cgroup(f"docker-{ID}.scope") as group:
        cat(mounted.directory / "usr/text")
        inside = cat(mounted.directory / "usr/noise", before=("sh", "-c", f'echo $$ > {group}/cgroup.procs && exec "$@"', "sh"))
        settled(mounted, 2)
        for name in (ID, ID[:12]):
            report = why(name)
            assert [file["path"] for file in report["files"]] == ["/usr/noise"], report
            assert {reader["reader"]["pid"] for reader in report["readers"]} == {inside}
            assert report["readers"][0]["reader"]["cgroup"].endswith(f"/docker-{ID}.scope")
        assert {file["path"] for file in why(mounted.directory)["files"]} == {"/usr/noise", "/usr/text"}
        with Names(work / "docker.sock", {"invoker0": ID}) as environment:
            assert [file["path"] for file in why("invoker0", env=environment)["files"]] == ["/usr/noise"]
            for name in ("invoker1", "ffff" + ID[4:], ID[:3]):
                done = machine.imgfs("why", name, check=False, env=environment)
                assert done.returncode == 3 and "neither a mount" in done.stderr
    assert image.files


def within(group, path):
    """Reads a file in a cgroup below `group`, whose processes are none when it is over."""
    cat(path, before=("sh", "-c", f'echo $$ > {group}/cgroup.procs && exec "$@"', "sh"))
    machine.wait_until(lambda: not (group / "cgroup.procs").read_text(), "the end of the cgroup's processes")


def test_name_of_several(front, work, mount):
    """A name that containers of several engines have is not taken for one of them: what can be said instead is listed, and means that one."""
    mounted = mount("--cache", work / "cache", f"{front.host}/{NAME}:{TAG}")

    def refused(name, **options):
        done = machine.imgfs("why", name, check=False, **options)
        assert done.returncode == 1 and f"several containers are called {name}; say which one: " in done.stderr, done.stderr
        return done.stderr.rpartition(": ")[2].strip().split(", ")

    pad = "-" * 60  # of several hierarchies' cgroups, the longest name is told
    with cgroup("one" + pad) as one, cgroup("other" + pad) as other:
        files = {}
        for group, file in ((one / "web", "noise"), (other / "web", "text")):
            group.mkdir()
            try:
                within(group, mounted.directory / "usr" / file)
            finally:
                group.rmdir()
        settled(mounted, 2)
        meant = refused("web")
        for path in meant:
            (file,) = why(path)["files"]
            files[path] = file["path"]
        assert {tuple(path.split("/")[-2:]): file for path, file in files.items()} == {
            (one.name, "web"): "/usr/noise", (other.name, "web"): "/usr/text"
        }
        assert len(why(one.name)["files"]) == 1
        with Names(work / "docker.sock", {one.name: ID}) as environment:
            meant = refused(one.name, env=environment)
            assert len(meant) == 2 and meant[0].endswith(f"/{one.name}") and meant[1] == ID


def test_usage():
    assert machine.imgfs("why", "a", "b", check=False).returncode == 2
