"""The node daemon: who holds which image where, what becomes of it when a process dies, and after a reboot."""
import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import front as fake
import machine
from daemon import Daemon
from endpoint import NAME, TAG, chain_id, serving
from endpoint import make_backend, make_image, make_place  # noqa: F401 # pylint: disable=unused-import # fixtures
from namespace import MountNamespace, alone

OTHER_BUILD = machine.BUILD.with_name("clang")


@pytest.fixture(name="daemon")
def make_daemon(work):
    one = Daemon(work)
    yield one
    one.close()


@pytest.fixture(name="reference")
def make_reference(backend):
    return f"{backend}/{NAME}:{TAG}"


def read(path):
    """What a file holds, by a process of its own: who asks never hangs with it."""
    done = machine.run(sys.executable, Path(__file__).with_name("probe.py"), path)
    return json.loads(done.stdout)


def check_content(directory, image, prefix=()):
    """Every regular file of the image, read by a process of its own; and the link."""
    paths = sorted(image.files)
    done = machine.run(*prefix, "sha256sum", *(directory / path for path in paths), timeout=120)
    assert [line.split()[0] for line in done.stdout.splitlines()] == [hashlib.sha256(image.files[path]).hexdigest() for path in paths]
    if not prefix:
        assert os.readlink(directory / "usr/link") == "text"


def mounts_at(directory):
    table = Path("/proc/self/mountinfo").read_text()
    return [line for line in table.splitlines() if line.split()[4] == str(directory)]


def test_mount_and_unmount(daemon, reference, image, work):
    daemon.start()
    done = daemon.mount(reference, work / "a")
    assert image.id in done.stdout and str(work / "a") in done.stdout
    check_content(work / "a", image)
    (line,) = mounts_at(work / "a")
    assert {"ro", "nosuid", "nodev"} <= set(line.split()[5].split(",")) and "fuse.imgfs" in line
    entry = daemon.list()[str(work / "a")]
    assert entry["image"] == image.id and entry["chainId"] == chain_id(image.diff_ids) and entry["reference"] == reference
    assert entry["state"] == "attached" and entry["mounted"] and not entry["lingering"]
    assert sorted(os.listdir(entry["path"])) == sorted(os.listdir(work / "a"))
    again = daemon.mount(reference, work / "a", check=False)
    assert again.returncode == 1 and f"imgfs umount {work}/a" in again.stderr
    daemon.imgfs("umount", work / "a")
    assert not mounts_at(work / "a") and not daemon.list() and not os.path.exists(entry["path"])
    assert daemon.imgfs("umount", work / "a", check=False).returncode == 1
    assert not daemon.imgfs("mount", "--noexec", reference, work / "a").stderr
    assert "noexec" in mounts_at(work / "a")[0].split()[5].split(",")


def test_a_quota_is_not_said_of_one_mount(daemon, reference, work):
    """It would be passed over: the cache is imgfsd's. What imgfs.conf says of it imgfsd reads as well, so that is no word of one mount."""
    daemon.start()
    done = daemon.mount(reference, work / "a", "--quota", "1G", check=False)
    assert done.returncode == 1 and "imgfsd keeps its cache to one quota" in done.stderr
    assert not mounts_at(work / "a") and not daemon.list()
    conf = work / "other.conf"
    conf.write_text("[cache]\nquota = 1G\n")
    machine.imgfs("--config", conf, "mount", "--socket", daemon.runtime / "imgfsd.sock", reference, work / "a")
    assert str(work / "a") in daemon.list()


def test_two_names_of_one_image(daemon, place, backend, image, work):
    """One slot, whoever holds it and by which name; the image goes with its last owner."""
    machine.imgfs("tag", "--store", place / "store", f"{NAME}:{TAG}", "case/other:x")
    daemon.start()
    daemon.mount(f"{backend}/{NAME}:{TAG}", work / "a")
    daemon.mount(f"{backend}/case/other:x", work / "b")
    entries = daemon.list()
    assert len({entry["slot"] for entry in entries.values()}) == 1 and len(os.listdir(daemon.runtime / "fs/plain")) == 1
    assert (work / "a/usr").stat().st_ino == (work / "b/usr").stat().st_ino
    daemon.imgfs("umount", work / "a")
    check_content(work / "b", image)
    daemon.imgfs("umount", work / "b")
    assert not os.listdir(daemon.runtime / "fs/plain")
    daemon.mount(f"{backend}/case/other:x", work / "b")
    assert daemon.list()[str(work / "b")]["slot"] == 2


def test_attach_without_a_directory(daemon, reference, image):
    daemon.start()
    path = Path(daemon.imgfs("attach", "--owner", "me", reference).stdout.strip())
    check_content(path, image)
    assert json.loads(daemon.imgfs("attach", "--json", reference).stdout)["path"] == str(path)
    daemon.imgfs("detach", "me")
    check_content(path, image)
    daemon.imgfs("detach", reference)
    assert not path.exists()
    done = daemon.imgfs("detach", "me", check=False)
    assert done.returncode == 3 and "imgfs list" in done.stderr


def test_from_a_store(daemon, place, image, work):
    daemon.start()
    daemon.mount(f"{NAME}:{TAG}", work / "a", "--store", place / "store")
    check_content(work / "a", image)
    daemon.reboot()
    daemon.start()
    check_content(work / "a", image)
    done = daemon.mount("no/such:1", work / "b", "--store", place / "store", check=False)
    assert done.returncode == 3 and "does not hold no/such:1" in done.stderr


def layers_of(place):
    """The layers of the image, as the snapshotter names them."""
    info = json.loads(machine.imgfs("inspect", "--json", "--store", place / "store", f"{NAME}:{TAG}").stdout)
    manifest = json.loads((place / "store/blobs/sha256" / info["manifest"].partition(":")[2]).read_bytes())
    layers = []
    for descriptor in manifest["layers"]:
        notes = {key.partition("imgfs.")[2]: value for key, value in descriptor["annotations"].items()}
        layers.append({
            "diffId": descriptor["digest"], "blob": notes["blob.digest"], "blobSize": int(notes["blob.size"]),
            "index": notes["index.digest"], "indexOffset": int(notes["index.offset"]), "indexSize": int(notes["index.size"]),
        })
    return layers


def test_layers(daemon, backend, image, place):
    """A chain that is a prefix of the image's layers, as snapshots are."""
    daemon.start()
    layers = layers_of(place)
    answer = daemon.call(call="attach", owner="snapshotter:1", layers=layers[:1], reference=f"{backend}/{NAME}")["ok"]
    assert answer["chainId"] == image.diff_ids[0] and "manifest" not in answer
    lower = Path(answer["path"])
    assert (lower / "usr/small-001").exists() and not (lower / "etc").exists()
    whole = daemon.call(call="attach", owner="snapshotter:2", layers=layers, reference=f"{backend}/{NAME}")["ok"]
    check_content(Path(whole["path"]), image)
    assert whole["chainId"] == chain_id(image.diff_ids) and len(daemon.list()) == 2
    no_source = daemon.call(call="attach", owner="snapshotter:3", layers=layers)
    assert no_source["error"]["code"] == "EINVAL" and "[daemon]" in no_source["error"]["text"]
    daemon.stop()
    daemon.start("--source", backend)
    daemon.cache.rename(daemon.cache.with_name("old"))
    daemon.reboot()
    daemon.start("--source", backend)
    assert "path" in daemon.call(call="attach", owner="snapshotter:3", layers=layers[:1])["ok"]
    machine.wait_until(lambda: daemon.list()["snapshotter:2"]["state"] == "attached", "the layers, fetched anew")
    check_content(Path(whole["path"]), image)


def origin_of(daemon, owner):
    """Where the record says that layers come from."""
    records = [json.loads(path.read_text()) for path in (daemon.state / "attached").glob("*.json")]
    return [record.get("origin") for record in records if record["request"]["owner"] == owner][0]


def test_layers_of_a_tag_that_was_seen(daemon, reference, backend, place, image):
    """Without a reference they come from the host whose tag means an image with these layers."""
    daemon.start()
    layers = layers_of(place)
    daemon.call(call="attach", owner="whole", reference=reference)
    lower = Path(daemon.call(call="attach", owner="s", layers=layers[:1])["ok"]["path"])
    assert origin_of(daemon, "s") == f"{backend}/{NAME}"
    assert (lower / "usr/noise").read_bytes() == image.files["usr/noise"]
    other = [{**layers[0], "blob": layers[1]["blob"]}]
    assert daemon.call(call="attach", owner="t", layers=other)["error"]["code"] == "EINVAL"


def test_layers_of_a_source(daemon, backend, place, image, work):
    """The first [source] that has them, after those that are dead or have them not; also when the host that was named has them not."""
    layers = layers_of(place)
    shutil.copytree(place / "store", work / "empty")
    for layer in layers:
        (work / "empty/blobs/sha256" / layer["blob"].partition(":")[2]).unlink()
    with serving(work / "empty", work / "empty.log", "--listen", "127.0.0.1:0") as empty:
        conf = work / "imgfs.conf"
        urls = ["127.0.0.1:1", empty.address, backend]
        conf.write_text("".join(f"[source s{number}]\nurl = http://{url}\n" for number, url in enumerate(urls)))
        words = daemon.command()
        daemon.command = lambda: [words[0], "--config", conf, *words[1:]]
        daemon.start()
        lower = Path(daemon.call(call="attach", owner="s", layers=layers[:1])["ok"]["path"])
        assert origin_of(daemon, "s") == f"http://{backend}"
        assert (lower / "usr/noise").read_bytes() == image.files["usr/noise"]
        whole = daemon.call(call="attach", owner="w", layers=layers, reference=f"{empty.address}/{NAME}")["ok"]
        assert origin_of(daemon, "w") == f"http://{backend}"
        check_content(Path(whole["path"]), image)
        nobodys = "sha256:" + 64 * "5"
        error = daemon.call(call="attach", owner="n", layers=[{**layers[0], "blob": nobodys, "index": nobodys}])["error"]
        assert error["code"] == "EHOSTUNREACH" and "none of 3 hosts has all of the layers" in error["text"] and "127.0.0.1:1" in error["text"]
    daemon.reboot()
    daemon.start()
    check_content(Path(whole["path"]), image)


def test_layers_have_more_hosts_than_the_one_named(daemon, backend, place, image, work):
    """When that is gone, a [source] gives the rest."""
    conf = work / "imgfs.conf"
    conf.write_text(f"[source s]\nurl = http://{backend}\n")
    words = daemon.command()
    daemon.command = lambda: [words[0], "--config", conf, *words[1:]]
    daemon.start()
    with serving(place / "store", work / "other.log", "--listen", "127.0.0.1:0") as other:
        whole = daemon.call(call="attach", owner="w", layers=layers_of(place), reference=f"{other.address}/{NAME}")["ok"]
    check_content(Path(whole["path"]), image)


def test_prune_keeps_what_is_attached(daemon, place, image, work):
    """Also while no daemon runs: after a reboot nobody but the cache has it. What is let go, goes."""
    with serving(place / "store", work / "serve.log", "--listen", "127.0.0.1:0") as server:
        daemon.start()
        daemon.mount(f"{server.address}/{NAME}:{TAG}", work / "a")
        check_content(work / "a", image)
        layers = layers_of(place)
        answer = daemon.call(call="attach", owner="snapshotter:1", layers=layers[:1], reference=f"{server.address}/{NAME}")["ok"]

    def files():
        return {path for path in daemon.cache.rglob("*") if path.is_file() and "tags" not in path.parts}

    def prune():
        return json.loads(daemon.imgfs("cache", "prune", "--all", "--json", "--cache", daemon.cache).stdout)["objects"]

    def prune_alone():
        done = machine.run(*alone(), machine.IMGFS, "cache", "prune", "--all", "--json", "--cache", daemon.cache, "--state", daemon.state)
        return json.loads(done.stdout)["objects"]

    before = files()
    assert prune() == 0 and before <= files()
    daemon.stop()
    assert prune_alone() == 0 and before <= files()
    conf = work / "imgfs.conf"
    conf.write_text(f"[daemon]\nstate = {daemon.state}\n")
    machine.imgfs("--config", conf, "cache", "prune", "--all", "--cache", daemon.cache)
    assert before <= files()
    daemon.reboot()
    daemon.start()
    check_content(work / "a", image)
    daemon.imgfs("umount", work / "a")
    assert prune_alone() > 0
    lower = Path(answer["path"])
    daemon.reboot()
    daemon.start()
    assert daemon.list()["snapshotter:1"]["state"] == "attached"
    small = sorted(path for path in image.files if (lower / path).exists() and "small" in path)
    assert small and all((lower / path).read_bytes() == image.files[path] for path in small)
    (record,) = (daemon.state / "attached").glob("*.json")
    content = record.read_text()
    record.write_text("rotten")
    done = daemon.imgfs("cache", "prune", "--all", "--cache", daemon.cache, check=False)
    assert done.returncode == 4 and record.name in done.stderr and "nothing was removed" in done.stderr
    record.write_text(content)
    daemon.imgfs("detach", "snapshotter:1")
    assert prune_alone() > 0
    assert not [path for path in files() if path.parent.name in {"indexes", "views"} or path.parents[1].name == "blobs"]


@pytest.mark.parametrize("option", [("--private",), ("--suid",), ("--read-ahead", "128"), ("--cache", "elsewhere")])
def test_a_mount_of_its_own(daemon, reference, work, option):
    option = [str(work / word) if word == "elsewhere" else word for word in option]
    daemon.start()
    if option[0] != "--cache":
        option += ["--cache", str(daemon.cache)]  # which alone does not make it one
    done = daemon.mount(reference, work / "a", *option)
    assert done.stderr == ("" if "--private" in option else f"imgfs mount: {option[0]} makes it a mount of its own, not one of imgfsd\n")
    assert mounts_at(work / "a")[0].split()[3] == "/" and not daemon.list()
    daemon.imgfs("umount", work / "a")
    daemon.mount(reference, work / "a", "--cache", daemon.cache)
    assert str(work / "a") in daemon.list()


def test_a_name_that_no_request_can_have(daemon, reference, work):
    """imgfsd keeps names in JSON and in its log; what cannot stand there is mounted and unmounted without it."""
    name = "two\nlines"
    daemon.start()
    done = daemon.mount(reference, work / name, "--cache", daemon.cache)
    assert done.stderr == ("imgfs mount: a directory whose name has control characters or is not UTF-8 gets a mount of its own, "
                           "not one of imgfsd\n")
    assert (work / name / "usr/text").exists() and not daemon.list()
    daemon.imgfs("umount", work / name)
    assert not (work / name / "usr").exists()


def test_started_without_standard_files(daemon):
    """What a file of its own would get the number of, and then all that is printed: those are nobody's."""
    daemon.prefix = ["sh", "-c", 'exec "$@" <&- >&-', "sh"]
    daemon.start()
    daemon.prefix = ()
    assert [os.readlink(f"/proc/{daemon.process.pid}/fd/{number}") for number in (0, 1)] == ["/dev/null"] * 2


def present(daemon):
    (row,) = json.loads(machine.imgfs("cache", "--json", "--cache", daemon.cache, "ls").stdout)
    return row["presentBytes"], row["totalBytes"]


def test_deadline(daemon, reference, work):
    """What `imgfs mount` does not say is imgfsd's to know: its own deadline counts then."""
    daemon.start()
    daemon.mount(reference, work / "a")
    daemon.mount(reference, work / "b", "--deadline", "7")
    records = [json.loads(path.read_text()) for path in (daemon.state / "attached").iterdir()]
    assert sorted(record["request"].get("deadline", 0) for record in records) == [0, 7000]


def test_without_a_fill(daemon, reference, work):
    """Nothing is fetched but what is read; also after a restart. The same image without that is filled."""
    daemon.start()
    assert not daemon.mount(reference, work / "a", "--no-fill").stderr
    (work / "a/usr/small-017").read_bytes()
    daemon.reboot()
    daemon.start()
    time.sleep(5)  # a fill begins three seconds after the last read
    done, total = present(daemon)
    assert done < total / 2
    daemon.imgfs("umount", work / "a")
    daemon.mount(reference, work / "a", "--fill-rate", "100M")
    (record,) = (daemon.state / "attached").glob("*.json")
    assert json.loads(record.read_text())["request"]["fill_rate"] == 100_000_000
    machine.wait_until(lambda: present(daemon)[0] == total, "the fill", 60)


def test_no_daemon(work, reference):
    """Nobody listens: a mount of one's own, without a word."""
    (work / "a").mkdir()
    done = machine.imgfs("mount", "--socket", work / "nothing", "--cache", work / "cache", reference, work / "a")
    assert not done.stderr
    machine.imgfs("umount", "--socket", work / "nothing", work / "a")
    for verb in (["list"], ["attach", reference], ["detach", "x"], ["stop"]):
        done = machine.imgfs(verb[0], "--socket", work / "nothing", *verb[1:], check=False)
        assert done.returncode == 3 and "imgfsd does not answer" in done.stderr


class Reader:
    """Reads files of the image again and again while the block runs. Nothing may be wrong, and no read hang."""

    def __init__(self, directory, image):
        self.directory, self.image, self.wrong, self.rounds, self.end = directory, image, [], 0, False
        self.thread = threading.Thread(target=self.run, daemon=True)

    def run(self):
        paths = [path for path in self.image.files if "small" in path][:40]
        while not self.end and len(self.wrong) < 100:
            for path in paths:
                try:
                    if (self.directory / path).read_bytes() != self.image.files[path]:
                        self.wrong.append(path)
                except OSError as fault:
                    self.wrong.append(f"{path}: {fault}")
            self.rounds += 1

    def __enter__(self):
        self.thread.start()
        machine.wait_until(lambda: self.rounds, "a first round of reads", 120)
        return self

    def __exit__(self, kind, *_):
        self.end = True
        if kind is None:
            self.thread.join(120)
            assert not self.thread.is_alive(), "a read hangs"
            assert not self.wrong


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_the_manager_ends(daemon, reference, image, work, how):
    """Nobody notices; the next one finds everything as it was."""
    daemon.start()
    daemon.mount(reference, work / "a", "--no-fill")  # which may end meanwhile, and what it has sealed is told
    keeper, server = daemon.keeper(), daemon.server()
    with Reader(work / "a", image):
        for _ in range(3):
            before = daemon.list()
            assert getattr(daemon, how)() in (0, None)
            check_content(work / "a", image)
            daemon.start()
            assert daemon.list() == before
        assert daemon.keeper() == keeper and daemon.server() == server
    daemon.imgfs("umount", work / "a")


def test_the_server_dies(daemon, reference, image, work):
    daemon.start()
    daemon.mount(reference, work / "a")
    with Reader(work / "a", image):
        for _ in range(5):
            server = daemon.server()
            os.kill(server, signal.SIGKILL)
            daemon.server(other_than=server)
    check_content(work / "a", image)


def test_the_keeper_dies(daemon, reference, image, work):
    """The manager starts another one, and everything is back where it was; who had files open has to open them anew."""
    daemon.start()
    daemon.mount(reference, work / "a")
    daemon.mount(reference, work / "b")
    path = daemon.imgfs("attach", "--owner", "me", reference).stdout.strip()
    for turn in range(2):
        keeper = daemon.keeper()
        file = os.open(work / "a/usr/text", os.O_RDONLY)
        os.kill(keeper, signal.SIGKILL)
        daemon.keeper(other_than=keeper)  # before there is one, the list may still say what was so with the last
        machine.wait_until(lambda turn=turn: daemon.log.read_text().count("the keeper of the mounts has died") > turn, "the log")
        machine.wait_until(lambda: all(entry["state"] == "attached" for entry in daemon.list().values()), "all images")
        for name in "ab":
            machine.wait_until(lambda name=name: daemon.list()[str(work / name)]["mounted"], "the mounts")
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        with pytest.raises(OSError):
            os.pread(file, 10, 0)
        with contextlib.suppress(OSError):  # which may fail as well
            os.close(file)
        for directory in (work / "a", work / "b", Path(path)):
            check_content(directory, image)
        assert len(mounts_at(work / "a")) == 1
    daemon.imgfs("umount", work / "a")
    daemon.imgfs("umount", work / "b")


def test_the_keeper_dies_while_no_manager_runs(daemon, reference, image, work):
    daemon.start()
    daemon.mount(reference, work / "a")
    daemon.kill()
    keeper = daemon.keeper()
    os.kill(keeper, signal.SIGKILL)
    machine.wait_until(lambda: "errno" in read(work / "a/usr/text"), "a dead mount")
    daemon.start()
    check_content(work / "a", image)
    assert len(mounts_at(work / "a")) == 1


def test_a_manager_dies_while_it_mounts_again(daemon, reference, image, work):
    """The keeper has the image by then, and what lies at the directory is still of the dead one."""
    daemon.start()
    daemon.mount(reference, work / "a")
    daemon.imgfs("attach", "--owner", "me", reference)
    keeper = daemon.keeper()
    daemon.kill()
    os.kill(keeper, signal.SIGKILL)
    # As if it had not come to this one: its record is not there yet.
    record = daemon.state / "attached" / (hashlib.sha256(os.fsencode(work / "a")).hexdigest() + ".json")
    record.rename(work / "record")
    daemon.start()
    daemon.kill()
    (work / "record").rename(record)
    assert mounts_at(work / "a")
    daemon.start()
    assert daemon.list()[str(work / "a")]["mounted"] and len(mounts_at(work / "a")) == 1
    check_content(work / "a", image)


def test_reboot(place, image, work):
    """In a namespace of its own: processes, mounts and the runtime directory are gone, and the build host too."""
    space = MountNamespace(work)
    daemon = Daemon(work, prefix=space.prefix)
    inside = Path(f"/proc/{space.holder.pid}/root")
    try:
        with serving(place / "store", work / "serve.log", "--listen", "127.0.0.1:0") as server:
            reference, port = f"{server.address}/{NAME}:{TAG}", server.port
            daemon.start()
            daemon.mount(reference, work / "a")
            assert not mounts_at(work / "a"), "the mount is in the namespace of the daemon"
            daemon.imgfs("attach", "--owner", "me", reference)
            before = daemon.list()
            assert daemon.call(call="pull", reference=reference, seal=True)["ok"]["sealed"]
            assert daemon.list()["me"]["sealed"]
            daemon.reboot()
        daemon.start()
        after = daemon.list()
        assert {owner: entry["slot"] for owner, entry in after.items()} == {owner: entry["slot"] for owner, entry in before.items()}
        check_content(work / "a", image, prefix=space.prefix)
        daemon.reboot()
        # What the cache lacks is EIO until the build host is back.
        for blob in daemon.cache.glob("blobs/*"):
            shutil.rmtree(blob)
        daemon.start()
        assert space.run("ls", work / "a/usr").stdout.count("\n") == len(os.listdir(inside / str(work / "a/usr").lstrip("/")))
        failed = space.run("cat", work / "a/usr/noise", check=False, timeout=90)
        assert failed.returncode == 1 and "Input/output error" in failed.stderr
        with serving(place / "store", work / "serve.log", "--listen", f"127.0.0.1:{port}"):
            machine.wait_until(lambda: space.run("cmp", work / "a/usr/noise", work / "a/usr/noise", check=False).returncode == 0,
                               "the build host's return", 60)
        daemon.imgfs("umount", work / "a")
    finally:
        daemon.close()
        space.close()


def test_reboot_with_a_rotten_cache(daemon, place, image, work):
    """Without manifest and indexes an image is away, and back by itself once its host is."""
    with serving(place / "store", work / "serve.log", "--listen", "127.0.0.1:0") as server:
        reference, port = f"{server.address}/{NAME}:{TAG}", server.port
        daemon.start()
        daemon.mount(reference, work / "a")
        daemon.reboot()
    shutil.rmtree(daemon.cache)
    daemon.start()
    entry = daemon.list()[str(work / "a")]
    assert entry["state"] == "away" and entry["fault"]
    assert "cannot be brought back yet" in daemon.log.read_text()
    with serving(place / "store", work / "serve.log", "--listen", f"127.0.0.1:{port}"):
        machine.wait_until(lambda: daemon.list()[str(work / "a")]["mounted"], "the image's return", 60)
        assert "fault" not in daemon.list()[str(work / "a")]
        check_content(work / "a", image)


def test_unmounted_by_hand(daemon, reference, work):
    daemon.start()
    daemon.mount(reference, work / "a")
    daemon.mount(reference, work / "b")
    machine.run("umount", work / "a")
    machine.wait_until(lambda: set(daemon.list()) == {str(work / "b")}, "the owner's end")
    # What lies on top is no unmount.
    machine.run("mount", "-t", "tmpfs", "tmpfs", work / "b")
    machine.run("mount", "-t", "tmpfs", "tmpfs", work / "a")
    machine.run("umount", work / "a")
    time.sleep(1)
    assert set(daemon.list()) == {str(work / "b")}
    machine.run("umount", work / "b")
    daemon.kill()
    machine.run("umount", work / "b")
    daemon.start()
    assert not daemon.list() and not mounts_at(work / "b")


def test_lazily_and_busy(daemon, reference, image, work):
    daemon.start()
    daemon.mount(reference, work / "a")
    with open(work / "a/usr/text", "rb") as file:
        done = daemon.imgfs("umount", work / "a", check=False)
        assert done.returncode == 1 and "--lazy" in done.stderr and mounts_at(work / "a")
        assert "imgfs detach" in daemon.imgfs("umount", "--lazy", work / "a").stderr
        assert not mounts_at(work / "a")
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        assert file.read() == image.files["usr/text"]
        (owner,) = daemon.list()
        assert owner.startswith(f"{work}/a (unmounted lazily") and daemon.list()[owner]["lingering"]
        daemon.mount(reference, work / "a")
        daemon.stop()
        daemon.start()
        assert set(daemon.list()) == {owner, str(work / "a")}
    daemon.reboot()
    daemon.start()
    assert set(daemon.list()) == {str(work / "a")}


def test_an_overlay_keeps_it(daemon, reference, image, work):
    """Overlays do not keep a mount busy; without the image they would be dead."""
    daemon.start()
    daemon.mount(reference, work / "a")
    for name in ("upper", "scratch", "merged"):
        (work / name).mkdir()
    machine.run("mount", "-t", "overlay", "-o", f"lowerdir={work}/a,upperdir={work}/upper,workdir={work}/scratch", "overlay", work / "merged")
    try:
        done = daemon.imgfs("umount", work / "a", check=False)
        assert done.returncode == 1 and "an overlay uses" in done.stderr
        machine.run("umount", work / "a")
        machine.wait_until(lambda: any(entry["lingering"] for entry in daemon.list().values()), "the image that stays")
        check_content(work / "merged", image)
    finally:
        machine.run("umount", work / "merged")
    (owner,) = daemon.list()
    daemon.imgfs("detach", owner)
    assert not os.listdir(daemon.runtime / "fs/plain")


def test_stop_and_start(daemon, reference, image, work):
    daemon.start()
    daemon.mount(reference, work / "a")
    keeper, server = daemon.keeper(), daemon.server()
    daemon.imgfs("stop")
    assert daemon.process.wait(60) == 0
    assert not machine.mount_points(work)
    machine.wait_until(lambda: not {keeper, server} & machine.processes().keys(), "the end of keeper and server")
    daemon.start()
    check_content(work / "a", image)


def test_many_clients_at_once(daemon, reference, image, work):
    daemon.start()
    directories = [work / f"m{number}" for number in range(20)]
    with ThreadPoolExecutor(20) as pool:
        list(pool.map(lambda directory: daemon.mount(reference, directory), directories))
        assert len({entry["slot"] for entry in daemon.list().values()}) == 1 and len(daemon.list()) == 20
        check_content(directories[7], image)
        list(pool.map(lambda directory: daemon.imgfs("umount", directory), directories))
    assert not daemon.list()


def test_bad_requests(daemon, reference):
    daemon.start()
    control = daemon.control()
    for request, code in (
        ({}, "EINVAL"), ({"call": "fly"}, "ENOSYS"), ({"call": "attach"}, "EINVAL"), ({"call": "detach", "owner": "nobody"}, "ENOENT"),
        ({"call": "attach", "owner": "o", "reference": "no host"}, "EINVAL"), ({"call": "ping", "more": 1}, "EINVAL"),
        ({"call": "attach", "owner": "o", "reference": reference, "directory": "/nowhere/at/all"}, "ENOENT"),
        ({"call": "attach", "owner": "o", "reference": reference + "x"}, "ENOENT"),
    ):
        error = control.call(**request)["error"]
        assert error["code"] == code and error["text"], request
    for rubbish in (b"GET / HTTP/1.1\r\n\r\n", b"\0\0\0\0", b"\xff" * 100, b"\x10\0\0\0" + b"{" * 16, os.urandom(1000)):
        wild = daemon.control(greet=False)
        wild.socket.sendall(rubbish)
        wild.close()
    assert control.call(call="ping")["ok"]["pid"] == daemon.process.pid
    control.close()
    assert not daemon.list() and not os.listdir(daemon.state / "attached")


def test_other_users(daemon, work):
    daemon.start()
    for path in (session for session in (work.parent, work)):
        path.chmod(0o755)
    done = subprocess.run(
        ["setpriv", "--reuid", "nobody", "--clear-groups", sys.executable, "-c",
         f"import socket; socket.socket(socket.AF_UNIX).connect({str(daemon.socket)!r})"],
        capture_output=True, text=True, check=False)
    assert "PermissionError" in done.stderr
    daemon.socket.chmod(0o666)  # and if somebody opens it to all, the kernel's word for who asks still counts
    done = subprocess.run(
        ["setpriv", "--reuid", "nobody", "--clear-groups", sys.executable, "-c",
         f"import socket; s = socket.socket(socket.AF_UNIX); s.connect({str(daemon.socket)!r}); print(s.recv(4096))"],
        capture_output=True, text=True, check=False)
    assert "EPERM" in done.stdout and "only root" in done.stdout


def test_pull_and_pin(daemon, reference):
    daemon.start()
    control = daemon.control()
    answer = control.call(call="pull", reference=reference, seal=True)["ok"]
    assert answer["sealed"] and answer["totalBytes"] == answer["fetchedBytes"] > 0
    assert control.call(call="pull", reference=reference)["ok"]["fetchedBytes"] == 0
    assert control.call(call="pin", reference=reference)["ok"]["manifest"] == answer["manifest"]
    control.call(call="attach", owner="me", reference=reference)
    assert daemon.list()["me"]["pinned"] and daemon.list()["me"]["sealed"]
    assert control.call(call="unpin", reference=reference)["ok"]["manifest"] == answer["manifest"]
    assert control.call(call="unpin", reference=reference)["error"]["code"] == "ENOENT"
    assert not daemon.list()["me"]["pinned"]
    status = control.call(call="status")["ok"]
    assert status["images"] == status["owners"] == 1 and status["keeper"] and status["away"] == 0
    control.close()


def start_pull(daemon, reference):
    control = daemon.control()
    control.send({"call": "pull", "reference": reference, "seal": True, "timeout": 86400000})
    return control


def give_up(daemon, reference, under_way, others=0):
    """A client asks for an image and goes once that is true: its pull ends, though it might have waited for a day."""
    ended = daemon.log.read_text().count("pull given up")
    control = start_pull(daemon, reference)
    machine.wait_until(under_way, "a pull under way")
    control.close()
    machine.wait_until(lambda: daemon.call(call="status")["ok"]["calls"] == others, "the pull's end", 60)
    assert daemon.log.read_text().count("pull given up") == ended + 1


def test_pull_without_its_client(daemon, backend):
    """Who has gone is not pulled for any longer; what has come is kept, and others who pull the same image get it."""
    daemon.start()
    with fake.Front(backend) as front:
        reference = f"{front.host}/{NAME}:{TAG}"

        def plan():
            return json.loads(machine.imgfs("pull", "--plan", "--json", "--cache", daemon.cache, reference).stdout)

        front.fault = "stall-accept"  # a host that does not even give the indexes
        give_up(daemon, reference, lambda: front.met)
        front.fault = None
        assert plan()["presentBytes"] == 0
        front.fault = "stall-body"  # one that stops in the middle of ranges
        give_up(daemon, reference, lambda: plan()["presentBytes"])
        had, total = (plan()[key] for key in ("presentBytes", "totalBytes"))
        assert 0 < had < total

        gate, answer = threading.Event(), front.answer

        def answer_late(request):
            assert "/blobs/" not in request.path or gate.wait(120)
            answer(request)

        front.fault, front.answer = None, answer_late
        stayer = start_pull(daemon, reference)
        give_up(daemon, reference, lambda: daemon.call(call="status")["ok"]["calls"] == 2, others=1)
        gate.set()
        while "progress" in (last := stayer.receive()):
            pass
        stayer.close()
        assert last["ok"]["sealed"] and last["ok"]["presentBytes"] == had


def test_configuration_and_signals(work, reference):
    """Keys of section [daemon], read again at SIGHUP; what is wrong then changes nothing."""
    conf = work / "imgfs.conf"
    conf.write_text(f"[daemon]\ndeadline = 5\nruntime = {work}/run\n[mount]\nquiet = yes\n")
    daemon = Daemon(work)
    daemon.command = lambda: [machine.IMGFS, "--config", conf, "daemon", "--foreground", "--state", daemon.state,
                              "--cache", daemon.cache, "--log", daemon.log]
    try:
        daemon.start()
        for text, words in (
            ("[daemon]\ndeadline = 7\n", "the configuration was read again"),
            ("[daemon]\ncolour = red\n", f"{conf}:2: there is no key \"colour\""),
            ("[daemon]\n\ndeadline = never\n", f"{conf}:3: --deadline never: give seconds"),
        ):
            conf.write_text(text)
            daemon.process.send_signal(signal.SIGHUP)
            assert any(line.startswith("MONOTONIC_USEC=") for line in daemon.manager.expect("RELOADING=1"))
            daemon.manager.expect("READY=1")
            assert words in daemon.log.read_text()
        assert "stays as it was" in daemon.log.read_text()
        assert daemon.call(call="reload")["error"]["code"] == "EINVAL"
        assert daemon.stop() == 0
    finally:
        daemon.close()
    done = machine.imgfs("--config", conf, "daemon", "--foreground", check=False)
    assert done.returncode == 2 and f"{conf}:3: --deadline never" in done.stderr


def test_reload_of_quota_and_hosts(daemon, backend, place, image, work):
    """They count for what is attached afterwards, the quota at once."""
    conf = work / "imgfs.conf"
    conf.write_text("")
    words = daemon.command()
    daemon.command = lambda: [words[0], "--config", conf, *words[1:]]
    daemon.start()
    layers = layers_of(place)

    def attach():
        return daemon.call(call="attach", owner="s", layers=layers, no_fill=True)  # what is sealed is not evicted

    assert attach()["error"]["code"] == "EINVAL"
    conf.write_text(f"[source s]\nurl = http://{backend}\n")
    assert "ok" in daemon.call(call="reload")
    conf.write_text("[nonsense]\n")
    assert daemon.call(call="reload")["error"]["code"] == "EINVAL"
    check_content(Path(attach()["ok"]["path"]), image)
    assert "chunks were evicted" not in daemon.log.read_text()
    conf.write_text("[cache]\nquota = 1M\n")
    daemon.process.send_signal(signal.SIGHUP)
    machine.wait_until(lambda: "chunks were evicted" in daemon.log.read_text(), "the new quota", 60)
    daemon.call(call="detach", owner="s")
    shutil.rmtree(daemon.cache / "indexes")
    assert attach()["error"]["code"] == "EINVAL", "there is no source any more"


def test_started_by_its_name(work, reference, image):
    """As a package has it: imgfsd, in the background, ready when the command ends; and only one of them."""
    program = work / "bin/imgfsd"
    program.parent.mkdir()
    program.symlink_to(machine.IMGFS)
    daemon = Daemon(work)
    options = ["--runtime", daemon.runtime, "--state", daemon.state, "--cache", daemon.cache, "--log", daemon.log]
    try:
        machine.run(program, "--config", "/dev/null", *options)
        daemon.mount(reference, work / "a")
        check_content(work / "a", image)
        second = machine.run(program, *options, check=False)
        assert second.returncode == 1 and "does not start" in second.stderr and "another imgfsd has" in daemon.log.read_text()
        assert daemon.list()
    finally:
        daemon.imgfs("stop", check=False)
        daemon.close()
    assert "Usage: imgfs daemon" in machine.run(program, "--help").stdout


def test_the_keepers_unit(work, reference, image):
    """The keeper is started by itself, as its own unit; the manager waits for it, also when it is replaced."""
    daemon = Daemon(work, options=("--external-keeper",))
    keeper_unit = Daemon(work)
    try:
        daemon.start(ready=False)
        assert not daemon.keepers()
        keeper_unit.start("--keeper", ready=False)
        (main,) = [line for line in keeper_unit.manager.expect("READY=1") if line.startswith("MAINPID=")]
        assert keeper_unit.process.wait(60) == 0 and int(main.partition("=")[2]) == daemon.keeper()
        daemon.manager.expect("READY=1")
        daemon.mount(reference, work / "a")
        os.kill(daemon.keeper(), signal.SIGKILL)
        machine.wait_until(lambda: not daemon.keepers(), "the keeper's end")
        keeper_unit.start("--keeper")
        machine.wait_until(lambda: daemon.list()[str(work / "a")]["mounted"], "the image's return")
        check_content(work / "a", image)
    finally:
        keeper_unit.close()
        daemon.close()


def test_fstab(daemon, reference, image, work):
    daemon.start()
    helper = work / "mount.imgfs"  # of this build, whatever the machine has in /sbin
    helper.symlink_to(machine.IMGFS)
    (work / "a").mkdir()
    for _ in range(2):  # once more, when it is there
        machine.run(helper, reference, work / "a", "-o", f"rw,socket={daemon.socket}")
        assert len(mounts_at(work / "a")) == 1
    check_content(work / "a", image)
    daemon.imgfs("umount", work / "a")


def test_upgrade(work, reference, image):
    """Keeper, server and manager go on as the programs that have been put in their place; nobody notices."""
    bin_dir = work / "bin"
    bin_dir.mkdir()
    other = OTHER_BUILD if (OTHER_BUILD / "tools/cmd/imgfs").exists() else machine.BUILD

    def install(build):
        for name in ("tools/cmd/imgfs", "fs/mount/imgfs-keeper", "fs/mount/imgfs-server"):
            target = bin_dir / os.path.basename(name)
            shutil.copy2(build / name, target.with_suffix(".new"))
            target.with_suffix(".new").rename(target)

    install(machine.BUILD)
    daemon = Daemon(work, program=bin_dir / "imgfs")
    try:
        daemon.start()
        daemon.mount(reference, work / "a")
        keeper, server, manager = daemon.keeper(), daemon.server(), daemon.process.pid
        with Reader(work / "a", image):
            for build, named in ((other, work / "a"), (machine.BUILD, daemon.runtime / "fs/plain")):
                install(build)
                assert "upgraded imgfsd" in daemon.imgfs("upgrade", named, timeout=120).stdout
                assert daemon.call(call="ping")["ok"]["pid"] == manager, "it answers as soon as the command has ended"
                server = daemon.server(other_than=server)
                for pid, name in ((keeper, "imgfs-keeper"), (server, "imgfs-server"), (manager, "imgfs")):
                    machine.wait_until(lambda pid=pid, name=name: os.path.samefile(f"/proc/{pid}/exe", bin_dir / name), f"the new {name}")
                daemon.manager.expect("READY=1")
        check_content(work / "a", image)
        assert list(daemon.list()) == [str(work / "a")]
    finally:
        daemon.close()


def test_upgrade_of_everything(reference, work):
    """Without a directory: the daemon's keeper once, and those of mounts of their own. In a namespace, since it is all that one sees."""
    space = MountNamespace(work)
    daemon = Daemon(work, prefix=space.prefix)
    try:
        daemon.start()
        daemon.mount(reference, work / "a")
        daemon.mount(reference, work / "b", "--private")
        server = daemon.server()
        lines = daemon.imgfs("upgrade", timeout=120).stdout.splitlines()
        assert lines == ["upgraded imgfsd and all that it has mounted", f"upgraded {work}/b"]
        assert daemon.server(other_than=server) != server
        daemon.manager.expect("READY=1")
        daemon.imgfs("umount", work / "b")
        assert set(daemon.list()) == {str(work / "a")}
        daemon.stop()
        assert daemon.imgfs("upgrade", timeout=120).stdout == f"upgraded {daemon.runtime}/fs\n", "its keeper alone, without a manager"
    finally:
        daemon.close()
        space.close()
