"""`imgfs export`: every form of source, what it refuses, and what is in the store afterwards.

IMGFS_KILL_POINTS sets at how many system calls an export is killed (24 by default; 0: at every one). IMGFS_HUGE=1 also exports
a file of more than 8 GiB, which takes a minute or two, but no disk.
"""
import contextlib
import gzip
import http.server
import json
import os
import platform
import random
import signal
import socketserver
import subprocess
import tarfile
import threading

import pytest

import machine
from images import DOCKER_MANIFEST, OCI_LAYER, OCI_MANIFEST, Image, Layout, docker_archive, sha256, tar_of

KEY = "containerd.io/snapshot/imgfs."
KILL_POINTS = int(os.environ.get("IMGFS_KILL_POINTS", "24"))
ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())

# What `imgfs help` says of exit statuses.
FAILED, USAGE, NOT_FOUND, CORRUPT = 1, 2, 3, 4


def noise(size, seed=1):
    return random.Random(seed).randbytes(size)


def text(size, seed=1):
    words = random.Random(seed)
    return b" ".join(b"%x" % words.getrandbits(12) for _ in range(size // 4))[:size]


@pytest.fixture
def image():
    base = tar_of(("etc/hostname", b"host\n"), ("usr/lib/big", text(300_000)), ("usr/lib/noise", noise(200_000)))
    return Image(base, tar_of(("app", b"one\n"), ("etc/.wh.hostname", b"")), architecture=ARCHITECTURE)


@pytest.fixture
def target(work):
    """The path of a store that does not exist yet."""
    return work / "store"


def export(target, source, *options, **more):
    """Exports and returns what --json says."""
    return json.loads(machine.imgfs("export", "--store", target, "--json", *options, source, **more).stdout)


def refused(target, source, *options, status, words, **more):
    """Expects an exit status and a sentence; returns the sentence."""
    done = machine.imgfs("export", "--store", target, *options, source, check=False, **more)
    assert done.returncode == status, done.stderr
    assert done.stderr.startswith("imgfs export: "), done.stderr
    for word in words:
        assert word in done.stderr
    assert done.stdout == ""
    return done.stderr


def manifest_of(target, name):
    repository, _, tag = name.partition(":")
    return json.loads((target / "repositories" / repository / "_manifests" / tag).read_text())


def blob_path(target, digest):
    return target / "blobs/sha256" / digest.removeprefix("sha256:")


def check_image(target, name, image):
    """The manifest names the very config and layers, and lz4 makes the layers' tars of the blobs."""
    manifest = manifest_of(target, name)
    assert manifest["mediaType"] == OCI_MANIFEST
    assert manifest["config"]["digest"] == image.id
    assert blob_path(target, image.id).read_bytes() == image.config
    assert [layer["digest"] for layer in manifest["layers"]] == image.diff_ids
    for layer, tar in zip(manifest["layers"], image.layers):
        assert (layer["mediaType"], layer["size"]) == (OCI_LAYER, len(tar))
        blob = blob_path(target, layer["annotations"][KEY + "blob.digest"])
        assert str(blob.stat().st_size) == layer["annotations"][KEY + "blob.size"]
        assert subprocess.run(["lz4", "-dc", blob], check=True, capture_output=True).stdout == tar
    return manifest


def nothing_published(target):
    """No names, and nothing but whole layers."""
    names = [path for path in (target / "repositories").rglob("*") if path.is_file()] if target.exists() else []
    assert names == []
    assert not target.exists() or list((target / "tmp").iterdir()) == []


def index_of(target, layer, work):
    """The text form of a layer's index."""
    digest = manifest_of(target, "x:1")["layers"][layer]["annotations"][KEY + "blob.digest"]
    return machine.imgfs("inspect", "--dump", blob_path(target, digest), cwd=work).stdout.splitlines()


# Sources


@pytest.mark.parametrize("form", ["tar", "gzip", "zstd"])
@pytest.mark.parametrize("layout", ["old", "new", "podman"])
def test_docker_archive(layout, form, image, target, work):
    path = work / "image.tar"
    path.write_bytes(docker_archive([(image, ["x:1", "registry.example:5000/a/y:2"])], layout, form))
    result = export(target, f"docker-archive:{path}")
    assert (result["tags"], result["imageID"]) == (["x:1", "a/y:2"], image.id)
    assert (result["layersNew"], result["layersReused"]) == (2, 0)
    check_image(target, "x:1", image)
    check_image(target, "a/y:2", image)


@pytest.mark.parametrize("layout", ["old", "new", "podman"])
def test_docker_archive_from_a_pipe(layout, image, target):
    archive = docker_archive([(image, ["x:1"])], layout)
    done = subprocess.run([machine.IMGFS, "export", "--store", target, "-"], input=archive, check=True, capture_output=True)
    assert done.stderr == b""
    check_image(target, "x:1", image)


def test_docker_archive_compressed_whole(image, target, work):
    path = work / "image.tar.gz"
    path.write_bytes(gzip.compress(docker_archive([(image, ["x:1"])])))
    export(target, f"docker-archive:{path}")
    check_image(target, "x:1", image)


def test_docker_archive_of_several(image, target, work):
    other = Image(image.layers[0], tar_of(("app", b"two\n")))
    path = work / "images.tar"
    path.write_bytes(docker_archive([(image, ["x:1"]), (other, ["x:2", "y:latest"])]))
    refused(target, f"docker-archive:{path}", status=FAILED, words=["holds 2 images", "x:1 x:2 y:latest", str(path)])
    refused(target, f"docker-archive:{path}:x:3", status=NOT_FOUND, words=["does not hold x:3", "x:1 x:2"])
    nothing_published(target)
    export(target, f"docker-archive:{path}:x:2")
    check_image(target, "x:2", other)
    assert export(target, f"docker-archive:{path}:y", "--tag", "z:1")["layersNew"] == 0
    check_image(target, "z:1", other)
    export(target, f"docker-archive:{path}:{image.id}")
    check_image(target, "x:1", image)


@pytest.mark.parametrize("form", ["tar", "gzip", "zstd"])
def test_oci_layout(form, image, target, work):
    layout = Layout(work / "layout")
    layout.add(layout.manifest(image, form), "v1")
    export(target, f"oci:{layout.path}:v1", "--tag", "x:1")
    check_image(target, "x:1", image)


@pytest.mark.parametrize("way", ["file", "gzip", "pipe"])
def test_oci_archive(way, image, target, work):
    """A tar of a layout is read where it stands; what cannot be is copied first, which is said."""
    layout = Layout(work / "layout")
    layout.add(layout.manifest(image), "v1")
    archive, path = layout.archive(), work / "image.tar"
    path.write_bytes(gzip.compress(archive) if way == "gzip" else archive)
    source = "oci-archive:-" if way == "pipe" else f"oci-archive:{path}:v1"
    (work / "scratch").mkdir()
    with open(path, "rb") as file:
        stdin = subprocess.Popen(["cat"], stdin=file, stdout=subprocess.PIPE) if way == "pipe" else None
        done = machine.imgfs(
            "export", "--store", target, "--tag", "x:1", source, stdin=stdin and stdin.stdout,
            env={**os.environ, "TMPDIR": str(work / "scratch")},
        )
        if stdin:
            stdin.stdout.close()
            assert stdin.wait() == 0
    assert ("temporary file" in done.stderr) == (way != "file")
    assert list((work / "scratch").iterdir()) == []
    check_image(target, "x:1", image)


def test_docker_schema_2_becomes_oci(image, target, work):
    layout = Layout(work / "layout")
    descriptor = layout.manifest(image, docker=True)
    assert descriptor["mediaType"] == DOCKER_MANIFEST
    layout.add(descriptor)
    export(target, f"oci:{layout.path}", "--tag", "x:1")
    manifest = check_image(target, "x:1", image)
    assert "docker" not in json.dumps(manifest)


def test_fields_of_the_manifest_stay(image, target, work):
    layout = Layout(work / "layout")
    annotations = {"org.example.note": "kept", "containerd.io/snapshot/stargz/toc.digest": "sha256:0"}
    first = {"annotations": annotations, "urls": ["https://example.org/layer"], "x-mine": {"a": [1, 2]}}
    descriptor = layout.manifest(
        image, layer_fields=[first], annotations={"org.example.whole": "kept too"}, **{"x-future": {"deep": [None, 1.5]}}
    )
    layout.add(descriptor)
    export(target, f"oci:{layout.path}", "--tag", "x:1")
    manifest = check_image(target, "x:1", image)
    assert manifest["annotations"] == {"org.example.whole": "kept too"}
    assert manifest["x-future"] == {"deep": [None, 1.5]}
    layer = manifest["layers"][0]
    assert layer["x-mine"] == {"a": [1, 2]}
    assert "urls" not in layer
    assert {key: value for key, value in layer["annotations"].items() if not key.startswith(KEY)} == {"org.example.note": "kept"}
    assert all(key.startswith(KEY) for key in manifest["layers"][1]["annotations"])


def test_platforms(image, target, work):
    """Of an index this machine's image, or the one asked for."""
    others = {"s390x": "", "arm": "v7", "riscv64": ""}
    images = {name: Image(tar_of(("for", name.encode())), architecture=name) for name in others}
    layout = Layout(work / "layout")
    entries = [{**layout.manifest(image), "platform": {"os": "linux", "architecture": ARCHITECTURE}}]
    for name, variant in others.items():
        own = {"os": "linux", "architecture": name, **({"variant": variant} if variant else {})}
        entries.append({**layout.manifest(images[name]), "platform": own})
    # What buildx adds: it is for no platform.
    note = {**layout.manifest(Image(b"")), "platform": {"os": "unknown", "architecture": "unknown"}}
    layout.add(layout.index(*entries, note), "multi")
    export(target, f"oci:{layout.path}:multi", "--tag", "x:1")
    check_image(target, "x:1", image)
    export(target, f"oci:{layout.path}", "--tag", "x:2", "--platform", "linux/s390x")
    check_image(target, "x:2", images["s390x"])
    export(target, f"oci:{layout.path}", "--tag", "x:3", "--platform", "linux/arm/v7")
    check_image(target, "x:3", images["arm"])
    words = ["no image for linux/mips64le", "linux/s390x", "--platform"]
    refused(target, f"oci:{layout.path}", "--platform", "linux/mips64le", status=NOT_FOUND, words=words)
    words = ["no image for linux/arm/v6"]
    refused(target, f"oci:{layout.path}", "--platform", "linux/arm/v6", status=NOT_FOUND, words=words)
    refused(target, f"oci:{layout.path}", "--platform", "linux", status=USAGE, words=["\"linux\" is no platform"])


def test_platform_of_an_archive(image, target, work):
    path = work / "image.tar"
    path.write_bytes(docker_archive([(image, ["x:1"])]))
    words = [f"is for linux/{ARCHITECTURE}, not for linux/s390x"]
    refused(target, f"docker-archive:{path}", "--platform", "linux/s390x", status=NOT_FOUND, words=words)
    nothing_published(target)
    export(target, f"docker-archive:{path}", "--platform", f"linux/{ARCHITECTURE}")


def test_foreign_layers(image, target, work):
    foreign = {"mediaType": "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", "urls": ["https://example.org/"]}
    layout = Layout(work / "layout")
    layout.add(layout.manifest(image, layer_fields=[foreign]))
    export(target, f"oci:{layout.path}", "--tag", "x:1")
    check_image(target, "x:1", image)

    blob = json.loads(blob_path(layout.path, layout.manifests[0]["digest"]).read_text())["layers"][0]["digest"]
    blob_path(layout.path, blob).unlink()
    # Nobody misses the bytes of a layer that is there.
    assert export(target, f"oci:{layout.path}", "--tag", "x:2")["layersNew"] == 0
    words = [blob.removeprefix("sha256:"), "may leave out", str(layout.path)]
    refused(work / "other", f"oci:{layout.path}", "--tag", "x:1", status=NOT_FOUND, words=words)
    nothing_published(work / "other")


@pytest.mark.parametrize("way", ["old", "new", "pipe", "oci"])
def test_duplicate_layers(way, target, work):
    """Images may have a layer twice; empty ones usually are."""
    empty, full = tar_of(), tar_of(("file", text(50_000)))
    image = Image(empty, full, empty, full, empty)
    source = f"docker-archive:{work}/image.tar"
    if way == "oci":
        layout = Layout(work / "layout")
        layout.add(layout.manifest(image))
        source = f"oci:{layout.path}"
    else:
        (work / "image.tar").write_bytes(docker_archive([(image, ["x:1"])], "new" if way == "new" else "old"))
    if way == "pipe":
        with open(work / "image.tar", "rb") as file:
            result = export(target, "-", stdin=file)
    else:
        result = export(target, source, "--tag", "x:1")
    assert result["layers"] == 5
    assert len(list((target / "layers").iterdir())) == 2
    check_image(target, "x:1", image)


class Engine(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """As much of a docker engine as export asks for."""

    daemon_threads = True

    def __init__(self, path, images):
        outer = self
        self.images, self.asked = images, []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):  # pylint: disable=invalid-name # the base class's name
                outer.asked.append(self.path)
                name = self.path.split("/images/")[-1].removesuffix("/get")
                body = b"OK" if self.path == "/_ping" else outer.images.get(name)
                self.send_response(200 if body else 404)
                self.send_header("Api-Version", "1.41")
                self.end_headers()
                self.wfile.write(body or b'{"message":"no such image"}')

            def address_string(self):
                return "engine"

            def log_message(self, *_):
                pass

        super().__init__(str(path), Handler)


@pytest.fixture
def engine(work, image, monkeypatch):
    server = Engine(work / "docker.sock", {"whisk/x:1": docker_archive([(image, ["whisk/x:1"])])})
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("DOCKER_HOST", f"unix://{work}/docker.sock")
    yield server
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("source", ["docker-daemon:whisk/x:1", "whisk/x:1"])
def test_docker_daemon(source, engine, image, target):
    export(target, source)
    check_image(target, "whisk/x:1", image)
    assert engine.asked == ["/_ping", "/v1.41/images/whisk/x:1/get"]


def test_hints(engine, image, target, work):  # pylint: disable=unused-argument # the engine is asked
    """Who forgets the prefix of a file is told."""
    (work / "image.tar").write_bytes(docker_archive([(image, ["x:1"])]))
    (work / "layout").mkdir()
    words = ["no image image.tar:latest", "if the file image.tar is meant, write docker-archive:image.tar"]
    refused(target, "image.tar", status=NOT_FOUND, words=words, cwd=work)
    refused(target, "layout", status=NOT_FOUND, words=["the directory layout is meant, write oci:layout"], cwd=work)
    assert "meant" not in refused(target, "nothing", status=NOT_FOUND, words=["no image nothing:latest"], cwd=work)
    refused(target, f"{work}/image.tar", status=USAGE, words=["is no image", f"write docker-archive:{work}/image.tar"])
    refused(target, "docker://x", status=USAGE, words=["\"docker://x\" is no image"])
    assert not (target / "repositories").exists() or not list((target / "repositories").iterdir())


def test_no_engine(target, work, monkeypatch):
    monkeypatch.setenv("DOCKER_HOST", f"unix://{work}/none.sock")
    refused(target, "x:1", status=FAILED, words=["no docker engine answers", f"{work}/none.sock"])


# What is refused


def corrupt_tars():
    good = tar_of(("first", b"1" * 1000), ("second", b"2" * 1000))
    header = bytearray(good)
    header[1536 + 148] ^= 1
    garbage = bytearray(good)
    garbage[1536:2048] = noise(512)
    pax = bytearray(tar_of(("x" * 200, b"")))
    pax[512:515] = b"999"
    return {
        "dots": (tar_of(("../outside", b"")), FAILED, ["a \"..\" in name ../outside", "byte 0", "does not take such layers"]),
        "dots-inside": (tar_of(("a/../../b", b"")), FAILED, ["a \"..\" in name a/../../b", "does not take such layers"]),
        "link-dots": (tar_of(link("x", "../../etc/passwd")), FAILED, ["hard link x: a \"..\" in link target ../../etc/passwd"]),
        "truncated-data": (good[:2300], CORRUPT, ["in second", "byte 2300", "ends 748 bytes before"]),
        "truncated-header": (good[:1700], CORRUPT, ["byte 1536", "after first", "ends inside a header"]),
        "checksum": (bytes(header), CORRUPT, ["byte 1536 (after first)", "no header"]),
        "garbage": (bytes(garbage), CORRUPT, ["byte 1536 (after first)", "no header"]),
        "garbage-first": (noise(2048), CORRUPT, ["byte 0 (at its start)", "no header", "it is no tar, or damaged from its first byte on"]),
        "pax": (bytes(pax), CORRUPT, ["pax record", "byte "]),
        "link-to-directory": (tar_of(directory("d"), link("h", "d")), CORRUPT, ["tar entry h, at byte 512", "directory d"]),
    }


def link(name, to, kind=tarfile.LNKTYPE):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, to
    return info


def directory(name):
    info = tarfile.TarInfo(name)
    info.type = tarfile.DIRTYPE
    return info


@pytest.mark.parametrize("way", ["archive", "pipe", "oci"])
@pytest.mark.parametrize("kind", list(corrupt_tars()))
def test_corrupt_layers(kind, way, target, work):
    """The sentence names source, layer, entry and offset; no name is published."""
    tar, status, words = corrupt_tars()[kind]
    image = Image(tar_of(("good", b"")), tar)
    path = work / "image.tar"
    path.write_bytes(docker_archive([(image, ["x:1"])]))
    if way == "oci":
        layout = Layout(work / "layout")
        layout.add(layout.manifest(image))
        refused(target, f"oci:{layout.path}", "-t", "x:1", status=status, words=[str(layout.path), "blobs/sha256/", *words])
    elif way == "pipe":
        with open(path, "rb") as file:
            refused(target, "-", status=status, words=["layer.tar", *words], stdin=file)
    else:
        refused(target, f"docker-archive:{path}", status=status, words=[str(path), "layer.tar", *words])
    nothing_published(target)


def damage_of_layouts():
    def flip(layout, descriptor):
        blob = json.loads(blob_path(layout.path, descriptor["digest"]).read_text())["layers"][0]
        path = blob_path(layout.path, blob["digest"])
        data = bytearray(path.read_bytes())
        data[4] ^= 1  # the time in gzip's header: another blob of the same tar
        path.write_bytes(data)

    def cut(layout, descriptor):
        blob = json.loads(blob_path(layout.path, descriptor["digest"]).read_text())["layers"][0]
        path = blob_path(layout.path, blob["digest"])
        path.write_bytes(path.read_bytes()[:-9])

    def lose(layout, descriptor):
        blob = json.loads(blob_path(layout.path, descriptor["digest"]).read_text())["layers"][0]
        blob_path(layout.path, blob["digest"]).unlink()

    def config(layout, descriptor):
        blob = json.loads(blob_path(layout.path, descriptor["digest"]).read_text())["config"]
        path = blob_path(layout.path, blob["digest"])
        path.write_bytes(path.read_bytes().replace(b"kept", b"gone"))

    def marker(layout, _):
        (layout.path / "oci-layout").unlink()

    return {
        "blob": (flip, CORRUPT, ["blobs/sha256/", "not what its name says"]),
        "short": (cut, CORRUPT, ["layer blobs/sha256/", "bytes, not"]),
        "lost": (lose, NOT_FOUND, ["cannot read layer blobs/sha256/", "copy the image again"]),
        "config": (config, CORRUPT, ["blobs/sha256/", "not what its name and size say"]),
        "marker": (marker, NOT_FOUND, ["no OCI image layout"]),
    }


@pytest.mark.parametrize("kind", list(damage_of_layouts()))
def test_damaged_layouts(kind, image, target, work):
    damage, status, words = damage_of_layouts()[kind]
    layout = Layout(work / "layout")
    descriptor = layout.manifest(image)
    layout.add(descriptor)
    damage(layout, descriptor)
    refused(target, f"oci:{layout.path}", "-t", "x:1", status=status, words=[str(layout.path), *words])
    nothing_published(target)


@pytest.mark.parametrize("media_type, word", [
    ("application/vnd.oci.image.layer.v1.tar+gzip+encrypted", "encrypted"),
    ("application/vnd.cncf.helm.chart.content.v1.tar+gzip", "no layer of a container image"),
])
def test_layers_that_are_none(media_type, word, image, target, work):
    layout = Layout(work / "layout")
    layout.add(layout.manifest(image, layer_fields=[{}, {"mediaType": media_type}]))
    refused(target, f"oci:{layout.path}", "-t", "x:1", status=FAILED, words=[str(layout.path), "layer blobs", word, media_type])
    nothing_published(target)


def test_wrong_diff_id(image, target, work):
    """A layer that is a good tar, but not the one of the config."""
    other = Image(tar_of(("other", b"")), image.layers[1])
    other.layers = image.layers
    path = work / "image.tar"
    path.write_bytes(docker_archive([(other, ["x:1"])]))
    words = [str(path), "layer.tar", other.diff_ids[0]]
    refused(target, f"docker-archive:{path}", status=CORRUPT, words=words)
    with open(path, "rb") as file:
        refused(target, "-", status=CORRUPT, words=["layer.tar", other.diff_ids[0]], stdin=file)
    nothing_published(target)


def test_the_other_kind_of_archive(image, target, work):
    layout = Layout(work / "layout")
    layout.add(layout.manifest(image))
    (work / "oci.tar").write_bytes(layout.archive())
    (work / "docker.tar").write_bytes(docker_archive([(image, ["x:1"])]))
    refused(target, f"docker-archive:{work}/oci.tar", status=CORRUPT, words=["no manifest.json", "oci-archive:FILE"])
    refused(target, f"oci-archive:{work}/docker.tar", status=NOT_FOUND, words=["no file oci-layout", "docker-archive:FILE"])
    refused(target, f"oci:{work}/oci.tar", status=FAILED, words=["is no directory", "oci-archive:FILE"])
    refused(target, f"docker-archive:{layout.path}", status=FAILED, words=["is a directory", "oci:DIR"])
    refused(target, f"oci-archive:{layout.path}", status=FAILED, words=["is a directory", "oci:DIR"])
    nothing_published(target)


@pytest.mark.parametrize("form", ["oci-archive", "docker-archive"])
def test_damaged_archives(form, image, target, work):
    path = work / "image.tar"
    layout = Layout(work / "layout")
    layout.add(layout.manifest(image))
    whole = layout.archive() if form == "oci-archive" else docker_archive([(image, ["x:1"])])
    half = len(whole) // 2  # in the data of the large layer
    path.write_bytes(whole[:half])
    refused(target, f"{form}:{path}", "-t", "x:1", status=CORRUPT, words=[str(path), f"tar, byte {half} (in "])
    path.write_bytes(gzip.compress(whole)[:-400])
    refused(target, f"{form}:{path}", "-t", "x:1", status=CORRUPT, words=[str(path), "gzip data ends in the middle"])
    path.write_bytes(noise(5000))
    refused(target, f"{form}:{path}", "-t", "x:1", status=CORRUPT, words=[str(path), "byte 0"])
    refused(target, f"{form}:{work}/none.tar", status=NOT_FOUND, words=[f"{work}/none.tar"])
    nothing_published(target)


@pytest.mark.parametrize("options, status, words", [
    (["--level", "2"], USAGE, ["--level 2"]),
    (["--level", "13"], USAGE, ["--level 13"]),
    (["--jobs", "0"], USAGE, ["--jobs 0"]),
    (["--tag", "Not A Name"], USAGE, ["--tag Not A Name"]),
    (["--tag", "x@sha256:" + "0" * 64], USAGE, ["has a digest"]),
    (["--platform", "linux/"], USAGE, ["\"linux/\" is no platform"]),
    (["--nothing"], USAGE, ["no option --nothing"]),
])
def test_options_refused(options, status, words, image, target, work):
    path = work / "image.tar"
    path.write_bytes(docker_archive([(image, ["x:1"])]))
    refused(target, f"docker-archive:{path}", *options, status=status, words=words)
    assert not target.exists()


def test_no_name(image, target, work):
    path = work / "image.tar"
    path.write_bytes(docker_archive([(image, [])]))
    refused(target, f"docker-archive:{path}", status=USAGE, words=["no name for this image", "--tag NAME:TAG"])
    nothing_published(target)


def test_no_store(image, work):
    path = work / "image.tar"
    path.write_bytes(docker_archive([(image, ["x:1"])]))
    words = [f"{work} is neither empty nor an imgfs store", "--store"]
    refused(work, f"docker-archive:{path}", status=FAILED, words=words)


# What is in the store


def blobs(target):
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in (target / "blobs/sha256").iterdir()}


def test_again_is_nothing_new(image, target, work):
    path = work / "image.tar"
    path.write_bytes(docker_archive([(image, ["x:1"])]))
    first = export(target, f"docker-archive:{path}")
    before = blobs(target)
    second = export(target, f"docker-archive:{path}")
    assert (second["layersNew"], second["layersReused"], second["bytesStored"]) == (0, 2, 0)
    assert second["bytesRead"] == 0
    assert second["manifest"] == first["manifest"]
    assert blobs(target) == before


def two_versions():
    """A layer of which a few files change."""
    files = [(f"lib/{number}", text(40_000, number)) for number in range(40)]
    changed = [(name, data + b"!" if number == 7 else data) for number, (name, data) in enumerate(files)]
    return Image(tar_of(*files)), Image(tar_of(*changed))


def test_frames_are_reused(target, work):
    one, two = two_versions()
    for number, image in enumerate((one, two), 1):
        (work / f"{number}.tar").write_bytes(docker_archive([(image, [f"x:{number}"])]))
    first = export(target, f"docker-archive:{work}/1.tar", "--level", "9")
    assert first["chunksReused"] == 0
    second = export(target, f"docker-archive:{work}/2.tar", "--fast")
    assert second["chunks"] - 3 <= second["chunksReused"] < second["chunks"]
    check_image(target, "x:2", two)

    # Without the store's frames the blobs are those of an empty store.
    export(target, f"docker-archive:{work}/2.tar", "--tag", "again:1", "--reproducible")
    (target / "layers" / two.diff_ids[0].removeprefix("sha256:")).unlink()
    export(target, f"docker-archive:{work}/2.tar", "--tag", "again:2", "--reproducible", "--jobs", "3")
    export(work / "empty", f"docker-archive:{work}/2.tar", "--jobs", "1")
    assert manifest_of(target, "again:1") == manifest_of(target, "x:2")
    assert manifest_of(target, "again:2") == manifest_of(work / "empty", "x:2")
    assert manifest_of(target, "again:2") != manifest_of(target, "x:2")


def test_rotten_frames_are_not_reused(target, work):
    one, two = two_versions()
    for number, image in enumerate((one, two), 1):
        (work / f"{number}.tar").write_bytes(docker_archive([(image, [f"x:{number}"])]))
    export(target, f"docker-archive:{work}/1.tar")
    blob = blob_path(target, manifest_of(target, "x:1")["layers"][0]["annotations"][KEY + "blob.digest"])
    data = bytearray(blob.read_bytes())
    data[5000] ^= 1
    blob.write_bytes(data)
    result = export(target, f"docker-archive:{work}/2.tar")
    assert 0 < result["chunksReused"] < result["chunks"] - 1
    check_image(target, "x:2", two)


def test_levels(image, target, work):
    path = work / "image.tar"
    path.write_bytes(docker_archive([(image, ["x:1"])]))
    sizes = {}
    for name, options in {"fast": ["--fast"], "1": ["--level", "1"], "default": [], "12": ["--level", "12"]}.items():
        sizes[name] = export(work / name, f"docker-archive:{path}", *options)["bytesStored"]
        check_image(work / name, "x:1", image)
    assert sizes["fast"] == sizes["1"] > sizes["default"] > sizes["12"]


def test_text_output(image, target, work):
    path = work / "image.tar"
    path.write_bytes(docker_archive([(image, ["registry.example:5000/x:1"])]))
    done = machine.imgfs("export", "--store", target, f"docker-archive:{path}")
    assert "x:1\n" in done.stdout and image.id in done.stdout and "2 new" in done.stdout
    assert "registry.example:5000/x:1 is called x:1" in done.stderr
    done = machine.imgfs("export", "--store", target, "--quiet", f"docker-archive:{path}")
    assert (done.stdout, done.stderr) == ("", "")


# What layers may hold


def test_layer_without_end(target, work):
    """umoci insert writes neither the last padding nor an end; others pad to 10 KiB, or append what is no tar."""
    whole = tar_of(("file", b"x" * 700))
    image = Image(whole[:1212], whole[:1536], whole[:2048], whole, whole + b"behind the end", b"", b"\0" * 512, b"\0" * 1024)
    path = work / "image.tar"
    path.write_bytes(docker_archive([(image, ["x:1"])]))
    export(target, f"docker-archive:{path}")
    check_image(target, "x:1", image)
    for layer in range(5):
        assert any(line.endswith('entry - 1 "file"') for line in index_of(target, layer, work))


def test_whiteouts_are_entries(target, work):
    """What they mean is for whoever stacks layers; the index has them as the tar does."""
    names = ["etc/.wh.passwd", "var/.wh..wh..opq"]
    (work / "image.tar").write_bytes(docker_archive([(Image(tar_of(*((name, b"") for name in names))), ["x:1"])]))
    export(target, f"docker-archive:{work}/image.tar")
    found = [line.split(" ", 3)[3] for line in index_of(target, 0, work) if line.startswith("entry -")]
    assert found == ['".wh.passwd"', '".wh..wh..opq"']


def test_acls_as_gnu_tar_and_bsdtar_write_them(target, work):
    """They become what the kernel has at the files that these tars are of."""
    tree = work / "tree"
    (tree / "directory").mkdir(parents=True)
    (tree / "file").write_text("x")
    try:
        machine.run("setfacl", "-m", "u:54321:rw,g:54322:r", tree / "file")
    except (AssertionError, FileNotFoundError):
        pytest.skip("setfacl does not work here")
    machine.run("setfacl", "-m", "u:54321:rwx,d:u:54323:rx,d:g:54324:-", tree / "directory")
    tars = []
    for program in ("tar", "bsdtar"):
        tars.append(subprocess.run([program, "-C", tree, "--acls", "-cf", "-", "."], check=True, capture_output=True).stdout)
    (work / "image.tar").write_bytes(docker_archive([(Image(*tars), ["x:1"])]))
    export(target, f"docker-archive:{work}/image.tar")
    for layer in range(2):
        lines = index_of(target, layer, work)
        for name, keys in (("file", ["access"]), ("directory", ["access", "default"])):
            path = tree / name
            inode = next(line.split()[2] for line in lines if line.startswith("entry") and line.endswith(f'"{name}"'))
            at = next(number for number, line in enumerate(lines) if line.startswith(f"inode {inode} "))
            assert f"mode={path.stat().st_mode:07o} " in lines[at]
            wanted = {key: os.getxattr(path, f"system.posix_acl_{key}") for key in keys}
            found = {}
            for line in lines[at + 1:]:
                if not line.startswith("xattr"):
                    break
                _, key, value = line.split(" ", 2)
                found[key.strip('"').removeprefix("system.posix_acl_")] = unquote(value)
            assert found == wanted


def unquote(text_form):
    return text_form[1:-1].encode().decode("unicode_escape").encode("latin-1")


def test_capabilities(target, work):
    """A file capability is an xattr with binary value, which GNU tar and bsdtar store each in its own way."""
    tree = work / "tree"
    tree.mkdir()
    (tree / "ping").write_text("x")
    machine.run("setcap", "cap_net_raw=ep", tree / "ping")
    wanted = os.getxattr(tree / "ping", "security.capability")
    commands = (["tar", "--xattrs", "--xattrs-include=*"], ["bsdtar", "--xattrs"])
    tars = [subprocess.run([*command, "-C", tree, "-cf", "-", "."], check=True, capture_output=True).stdout for command in commands]
    (work / "image.tar").write_bytes(docker_archive([(Image(*tars), ["x:1"])]))
    export(target, f"docker-archive:{work}/image.tar")
    for layer in range(2):
        values = [line.split(" ", 2)[2] for line in index_of(target, layer, work) if line.startswith('xattr "security.capability"')]
        assert [unquote(value) for value in values] == [wanted]


def outer_archive(layer_size, config, name=b"x:1"):
    """What stands before and behind the one layer of a docker archive."""
    def member(path, size):
        info = tarfile.TarInfo(path)
        info.size = size
        return info.tobuf(tarfile.GNU_FORMAT)

    manifest = json.dumps([{"Config": "config.json", "RepoTags": [name.decode()], "Layers": ["layer.tar"]}]).encode()
    behind = b"".join(
        member(path, len(data)) + data + bytes(-len(data) % 512)
        for path, data in (("config.json", config), ("manifest.json", manifest))
    )
    return member("layer.tar", layer_size), bytes(-layer_size % 512) + behind + bytes(1024)


@pytest.mark.skipif(not os.environ.get("IMGFS_HUGE"), reason="IMGFS_HUGE is not set; unit tests have the reader's part")
def test_a_file_of_more_than_8_gib(target, work):
    """From a sparse file, so that it takes no disk: its size is in base-256 in the tar, and the archive's member is as large."""
    size = (8 << 30) + 12345
    info = tarfile.TarInfo("huge")
    info.size = size
    header = info.tobuf(tarfile.GNU_FORMAT)
    layer_size = len(header) + size + -size % 512 + 1024
    diff = subprocess.Popen(["sha256sum"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    diff.stdin.write(header)
    zeros, left = bytes(1 << 20), layer_size - len(header)
    while left:
        diff.stdin.write(zeros[:left])
        left -= min(left, len(zeros))
    diff_id = diff.communicate()[0].split()[0].decode()
    config = json.dumps({"os": "linux", "architecture": "any", "rootfs": {"type": "layers", "diff_ids": [f"sha256:{diff_id}"]}})
    before, behind = outer_archive(layer_size, config.encode())
    path = work / "image.tar"
    with open(path, "wb") as file:
        file.write(before + header)
        file.seek(len(before) + layer_size)
        file.write(behind)
    assert path.stat().st_blocks < 1000
    result = export(target, f"docker-archive:{path}", "--fast", timeout=600)
    assert result["tarBytes"] == layer_size
    inode = next(line for line in index_of(target, 0, work) if line.startswith("inode 1 "))
    assert f"size={size} data=512 " in inode


def test_a_million_entries_in_bounded_memory(target, work):
    """Streamed, and the memory is that of the index: some 200 bytes an entry."""
    count = 1_000_000
    info = tarfile.TarInfo("directory/0000000")
    header = bytearray(info.tobuf(tarfile.USTAR_FORMAT))
    at = header.index(b"0000000\0")
    base = sum(header) - sum(header[148:156]) + 8 * 32 - 7 * 48
    layer_size = count * 512 + 1024
    config = json.dumps({"os": "linux", "architecture": "any", "rootfs": {"type": "layers", "diff_ids": ["sha256:" + "0" * 64]}})

    def blocks():
        for first in range(0, count, 1000):
            for number in range(first, first + 1000):
                digits = b"%07d" % number
                header[at:at + 7] = digits
                header[148:156] = b"%06o\0 " % (base + sum(digits))
                yield bytes(header)
        yield bytes(1024)

    diff = hashlib_of(blocks())
    config = config.replace("0" * 64, diff)
    before, behind = outer_archive(layer_size, config.encode())
    with open(work / "out", "wb") as out, open(work / "err", "wb") as err:
        child = subprocess.Popen(
            [machine.IMGFS, "export", "--store", target, "--json", "--fast", "-"], stdin=subprocess.PIPE, stdout=out, stderr=err,
        )
        with child.stdin as pipe:
            pipe.write(before)
            pipe.writelines(blocks())
            pipe.write(behind)
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    assert child.returncode == 0, (work / "err").read_text()
    assert json.loads((work / "out").read_text())["tarBytes"] == layer_size
    # AddressSanitizer keeps what was freed for a while.
    assert usage.ru_maxrss * 1024 < (900 if b"__asan_init" in machine.IMGFS.read_bytes() else 450) * count


def hashlib_of(pieces):
    with subprocess.Popen(["sha256sum"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        child.stdin.writelines(pieces)
        return child.communicate()[0].split()[0].decode()


# Failure


def test_two_at_once(target, work):
    """Two exports of the same layers into one new store, and a third of others."""
    one, two = two_versions()
    (work / "1.tar").write_bytes(docker_archive([(one, ["x:1"])]))
    (work / "2.tar").write_bytes(docker_archive([(two, ["x:2"])]))
    for _ in range(5):
        machine.run("rm", "-rf", target)
        children = [
            subprocess.Popen([machine.IMGFS, "export", "--store", target, "--tag", tag, f"docker-archive:{work}/{name}.tar"],
                             stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
            for tag, name in (("a:1", "1"), ("b:1", "1"), ("c:1", "2"), ("c:2", "2"))
        ]
        for child in children:
            assert child.communicate(timeout=60)[1] == b""
            assert child.returncode == 0
        for name, image in (("a:1", one), ("b:1", one), ("c:1", two), ("c:2", two)):
            check_image(target, name, image)
        assert list((target / "tmp").iterdir()) == []


@pytest.mark.parametrize("size", [4, 256, 1024, 1536])
def test_full_disk(size, target, work):
    """On a disk of so many KiB: says so, keeps what was there, and works once there is room."""
    image = Image(tar_of(("noise", noise(1_000_000))), tar_of(("more", noise(900_000, 2))))
    small = Image(tar_of(("small", b"x")))
    path, before = work / "image.tar", work / "small.tar"
    path.write_bytes(docker_archive([(image, ["x:1"])]))
    before.write_bytes(docker_archive([(small, ["small:1"])]))
    target.mkdir()
    machine.run("mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", target)
    try:
        there = size > 4
        if there:
            export(target, f"docker-archive:{before}")
        words = [f"store {target}: no space left to write", "free some, or name another --store"]
        refused(target, f"docker-archive:{path}", status=FAILED, words=words)
        if there:
            check_image(target, "small:1", small)
            assert json.loads(machine.imgfs("ls", "--store", target, "--json").stdout)
            assert list((target / "tmp").iterdir()) == []
        machine.run("mount", "-o", "remount,size=16m", target)
        export(target, f"docker-archive:{path}")
        check_image(target, "x:1", image)
    finally:
        machine.run("umount", target)


def test_full_temporary_directory(image, target, work):
    """The copy of an OCI archive that cannot be read in place has a disk of its own to fill."""
    layout = Layout(work / "layout")
    layout.add(layout.manifest(Image(tar_of(("noise", noise(1_000_000))))))
    path, scratch = work / "image.tar.gz", work / "scratch"
    path.write_bytes(gzip.compress(layout.archive()))
    scratch.mkdir()
    machine.run("mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", scratch)
    try:
        words = [str(path), f"temporary file in {scratch}", "set TMPDIR"]
        done = machine.imgfs(
            "export", "--store", target, "-t", "x:1", f"oci-archive:{path}", check=False, env={**os.environ, "TMPDIR": str(scratch)}
        )
        assert done.returncode == FAILED
        assert all(word in done.stderr for word in words), done.stderr
    finally:
        machine.run("umount", scratch)
    nothing_published(target)


def test_killed_at_system_calls(work):
    """At so many system calls, spread over a whole export; tests/crash/export-kill says what must hold then."""
    program = machine.TOP / "tests/crash/export-kill"
    done = machine.run(program, "--points", KILL_POINTS, "--work", work, timeout=3600, check=False)
    if done.returncode == 77:
        pytest.skip(done.stdout.strip())
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 failed" in done.stdout


def open_files(pid):
    """Where the descriptors of a process lead, of those that have not gone meanwhile."""
    for number in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):
            yield os.readlink(f"/proc/{pid}/fd/{number}")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_killed_by_a_signal_leaves_nothing(number, work, target):
    """Interrupted in the middle of a layer that never ends: what it has written has no name."""
    before, _ = outer_archive(1 << 30, b"{}")
    child = subprocess.Popen(
        [machine.IMGFS, "export", "--store", target, "-"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    info = tarfile.TarInfo("endless")
    info.size = 1 << 29
    child.stdin.write(before + info.tobuf(tarfile.GNU_FORMAT) + noise(3_000_000))
    child.stdin.flush()
    machine.wait_until(lambda: any(path.startswith(f"{target}/tmp/") for path in open_files(child.pid)), "the temporary")
    child.send_signal(number)
    child.wait()
    child.stdin.close()
    assert list((target / "tmp").iterdir()) == []
    image = Image(tar_of(("x", b"")))
    (work / "image.tar").write_bytes(docker_archive([(image, ["x:1"])]))
    export(target, f"docker-archive:{work}/image.tar")
    assert list((target / "tmp").iterdir()) == []
    assert sha256(image.config) in os.listdir(target / "blobs/sha256")
