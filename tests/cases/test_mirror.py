"""Mirrors of a registry: asked first, passed over when they die, lie, stall or lack something, and told nothing that is for others."""
import base64
import http.client
import json
import os
import time

import pytest

import front as fake
import machine
from endpoint import NAME, TAG, digest_of, need, run, serving
from endpoint import make_backend, make_image, make_place  # noqa: F401 # pylint: disable=unused-import # fixtures


@pytest.fixture(name="fronts")
def make_fronts(backend):
    """The host itself, and two mirrors of it."""
    fronts = [fake.Front(backend, seed=seed) for seed in range(3)]
    yield fronts
    for front in fronts:
        front.kill()


@pytest.fixture(name="attach")
def make_attach(fronts, mount, work, monkeypatch):
    """Mounts the image of the host with its mirrors configured; `more` is added to the configuration."""
    def attach(*options, more="", deadline=10):
        origin, *mirrors = fronts
        conf = work / "imgfs.conf"
        conf.write_text(f"[host {origin.host}]\nmirrors = {' '.join(front.host for front in mirrors)}\n{more}")
        monkeypatch.setenv("IMGFS_CONFIG", str(conf))
        return mount("--cache", work / "cache", "--deadline", str(deadline), *options, f"{origin.host}/{NAME}:{TAG}")

    return attach


def blobs(front):
    """Requests for parts of blobs that it got."""
    return [entry for entry in front.log if "/blobs/" in entry[1]]


def compare(mounted, image):
    for name in ("usr/noise", "usr/text", "usr/small-017"):
        assert (mounted.directory / name).read_bytes() == image.files[name], name


def test_mirrors_are_asked_first(fronts, attach, image):
    mounted = attach("--no-fill")
    compare(mounted, image)
    origin, *mirrors = fronts
    assert not blobs(origin)
    # Both were measured, and the manifest's meaning is the host's to say.
    assert all(blobs(front) for front in mirrors)
    assert any("/manifests/" in entry[1] for entry in origin.log)
    mounted.unmount()


@pytest.mark.parametrize("fault", ["corrupt", "404", "503", "close", "truncated", "whole", "wrong-range", "stall-body"])
def test_a_mirror_that_does_wrong(fault, fronts, attach, image):
    """One is wrong, the other dead: the host gives the rest, and nothing wrong is read."""
    fronts[1].fault = fault
    fronts[2].kill()
    mounted = attach("--no-fill")
    begin = time.monotonic()
    compare(mounted, image)
    assert time.monotonic() - begin < 60
    assert blobs(fronts[0]) and fronts[1].met.get(fault)
    if fault not in ("404",):
        assert f"mirror http://{fronts[1].host} is passed over" in mounted.log.read_text()
    mounted.unmount()


def test_the_host_dies(fronts, attach, image, work):
    """Mirrors are enough: for reads, for a mount by a tag that this node has not seen, and for a pull."""
    fronts[0].kill()
    mounted = attach("--no-fill")
    compare(mounted, image)
    assert "could not be asked" in machine.imgfs("pull", "--cache", work / "other", f"{fronts[0].host}/{NAME}:{TAG}").stderr
    mounted.unmount()


def test_a_source_when_all_others_fail(fronts, mount, work, image, monkeypatch):
    """A [source] is asked for blobs by digest alone, while the host and its mirrors are dead, lack the blob or have it wrong, and not before."""
    origin, mirror, source = fronts
    conf = work / "imgfs.conf"
    conf.write_text(f"[source backup]\nurl = http://{source.host}\n[host {origin.host}]\nmirrors = {mirror.host}\n")
    monkeypatch.setenv("IMGFS_CONFIG", str(conf))
    mounted = mount("--no-fill", "--cache", work / "cache", "--deadline", "30", f"{origin.host}/{NAME}:{TAG}")
    name = "usr/small-017"
    assert (mounted.directory / name).read_bytes() == image.files[name]
    assert not source.log
    mirror.kill()
    origin.fault = "404"
    name = "usr/text"
    assert (mounted.directory / name).read_bytes() == image.files[name]
    origin.kill()
    compare(mounted, image)
    assert source.log and all(entry[1].startswith("/imgfs/blobs/sha256:") for entry in source.log)
    mounted.unmount()


def test_all_die_and_one_comes_back(fronts, attach, image):
    mounted = attach("--no-fill", deadline=40)
    for front in fronts:
        front.kill()
    fd = os.open(mounted.directory / "usr/noise", os.O_RDONLY)
    pid = os.fork()
    if pid == 0:
        os._exit(0 if os.pread(fd, 100_000, 1_000_000) == image.files["usr/noise"][1_000_000:1_100_000] else 1)
    os.close(fd)
    time.sleep(1)
    fronts[2].revive()
    assert os.waitpid(pid, 0)[1] == 0
    mounted.unmount()


def test_credentials_stay_where_they_belong(fronts, attach, image, work):
    """Each host gets the user of its own section, whatever the command line says of the host itself."""
    origin, first, second = fronts
    (work / "password").write_text("secret\nmore\n")
    origin.user, first.user = "ann:origin", "bob:secret"
    more = f"[host {first.host}]\nuser = bob\npassword-file = {work}/password\n"
    mounted = attach("--no-fill", "--user", "ann:origin", more=more)
    compare(mounted, image)
    assert blobs(first) and blobs(second)

    def users(front):
        return {entry[2].get("Authorization") for entry in front.log}

    def basic(text):
        return "Basic " + base64.b64encode(text.encode()).decode()

    assert users(origin) == {basic("ann:origin")} and users(first) == {basic("bob:secret")} and users(second) == {None}
    mounted.unmount()


@pytest.mark.parametrize("text, sentence", [
    ("[host a:1]\ncolour = red\n", "2: a host has mirrors"), ("[host]\n", "1: a section of a host"),
    ("\n[source x]\nurl = ftp://y\n", "3: a source's url"), ("[host a:1]\nmirrors = a:1\n", "2: a host is no mirror of itself"),
])
def test_wrong_configuration(text, sentence, work):
    conf = work / "imgfs.conf"
    conf.write_text(text)
    done = machine.imgfs("--config", conf, "ls", check=False)
    assert done.returncode == 1 and f"{conf}:{sentence}" in done.stderr


@pytest.fixture(name="node")
def make_node(fronts, work):
    """`imgfs serve` over a cache that has the image of the host whole: what another node has."""
    machine.imgfs("pull", "--quiet", "--cache", work / "theirs", f"{fronts[0].host}/{NAME}:{TAG}")
    with serving(work / "theirs", work / "node.log", "--listen", "127.0.0.1:0", what="--cache") as server:
        yield server


@pytest.fixture(name="beside")
def make_beside(fronts, node, mount, work, monkeypatch):
    """Mounts the image of the host with the node as its mirror."""
    def beside(*options):
        conf = work / "imgfs.conf"
        conf.write_text(f"[host {fronts[0].host}]\nmirrors = {node.address}\n")
        monkeypatch.setenv("IMGFS_CONFIG", str(conf))
        return mount("--cache", work / "ours", "--no-fill", "--deadline", "10", *options, f"{fronts[0].host}/{NAME}:{TAG}")

    return beside


def test_a_nodes_cache_is_a_mirror(fronts, node, beside, image, work):
    """With the host dead another node has it all: the tag, manifest, indexes and chunks."""
    fronts[0].kill()
    mounted = beside()
    compare(mounted, image)
    mounted.unmount()
    manifest = json.loads(machine.imgfs("cache", "--json", "--cache", work / "theirs", "ls").stdout)[0]["manifest"]
    for path in (f"/v2/{NAME}/manifests/{TAG}", f"/v2/{NAME}/manifests/{manifest}"):
        reply, body = node.ask(path)
        assert reply.status == 200 and digest_of(body) == manifest == reply.headers["Docker-Content-Digest"]
    blob = next((work / "theirs/blobs").iterdir()).name
    for path, status in (
        (f"/v2/{NAME}/manifests/other", 404), ("/v2/other/manifests/v1", 404), (f"/v2/{NAME}/manifests/sha256:{'0' * 64}", 404),
        (f"/imgfs/blobs/sha256:{'0' * 64}", 404), (f"/imgfs/blobs/sha256:{blob}", 404), ("/v2/_catalog", 404), (f"/v2/{NAME}/tags/list", 404),
        ("/v2/", 200), ("/healthz", 200),
    ):
        assert node.ask(path)[0].status == status, path
    assert node.ask(f"/imgfs/blobs/sha256:{blob}", Range="bytes=0-99")[0].status == 206
    assert node.ask(f"/v2/any/blobs/sha256:{blob}", Range="bytes=10-10")[0].headers["Content-Range"].startswith("bytes 10-10/")
    assert node.ask(f"/v2/any/blobs/sha256:{blob}", Range="bytes=999999999999-")[0].status == 416


def test_a_node_that_lacks_or_has_wrong(fronts, node, beside, image, work):
    """What it has not, or has rotten, it does not give; the host does."""
    blob = max((work / "theirs/blobs").glob("*/data"), key=lambda path: path.stat().st_size)
    with open(blob, "r+b") as file:
        file.seek(1_000_000)
        file.write(b"rotten")
    digest = f"sha256:{blob.parent.name}"
    assert node.ask(f"/imgfs/blobs/{digest}", Range="bytes=1000000-1000005")[0].status == 404
    assert node.ask(f"/imgfs/blobs/{digest}", Range="bytes=0-0")[0].status == 206
    machine.imgfs("cache", "--cache", work / "theirs", "evict", "--free", "500k", check=False)
    mounted = beside()
    compare(mounted, image)
    assert blobs(fronts[0])
    mounted.unmount()
    assert "rotten" not in mounted.log.read_text()


@pytest.fixture(name="sibling")
def make_sibling(fronts, work):
    """A node that has the image whole and sealed; the build host is gone."""
    machine.imgfs("pull", "--quiet", "--seal", "--cache", work / "theirs", f"{fronts[0].host}/{NAME}:{TAG}")
    for front in fronts:
        front.kill()
    with serving(work / "theirs", work / "sibling.log", "--listen", "127.0.0.1:0", what="--cache") as server:
        yield server


def layers_of(sibling):
    return json.loads(sibling.ask(f"/v2/{NAME}/manifests/{TAG}")[1])["layers"]


def test_a_node_pulls_from_its_sibling_alone(sibling, image, mount, work):
    """And is then as good a sibling itself."""
    reference = f"{sibling.address}/{NAME}:{TAG}"
    machine.imgfs("pull", "--quiet", "--seal", "--cache", work / "ours", reference)
    listed = [json.loads(machine.imgfs("cache", "--json", "--cache", work / cache, "ls").stdout)[0] for cache in ("theirs", "ours")]
    assert listed[0]["manifest"] == listed[1]["manifest"] and listed[1]["sealed"]
    assert sorted(path.name for path in (work / "theirs/configs").iterdir()) == [image.id.removeprefix("sha256:")]
    sibling.process.terminate()
    sibling.process.wait(60)
    mounted = mount("--cache", work / "ours", "--deadline", "10", reference)
    compare(mounted, image)
    mounted.unmount()
    with serving(work / "ours", work / "third.log", "--listen", "127.0.0.1:0", what="--cache") as third:
        machine.imgfs("pull", "--quiet", "--seal", "--cache", work / "third", f"{third.address}/{NAME}:{TAG}")


def test_a_sibling_gives_everything_by_digest(sibling, image):
    """Plain GETs: blobs with their footers, the tars of the layers, the config; and what HTTP has beside them."""
    layers = layers_of(sibling)
    whole = {image.id: image.config, **dict(zip(image.diff_ids, image.layers))}
    for layer in layers:
        blob = layer["annotations"]["containerd.io/snapshot/imgfs.blob.digest"]
        reply, body = sibling.ask(f"/imgfs/blobs/{blob}")
        assert reply.status == 200 and digest_of(body) == blob
        whole[blob] = body
    for digest, data in whole.items():
        for path in (f"/v2/{NAME}/blobs/{digest}", f"/imgfs/blobs/{digest}"):
            reply, body = sibling.ask(path)
            assert reply.status == 200 and body == data and reply.headers["Docker-Content-Digest"] == digest
            reply, body = sibling.ask(path, method="HEAD")
            assert reply.status == 200 and not body and int(reply.headers["Content-Length"]) == len(data)
            assert sibling.ask(path, If_None_Match=f'"{digest}"')[0].status == 304
            reply, body = sibling.ask(path, Range="bytes=-200")
            assert reply.status == 206 and body == data[-200:]
            reply, body = sibling.ask(path, Range="bytes=0-9", If_Range='"other"')
            assert reply.status == 200 and body == data
            assert sibling.ask(path, Range=f"bytes={len(data)}-")[0].status == 416
    reply, _ = sibling.ask(f"/v2/{NAME}/manifests/{TAG}")
    assert sibling.ask(f"/v2/{NAME}/manifests/{TAG}", If_None_Match=reply.headers["ETag"])[0].status == 304


def test_skopeo_copies_from_a_sibling(sibling, image, work):
    need("skopeo")
    run("skopeo", "copy", "--src-tls-verify=false", f"docker://{sibling.address}/{NAME}:{TAG}", f"dir:{work}/copy")
    have = {path.name for path in (work / "copy").iterdir()}
    for digest in (image.id, *image.diff_ids):
        assert digest.removeprefix("sha256:") in have and digest_of((work / "copy" / digest.removeprefix("sha256:")).read_bytes()) == digest


def test_a_sibling_that_rots_or_is_evicted(sibling, image, work):
    """A transfer that meets rot is cut, never wrong; what is not whole is not offered whole."""
    blob = max((work / "theirs/blobs").glob("*/data"), key=lambda path: path.stat().st_size)
    layer = next(layer for layer in layers_of(sibling) if blob.parent.name in json.dumps(layer))
    digest = f"sha256:{blob.parent.name}"
    assert sibling.ask(f"/imgfs/blobs/{digest}", method="HEAD")[0].status == 200
    with open(blob, "r+b") as file:
        file.seek(1_000_000)
        file.write(b"rotten")
    ends = set()
    for path in (f"/v2/{NAME}/blobs/{layer['digest']}", f"/imgfs/blobs/{digest}", f"/imgfs/blobs/{digest}"):
        try:
            ends.add(sibling.ask(path)[0].status)
        except http.client.IncompleteRead as cut:
            assert b"rotten" not in cut.partial
            ends.add("cut")
    assert "cut" in ends and ends <= {"cut", 404}  # once found, the rot is known for a second
    machine.imgfs("cache", "--cache", work / "theirs", "verify", check=False)
    end = time.monotonic() + 60
    while sibling.ask(f"/imgfs/blobs/{digest}", method="HEAD")[0].status != 404:
        assert time.monotonic() < end
        time.sleep(0.2)
    assert sibling.ask(f"/imgfs/blobs/{digest}")[0].status == 404
    assert sibling.ask(f"/v2/{NAME}/blobs/{image.diff_ids[0]}", method="HEAD")[0].status == 404
    assert sibling.ask(f"/imgfs/blobs/{digest}", Range="bytes=0-99")[0].status == 206
