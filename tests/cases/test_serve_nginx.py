"""nginx over a store, by tools/deploy/nginx/imgfs.conf: imgfs mounts from it, and nothing else of the store can be read."""
import json
import shutil

import pytest

import registries
from endpoint import NAME, TAG, Server, digest_of, need
from endpoint import make_image, make_place  # noqa: F401 # pylint: disable=unused-import # fixtures


@pytest.fixture(name="server", scope="module")
def make_server(place, image):  # pylint: disable=unused-argument # the image fills the store
    with registries.nginx(place / "store", place) as address:
        yield Server(None, address)


def test_manifests_and_blobs(server, place):
    reply, body = server.ask(f"/v2/{NAME}/manifests/{TAG}")
    assert (reply.status, reply.headers["Content-Type"]) == (200, "application/vnd.oci.image.manifest.v1+json")
    by_digest, same = server.ask(f"/v2/{NAME}/manifests/{digest_of(body)}")
    assert (by_digest.status, same) == (200, body)
    assert by_digest.headers["Docker-Content-Digest"] == digest_of(body)
    assert by_digest.headers["Content-Type"] == reply.headers["Content-Type"]
    blob = json.loads(body)["layers"][0]["annotations"]["containerd.io/snapshot/imgfs.blob.digest"]
    whole = (place / "store/blobs/sha256" / blob.removeprefix("sha256:")).read_bytes()
    for path in (f"/v2/{NAME}/blobs/{blob}", f"/imgfs/blobs/{blob}"):
        part, bytes_of_it = server.ask(path, Range="bytes=1000-2999")
        assert (part.status, part.headers["Content-Range"]) == (206, f"bytes 1000-2999/{len(whole)}")
        assert bytes_of_it == whole[1000:3000]
    assert server.ask("/v2/")[1] == b"{}"


def test_nothing_else_is_read(server, place, image):
    secret = place / "store/tls"
    secret.mkdir()
    (secret / "ca.key").write_text("secret")
    layer = image.diff_ids[0].removeprefix("sha256:")
    paths = ["/", "/imgfs-store", "/tls/ca.key", f"/layers/{layer}", "/blobs/", "/frames/", "/repositories/", f"/v2/{NAME}/manifests/",
             f"/v2/{NAME}/manifests/none", f"/v2/{NAME}/manifests/..%2f..%2f..%2ftls%2fca.key", "/v2/../tls/ca.key",
             "/v2/a/manifests/../../../tls/ca.key", "/v2/%2e%2e/%2e%2e/tls/manifests/ca.key", f"/imgfs/blobs/{image.diff_ids[0]}",
             f"/v2/{NAME}/blobs/sha256:..", f"/v2/{NAME.partition('/')[0]}/manifests/{TAG}"]
    for path in paths:
        reply, body = server.ask(path)
        assert reply.status in (400, 404), path
        assert b"secret" not in body
    shutil.rmtree(secret)
    for method in ("POST", "PUT", "DELETE"):
        assert server.ask(f"/v2/{NAME}/manifests/{TAG}", method)[0].status in (403, 405)


@pytest.mark.parametrize("by", ["tag", "digest"])
def test_mount(server, place, image, mount, by):
    need("fusermount3")
    digest = digest_of(server.ask(f"/v2/{NAME}/manifests/{TAG}")[1])
    name = f"{NAME}:{TAG}" if by == "tag" else f"{NAME}@{digest}"
    one = mount("--cache", place / f"cache-{by}", f"{server.address}/{name}")
    for path, data in image.files.items():
        assert (one.directory / path).read_bytes() == data
    one.unmount()
    again = mount("--cache", place / f"cache-{by}", f"{server.address}/{name}")  # what the tag means is asked again
    assert (again.directory / "usr/text").read_bytes() == image.files["usr/text"]
    again.unmount()
    assert f"manifests/{TAG if by == 'tag' else digest}" in (place / "nginx-access.log").read_text()
