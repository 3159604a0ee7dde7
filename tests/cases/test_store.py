"""The verbs of the store, as a person calls them; other programs say whether what they leave is right."""
import collections
import hashlib
import http.client
import io
import json
import os
import random
import shutil
import signal
import subprocess
import tarfile
import threading
import time
import zipfile

import pytest

import machine

Image = collections.namedtuple("Image", "id diff_ids layers")


def digest_of(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def make_layer(path, files):
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for name, content in sorted(files.items()):
            member = tarfile.TarInfo(name)
            member.size, member.mtime = len(content), 1700000000
            source = path.with_name("content")
            source.write_bytes(content)
            with open(source, "rb") as data:
                tar.addfile(member, data)


def make_layout(place, layers, name):
    """An OCI layout with one image; what imgfs gets to export."""
    layout = place / f"layout-{name}"
    blobs = layout / "blobs/sha256"
    blobs.mkdir(parents=True)

    def put(data):
        (blobs / hashlib.sha256(data).hexdigest()).write_bytes(data)
        return {"digest": digest_of(data), "size": len(data)}

    diff_ids, entries = [], []
    for number, files in enumerate(layers):
        path = place / f"layer-{name}-{number}.tar"
        make_layer(path, files)
        entries.append({"mediaType": "application/vnd.oci.image.layer.v1.tar", **put(path.read_bytes())})
        diff_ids.append(entries[-1]["digest"])
    config = {"architecture": "amd64", "os": "linux", "config": {"Entrypoint": ["/bin/x"]},
              "rootfs": {"type": "layers", "diff_ids": diff_ids}, "history": [{"created_by": name}] * len(layers)}
    config = {"mediaType": "application/vnd.oci.image.config.v1+json", **put(json.dumps(config).encode())}
    manifest = put(json.dumps({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
                               "config": config, "layers": entries}).encode())
    manifest["mediaType"] = "application/vnd.oci.image.manifest.v1+json"
    manifest["annotations"] = {"org.opencontainers.image.ref.name": "it"}
    (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [manifest]}))
    (layout / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    return layout, Image(config["digest"], diff_ids, [place / f"layer-{name}-{n}.tar" for n in range(len(layers))])


def content(seed, size):
    return random.Random(seed).randbytes(size)


class Place:
    """A store with two images, a/one:v1 and b:v1, that share their lowest layer."""

    def __init__(self, work):
        self.work, self.store = work, work / "store"
        common = {"lib/common": content(1, 700000), "etc/small": b"small"}
        self.layouts, self.images = {}, {}
        for name, seed in (("a/one", 2), ("b", 3)):
            layers = [common, {"app/large": content(seed, 900000), "app/conf": str(seed).encode()}]
            self.layouts[name], self.images[name] = make_layout(work, layers, name.replace("/", "-"))
            self.export(name)

    def export(self, name, *options):
        return machine.imgfs("export", "--store", self.store, "--tag", f"{name}:v1", "--quiet", *options,
                             f"oci:{self.layouts[name]}:it")

    def imgfs(self, verb, *arguments, status=0):
        done = machine.imgfs(verb, "--store", self.store, *arguments, check=False, timeout=120)
        assert done.returncode == status, f"{verb}: exit {done.returncode}\n{done.stdout}{done.stderr}"
        return done

    def json(self, verb, *arguments, **options):
        return json.loads(self.imgfs(verb, "--json", *arguments, **options).stdout)

    def is_held(self):
        """Does an export, or another command that works on the store, keep collectors out?"""
        return machine.imgfs("gc", "--store", self.store, "--dry-run", "--no-wait", check=False).returncode == 1

    def files(self):
        return {str(path.relative_to(self.store)) for path in self.store.rglob("*") if path.is_file()}

    def flip(self, name, offset):
        path = self.store / name
        data = bytearray(path.read_bytes())
        data[offset] ^= 1
        path.chmod(0o644)
        path.write_bytes(data)


@pytest.fixture
def place(work):
    return Place(work)


def hexes(digest):
    return digest.removeprefix("sha256:")


def test_tag(place):
    said = place.imgfs("tag", "a/one:v1", "prod").stdout
    before = {row["name"]: row for row in place.json("ls")}
    assert set(before) == {"a/one:v1", "b:v1", "prod:latest"}
    assert before["prod:latest"]["manifest"] == before["a/one:v1"]["manifest"]
    assert before["prod:latest"]["manifest"] in said
    place.imgfs("tag", before["b:v1"]["manifest"], "prod")
    after = {row["name"]: row for row in place.json("ls")}
    assert after["prod:latest"]["manifest"] == before["b:v1"]["manifest"]
    assert place.json("inspect", "prod")["names"] == ["b:v1", "prod:latest"]
    assert "none:latest" not in after
    assert "does not hold none" in place.imgfs("tag", "none", "x", status=3).stderr


def test_rm(place):
    assert "nothing is removed" in place.imgfs("rm", "b:v1", "none", status=3).stderr
    assert len(place.json("ls")) == 2
    before = place.files()
    assert "removed b:v1" in place.imgfs("rm", "b:v1").stdout
    assert before - place.files() == {"repositories/b/_manifests/v1"}
    place.imgfs("rm", "b:v1", status=3)


def test_ls_and_inspect(place):
    lines = place.imgfs("ls").stdout.splitlines()
    assert lines[0].split() == ["NAME", "MANIFEST", "IMAGE", "ID", "LAYERS", "TAR", "STORED", "AGE"]
    assert lines[1].startswith("a/one:v1 ") and lines[-1].startswith("total: 2 images, ")
    blobs = sum(path.stat().st_size for path in (place.store / "blobs/sha256").iterdir())
    unit = f"{blobs / 1e6:.1f} MB"
    assert unit in lines[-1]
    image = place.images["a/one"]
    shown = place.json("inspect", "a/one:v1")
    assert shown["imageID"] == image.id and shown["names"] == ["a/one:v1"]
    assert [layer["diffID"] for layer in shown["layers"]] == image.diff_ids
    assert shown["config"]["config"]["Entrypoint"] == ["/bin/x"]
    text = place.imgfs("inspect", "a/one:v1").stdout
    assert "platform    linux/amd64" in text and "made by   a-one" in text


def test_gc(place):
    nothing = place.json("gc")
    assert nothing["bytes"] == 0 and nothing["kept"]["tags"] == 2
    image, shared = place.images["b"], place.images["a/one"].diff_ids[0]
    own = image.diff_ids[1]
    blob = {row["diffID"]: row["blob"] for row in place.json("inspect", "b:v1")["layers"]}
    manifest = place.json("inspect", "b:v1")["manifest"]
    place.imgfs("rm", "b:v1")
    before = place.files()
    would = place.json("gc", "--dry-run")
    assert place.files() == before
    freed = place.json("gc")
    assert {**freed, "dryRun": True} == would
    gone = {f"blobs/sha256/{hexes(digest)}" for digest in (manifest, image.id, blob[own])}
    assert before - place.files() == gone | {f"layers/{hexes(own)}", f"frames/{hexes(blob[own])}"}
    assert f"layers/{hexes(shared)}" in place.files()
    assert not (place.store / "repositories/b").exists()
    place.imgfs("verify", "--all")
    assert "freed 0 B" in place.imgfs("gc").stdout


def test_gc_spares_what_is_served(place):
    """A transfer that began before its blob was deleted ends well."""
    layer = place.json("inspect", "b:v1")["layers"][1]
    server = machine.Serve(place.store, place.work / "serve.log")
    try:
        client = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
        client.request("GET", f"/imgfs/blobs/{layer['blob']}")
        reply = client.getresponse()
        first = reply.read(1000)
        place.imgfs("rm", "b:v1")
        assert place.json("gc")["blobs"] == 2
        assert digest_of(first + reply.read()) == layer["blob"]
        client.request("GET", f"/imgfs/blobs/{layer['blob']}")
        reply = client.getresponse()
        reply.read()
        assert reply.status == 404
        client.close()
    finally:
        server.stop()


def test_gc_waits_for_an_export(place):
    """An export that reads from a pipe holds the store; the collector says so."""
    archive = place.work / "a.tar"
    place.imgfs("import", "a/one:v1", f"docker-archive:{archive}")
    data = archive.read_bytes()
    command = [machine.IMGFS, "export", "--store", place.store, "--tag", "c:v1", "--quiet", "-"]
    with subprocess.Popen([str(word) for word in command], stdin=subprocess.PIPE) as export:
        try:
            export.stdin.write(data[:200000])
            export.stdin.flush()
            machine.wait_until(place.is_held, "the export to hold the store")
            assert "in use" in place.imgfs("gc", "--no-wait", status=1).stderr
            assert "waiting" in place.imgfs("gc", "--wait", "1", status=1).stderr
            place.imgfs("rm", "a/one:v1", "b:v1")
            export.stdin.write(data[200000:])
            export.stdin.close()
            assert export.wait(60) == 0
        finally:
            export.kill()
    place.json("gc", "--wait", "20")
    assert [row["name"] for row in place.json("ls")] == ["c:v1"]
    place.imgfs("verify", "--all")


def test_gc_beside_exports(place):
    """Exports and removals in loops, with a collector in another: every image that is there at any time is whole."""
    stop, faults = threading.Event(), []

    def repeat(action):
        while not stop.is_set() and not faults:
            try:
                action()
            except AssertionError as fault:
                faults.append(fault)

    def churn(name):
        place.export(name)
        place.imgfs("verify", "--quiet", f"{name}:v1")
        place.imgfs("rm", f"{name}:v1")

    def collect():
        place.imgfs("gc", "--wait", "60")

    actions = [lambda: churn("a/one"), lambda: churn("b"), collect]
    threads = [threading.Thread(target=repeat, args=(action,), daemon=True) for action in actions]
    for thread in threads:
        thread.start()
    stop.wait(5)
    stop.set()
    for thread in threads:
        thread.join(120)
    assert not faults, faults[0]
    place.export("a/one")
    place.export("b")
    place.imgfs("gc")
    place.imgfs("verify", "--all")


def test_gc_killed(place):
    """Killed anywhere, it leaves a store whose images are whole, and that takes the lost image in again."""
    chance = random.Random(5)
    for _ in range(12):
        place.imgfs("rm", "b:v1")
        command = [str(word) for word in (machine.IMGFS, "gc", "--store", place.store)]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as collector:
            time.sleep(chance.uniform(0, 0.015))
            collector.send_signal(signal.SIGKILL)
        place.imgfs("verify", "--all")
        # Whatever a record still names is there.
        for record in (place.store / "layers").iterdir():
            blob = json.loads(record.read_text())["blob"]
            assert (place.store / "blobs/sha256" / hexes(blob)).exists()
        place.export("b")
        place.imgfs("verify", "--all")


def test_gc_refuses_a_damaged_tag(place):
    place.imgfs("rm", "a/one:v1")
    place.flip("repositories/b/_manifests/v1", 3)
    before = place.files()
    assert "nothing is deleted" in place.imgfs("gc", status=4).stderr
    assert place.files() == before
    place.imgfs("rm", "b:v1")
    place.imgfs("gc")
    assert {name.split("/")[0] for name in place.files()} <= {"imgfs-store", "gc-gate", "gc-lock"}


def test_verify(place):
    assert "b:v1: whole; 2 layers" in place.imgfs("verify", "b:v1").stdout
    both = place.json("verify", "--all")
    assert both["images"] == ["a/one:v1", "b:v1"] and both["whole"] and both["layers"] == 3 and both["faults"] == []
    assert place.imgfs("verify", "--quiet", "b:v1").stdout == ""
    place.imgfs("verify", "none", status=3)


@pytest.mark.parametrize("kind", ["frame", "index", "footer", "record", "config", "manifest", "tag"])
def test_verify_finds_one_bit(place, kind):
    shown = place.json("inspect", "b:v1")
    layer = shown["layers"][1]
    blob = f"blobs/sha256/{hexes(layer['blob'])}"
    file, offset, words = {
        "frame": (blob, layer["indexOffset"] // 2, ["layer 2", layer["blob"], "chunk ", "at offset "]),
        "index": (blob, layer["indexOffset"] + 60, ["layer 2", layer["blob"], "index at offset"]),
        "footer": (blob, layer["blobBytes"] - 20, ["layer 2", layer["blob"], "footer"]),
        "record": (f"layers/{hexes(layer['diffID'])}", 2, ["layer 2", "record"]),
        "config": (f"blobs/sha256/{hexes(shown['imageID'])}", 5, [shown["imageID"], "config"]),
        "manifest": (f"blobs/sha256/{hexes(shown['manifest'])}", 5, [shown["manifest"], "manifest"]),
        "tag": ("repositories/b/_manifests/v1", 200, ["tag"]),
    }[kind]
    place.flip(file, offset)
    said = place.imgfs("verify", "b:v1", status=4).stdout
    for word in words:
        assert word in said.splitlines()[0], said
    faults = place.json("verify", "b:v1", status=4)["faults"]
    assert len(faults) == len(said.splitlines()) - 1 >= 1
    if kind != "tag":
        assert len(faults) == 1
    place.flip(file, offset)
    place.imgfs("verify", "b:v1")


def test_diff(place):
    said = place.imgfs("diff", "a/one:v1", "b:v1").stdout
    assert "files: 2 changed, 0 added, 0 removed" in said
    shown = place.json("diff", "a/one:v1", "b:v1")
    files = {entry["path"]: entry for entry in shown["files"]}
    assert set(files) == {"app/large", "app/conf"}
    assert files["app/large"]["kind"] == "changed" and 900000 <= files["app/large"]["movedBytes"] < 902000
    moved = shown["moved"]
    assert moved["total"] == moved["frames"] + moved["indexes"] + moved["documents"]
    layer = place.json("inspect", "b:v1")["layers"][1]
    assert moved["indexes"] == layer["indexBytes"] and moved["wholeLayers"] == layer["blobBytes"]
    nothing = place.json("diff", "b:v1", "b:v1")
    assert nothing["files"] == [] and nothing["moved"]["total"] == 0
    place.imgfs("diff", "a/one:v1", "none", status=3)


def make_jar(year, changed=b""):
    """A jar of many classes, made in that year; `changed` replaces one of them."""
    jar = io.BytesIO()
    with zipfile.ZipFile(jar, "w") as archive:
        for number in range(1500):
            entry = zipfile.ZipInfo(f"org/example/C{number}.class", (year, 1, 1, 0, 0, 0))
            archive.writestr(entry, changed if changed and number == 700 else content(number, 4000))
    return jar.getvalue()


def test_diff_tells_rebuilt_jars(place):
    """One class is new. Built reproducibly, its neighbourhood moves; built with the time of day, everything."""
    jars = {"old": make_jar(2020), "new": make_jar(2020, b"new"), "rebuilt": make_jar(2021, b"new"), "same": make_jar(2021)}
    for name, jar in jars.items():
        place.layouts[name], place.images[name] = make_layout(place.work, [{"lib/service.jar": jar}], name)
        place.export(name)

    def diff(name):
        shown = place.json("diff", "old:v1", f"{name}:v1")
        return shown["moved"], shown["files"][0]["zip"]

    moved, differs = diff("new")
    assert moved["wasted"] == 0 and moved["frames"] < 1_000_000
    assert differs == {"entries": 1500, "differ": 1, "times": False, "layout": False}
    moved, differs = diff("rebuilt")
    assert moved["wasted"] > 5_000_000
    assert differs == {"entries": 1500, "differ": 1, "times": True, "layout": False}
    moved, differs = diff("same")
    assert moved["wasted"] > 6_000_000 and differs["differ"] == 0
    text = place.imgfs("diff", "old:v1", "same:v1").stdout
    assert "preserveFileTimestamps" in text and "zip: 0 of 1500 entries differ" in text


def check_archive(place, archive, image):
    with tarfile.open(archive) as tar:
        listed = json.load(tar.extractfile("manifest.json"))
        assert len(listed) == 1
        assert digest_of(tar.extractfile(listed[0]["Config"]).read()) == image.id
        for name, layer in zip(listed[0]["Layers"], image.layers):
            assert tar.extractfile(name).read() == layer.read_bytes()
    assert place.json("inspect", "a/one:v1")["imageID"] == image.id
    return listed[0]["RepoTags"]


def test_import_archive(place):
    archive, image = place.work / "it.tar", place.images["a/one"]
    archive.write_text("what was there before")
    place.imgfs("import", "a/one:v1", f"docker-archive:{archive}")
    assert check_archive(place, archive, image) == ["a/one:v1"]
    assert list(place.work.glob(".tmp-*")) == []
    piped = subprocess.run([str(machine.IMGFS), "import", "--store", str(place.store), "a/one:v1", "docker-archive:-"],
                           capture_output=True, check=True, timeout=60)
    assert piped.stdout == archive.read_bytes() and piped.stderr == b""
    place.imgfs("import", "--tag", "x/y:z", "a/one:v1", f"docker-archive:{archive}")
    assert check_archive(place, archive, image) == ["x/y:z"]


def round_trip(place, source):
    """The manifest's digest when `source` goes into the store again, and into one that is empty."""
    wanted = place.json("inspect", "a/one:v1")["manifest"]
    for store in (place.store, place.work / "second"):
        done = machine.imgfs("export", "--store", store, "--tag", "again", "--json", source)
        assert json.loads(done.stdout)["manifest"] == wanted
    shutil.rmtree(place.work / "second")


def test_round_trips(place):
    archive, layout = place.work / "it.tar", place.work / "oci"
    place.imgfs("import", "a/one:v1", f"docker-archive:{archive}")
    round_trip(place, f"docker-archive:{archive}")
    place.imgfs("import", "a/one:v1", f"oci:{layout}")
    place.imgfs("import", "b:v1", f"oci:{layout}:other")
    round_trip(place, f"oci:{layout}:v1")


def need(*programs):
    missing = [program for program in programs if not shutil.which(program)]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")


def test_skopeo_reads_imports(place):
    need("skopeo")
    archive, layout, image = place.work / "it.tar", place.work / "oci", place.images["a/one"]
    place.imgfs("import", "a/one:v1", f"docker-archive:{archive}")
    place.imgfs("import", "a/one:v1", f"oci:{layout}")
    for source in (f"docker-archive:{archive}", f"oci:{layout}:v1"):
        raw = machine.run("skopeo", "inspect", "--config", "--raw", source).stdout
        assert digest_of(raw.encode()) == image.id
        copy = place.work / "copy"
        machine.run("skopeo", "copy", source, f"dir:{copy}")
        manifest = json.loads((copy / "manifest.json").read_text())
        assert manifest["config"]["digest"] == image.id
        assert [layer["digest"] for layer in manifest["layers"]] == image.diff_ids
        shutil.rmtree(copy)


def test_umoci_unpacks_an_import(place):
    need("umoci")
    layout, bundle = place.work / "oci", place.work / "bundle"
    place.imgfs("import", "a/one:v1", f"oci:{layout}")
    machine.run("umoci", "raw", "unpack", "--image", f"{layout}:v1", bundle)
    assert (bundle / "app/large").read_bytes() == content(2, 900000)
    assert (bundle / "lib/common").read_bytes() == content(1, 700000)


@pytest.mark.parametrize("kind", ["frame", "index", "footer", "record", "config", "manifest", "tag"])
def test_export_mends_what_is_rotten(place, kind):
    shown = place.json("inspect", "b:v1")
    layer = shown["layers"][1]
    blob = f"blobs/sha256/{hexes(layer['blob'])}"
    file, offset = {
        "frame": (blob, layer["indexOffset"] // 2), "index": (blob, layer["indexOffset"] + 60), "footer": (blob, layer["blobBytes"] - 20),
        "record": (f"layers/{hexes(layer['diffID'])}", 2), "config": (f"blobs/sha256/{hexes(shown['imageID'])}", 5),
        "manifest": (f"blobs/sha256/{hexes(shown['manifest'])}", 5), "tag": ("repositories/b/_manifests/v1", 200),
    }[kind]
    before = (place.store / file).read_bytes()
    place.flip(file, offset)
    place.imgfs("verify", "b:v1", status=4)
    place.export("b", *(["--verify"] if kind in ("frame", "index", "footer") else []))
    place.imgfs("verify", "--all")
    assert (place.store / file).read_bytes() == before
    assert place.json("inspect", "b:v1")["manifest"] == shown["manifest"]


def test_export_verifies_what_is_whole(place):
    done = machine.imgfs("export", "--store", place.store, "--tag", "b:v2", "--json", "--verify", f"oci:{place.layouts['b']}:it")
    assert json.loads(done.stdout)["layersNew"] == 0


def test_import_of_a_damaged_image(place):
    """No file appears, and an older one stays."""
    archive = place.work / "it.tar"
    layer = place.json("inspect", "b:v1")["layers"][1]
    place.flip(f"blobs/sha256/{hexes(layer['blob'])}", layer["indexOffset"] // 2)
    said = place.imgfs("import", "b:v1", f"docker-archive:{archive}", status=4).stderr
    assert layer["blob"] in said and "chunk " in said
    assert not archive.exists() and list(place.work.glob(".tmp-*")) == []
    place.imgfs("import", "b:v1", f"oci:{place.work / 'oci'}", status=4)
    assert (place.work / "oci/blobs/sha256" / hexes(place.json("inspect", "b:v1")["layers"][0]["diffID"])).exists()
    assert not (place.work / "oci/index.json").exists()


def test_docker_loads_an_import(place):
    need("dockerd", "docker")
    if os.geteuid() != 0:
        pytest.skip("wants root")
    home, socket, archive = place.work / "docker", place.work / "docker.sock", place.work / "it.tar"
    home.mkdir()
    place.imgfs("import", "a/one:v1", f"docker-archive:{archive}")
    command = ["dockerd", "--data-root", home / "data", "--exec-root", home / "exec", "-H", f"unix://{socket}", "--pidfile",
               home / "pid", "--bridge=none", "--iptables=false", "--ip6tables=false"]
    docker = ["docker", "--config", home / "config", "-H", f"unix://{socket}"]
    with open(place.work / "dockerd.log", "wb") as log:
        engine = subprocess.Popen([str(word) for word in command], stdout=log, stderr=log)
    try:
        machine.wait_until(lambda: machine.run(*docker, "version", check=False).returncode == 0, "dockerd", 60)
        assert "Loaded image: a/one:v1" in machine.run(*docker, "load", "--input", archive).stdout
        found = json.loads(machine.run(*docker, "image", "inspect", "a/one:v1").stdout)[0]
    finally:
        machine.end(engine, 30)
        for point in machine.mount_points(home):
            machine.run("umount", "--lazy", point, check=False)
    assert found["Id"] == place.images["a/one"].id
    assert found["RootFS"]["Layers"] == place.images["a/one"].diff_ids


@pytest.mark.parametrize("words", [
    ["tag", "a/one:v1"], ["tag", "a/one:v1", "b", "c"], ["tag", "a/one:v1", "Bad"], ["rm"], ["rm", "b:v1", "b:v1"],
    ["rm", "sha256:" + 64 * "0"], ["tag", "b:v1", "sha256:" + 64 * "0"], ["gc", "b:v1"], ["gc", "--wait", "soon"],
    ["verify"], ["verify", "--all", "b:v1"], ["verify", "B"], ["diff", "b:v1"], ["diff", "b:v1", "B"], ["import", "b:v1"], ["import", "b:v1", "x.tar"],
    ["import", "b:v1", "docker-archive:"], ["import", "b:v1", "oci:/x:-bad"], ["ls", "b:v1"], ["inspect"],
])
def test_wrong_usage(place, words):
    before = place.files()
    said = place.imgfs(*words, status=2).stderr
    assert f"see `imgfs help {words[0]}`" in said
    assert place.files() == before


@pytest.mark.parametrize("verb", ["tag", "rm", "gc", "verify", "diff", "import", "ls", "inspect"])
def test_options(place, verb):
    assert f"Usage: imgfs {verb} " in machine.imgfs(verb, "--help").stdout
    assert "--store DIR" in machine.imgfs("help", verb).stdout
    assert "there is no option --nonsense" in place.imgfs(verb, "--nonsense", status=2).stderr
    names = {"tag": ["x", "y"], "diff": ["x", "y"], "import": ["x", "oci:y"], "rm": ["x"], "verify": ["x"],
             "inspect": ["x"]}.get(verb, [])
    done = machine.imgfs(verb, "--store", place.work / "none", *names, check=False)
    assert done.returncode == 3 and "there is no store" in done.stderr
