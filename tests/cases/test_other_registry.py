"""A registry of somebody else's, with images that imgfs did not export."""
import contextlib
import json
import socket
import urllib.request

import pytest

import machine
from endpoint import Image, need, started


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(name="registry")
def make_registry(work):
    """Debian's docker-registry on a free port; its address."""
    need("docker-registry", "skopeo")
    port = free_port()
    config = work / "registry.json"
    config.write_text(json.dumps({
        "version": 0.1, "storage": {"filesystem": {"rootdirectory": str(work / "registry")}}, "http": {"addr": f"127.0.0.1:{port}"},
    }))

    def answers():
        with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/", timeout=5) as answer:
            return answer.status == 200
        return False

    with started(["docker-registry", "serve", config], answers, work / "registry.log"):
        yield f"127.0.0.1:{port}"


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
