"""A registry of somebody else's, with images that imgfs did not export."""
import json
import urllib.request

import pytest

import machine
import registries
from endpoint import Image


@pytest.fixture(name="registry")
def make_registry(work):
    with registries.docker_registry(work) as address:
        yield address


@pytest.mark.parametrize("kind", ["v2s2", "oci", "list"])
def test_what_is_no_image_of_imgfs(kind, registry, work):
    """An ordinary image, as docker or a builder pushes it, and a list of images: the sentence says what it is, and what to do."""
    archive, tag = work / "image.tar", f"{registry}/plain:v1"
    Image(archive)
    machine.run("skopeo", "copy", "-q", "--format", "v2s2" if kind == "list" else kind, "--dest-tls-verify=false",
                f"docker-archive:{archive}", f"docker://{tag}")
    if kind == "list":
        accept = "application/vnd.docker.distribution.manifest.v2+json"
        url = f"http://{registry}/v2/plain/manifests/"
        with urllib.request.urlopen(urllib.request.Request(url + "v1", headers={"Accept": accept})) as answer:
            entry = {"mediaType": accept, "digest": answer.headers["Docker-Content-Digest"], "size": len(answer.read())}
        entry["platform"] = {"os": "linux", "architecture": "arm64"}
        kind_of = "application/vnd.docker.distribution.manifest.list.v2+json"
        body = json.dumps({"schemaVersion": 2, "mediaType": kind_of, "manifests": [entry]}).encode()
        put = urllib.request.Request(url + "v1", body, {"Content-Type": kind_of}, method="PUT")
        assert urllib.request.urlopen(put).status == 201
    (work / "a").mkdir()
    for words in (["mount", tag, work / "a"], ["pull", tag]):
        done = machine.imgfs(*words, "--cache", work / "cache", check=False)
        assert done.returncode == 1 and "not an imgfs image; make one of it with `imgfs export`" in done.stderr, done.stderr
    assert not machine.mount_points(work / "a")
