"""`imgfs serve` to clients that know nothing of imgfs: skopeo, dockerd, containerd. Each must end up with the original image."""
import http.client
import json
import random
import shutil
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from endpoint import NAME, TAG, accepts, chain_id, digest_of, need, reference, run, serving, started, unmount_below
from endpoint import make_image, make_place  # noqa: F401 # pylint: disable=unused-import # fixtures
from machine import IMGFS, wait_until


@pytest.fixture(name="server", scope="module")
def make_server(place, image):  # pylint: disable=unused-argument # the image fills the store
    with serving(place / "store", place / "serve.log", "--listen", "127.0.0.1:0") as server:
        yield server


def test_manifest_names_the_original(server, image):
    reply, body = server.ask(f"/v2/{NAME}/manifests/{TAG}")
    assert reply.status == 200
    assert reply.headers["Content-Type"] == "application/vnd.oci.image.manifest.v1+json"
    assert reply.headers["Docker-Content-Digest"] == digest_of(body)
    assert reply.headers["Server"] is None
    manifest = json.loads(body)
    assert manifest["config"]["digest"] == image.id
    assert [layer["digest"] for layer in manifest["layers"]] == image.diff_ids
    by_digest, same = server.ask(f"/v2/{NAME}/manifests/{digest_of(body)}")
    assert (by_digest.status, same) == (200, body)


def test_tar_is_made_bit_for_bit(server, image):
    for diff_id, layer in zip(image.diff_ids, image.layers):
        reply, body = server.ask(f"/v2/{NAME}/blobs/{diff_id}")
        assert (reply.status, int(reply.headers["Content-Length"])) == (200, len(layer))
        assert body == layer


def test_ranges_of_tar_and_blob(server, place, image):
    _, manifest = server.ask(f"/v2/{NAME}/manifests/{TAG}")
    blob = json.loads(manifest)["layers"][0]["annotations"]["containerd.io/snapshot/imgfs.blob.digest"]
    stored = (place / "store/blobs/sha256" / blob.removeprefix("sha256:")).read_bytes()
    chance = random.Random(2)
    for digest, whole in ((image.diff_ids[0], image.layers[0]), (blob, stored)):
        for _ in range(50):
            first = chance.randrange(len(whole))
            last = min(first + chance.choice([0, 1000, 300000, 2000000]), len(whole) - 1)
            reply, body = server.ask(f"/imgfs/blobs/{digest}", Range=f"bytes={first}-{last}")
            assert (reply.status, reply.headers["Content-Range"]) == (206, f"bytes {first}-{last}/{len(whole)}")
            assert body == whole[first:last + 1]


def test_resumed_download(server, place, image):
    """What curl has half of, it gets the rest of."""
    need("curl")
    part = place / "part.tar"
    part.write_bytes(image.layers[0][:1_234_567])
    run("curl", "-sSf", "-C", "-", "-o", part, f"http://{server.address}/imgfs/blobs/{image.diff_ids[0]}")
    assert part.read_bytes() == image.layers[0]


def test_nothing_is_written(server):
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        reply, _ = server.ask(f"/v2/{NAME}/blobs/uploads/", method)
        assert (reply.status, reply.headers["Allow"]) == (405, "GET, HEAD")


def test_nothing_outside_the_store_is_read(server):
    for path in ("/../imgfs-store", "/v2/../imgfs-store", f"/v2/{NAME}/blobs/../../../imgfs-store", "/imgfs/blobs/%2e%2e",
                 "/v2/%2e%2e/%2e%2e/etc/manifests/passwd", f"/v2/{NAME}/manifests/..%2f..%2fimgfs-store"):
        reply, body = server.ask(path)
        assert reply.status in (400, 404), path
        assert json.loads(body)["errors"][0]["code"] in ("UNSUPPORTED", "NAME_INVALID", "MANIFEST_UNKNOWN", "DIGEST_INVALID")


def layout_image(path):
    """Config digest and layer digests of the one image in an OCI layout."""
    index = json.loads((path / "index.json").read_text())
    manifest = json.loads((path / "blobs/sha256" / index["manifests"][0]["digest"].removeprefix("sha256:")).read_text())
    return manifest


def test_skopeo_to_oci_layout(server, place, image):
    need("skopeo")
    run("skopeo", "copy", "--src-tls-verify=false", f"docker://{reference(server)}", f"oci:{place}/oci:{TAG}")
    manifest = layout_image(place / "oci")
    assert manifest["config"]["digest"] == image.id
    for layer, whole in zip(manifest["layers"], image.layers):
        data = (place / "oci/blobs/sha256" / layer["digest"].removeprefix("sha256:")).read_bytes()
        if layer["mediaType"].endswith("gzip"):
            data = subprocess.run(["gzip", "-dc"], input=data, capture_output=True, check=True).stdout
        assert data == whole


def test_skopeo_to_directory(server, place, image):
    need("skopeo")
    run("skopeo", "copy", "--src-tls-verify=false", f"docker://{reference(server)}", f"dir:{place}/dir")
    manifest = json.loads((place / "dir/manifest.json").read_text())
    assert manifest["config"]["digest"] == image.id
    assert [layer["digest"] for layer in manifest["layers"]] == image.diff_ids
    for diff_id, layer in zip(image.diff_ids, image.layers):
        assert (place / "dir" / diff_id.removeprefix("sha256:")).read_bytes() == layer


def test_skopeo_lists_tags(server):
    need("skopeo")
    tags = json.loads(run("skopeo", "list-tags", "--tls-verify=false", f"docker://{server.address}/{NAME}"))
    assert tags["Tags"] == [TAG]


def test_docker_pull(server, place, image):
    need("dockerd", "docker", "containerd")
    home, socket_path = place / "docker", place / "docker.sock"
    command = ["dockerd", "--data-root", home / "data", "--exec-root", home / "exec", "-H", f"unix://{socket_path}",
               "--pidfile", home / "pid", "--bridge=none", "--iptables=false", "--ip6tables=false"]
    home.mkdir()
    docker = ["docker", "--config", home / "config", "-H", f"unix://{socket_path}"]
    with started(command, lambda: accepts(socket_path), place / "dockerd.log"):
        said = run(*docker, "pull", reference(server))
        found = json.loads(run(*docker, "image", "inspect", reference(server)))[0]
    unmount_below(home)
    _, manifest = server.ask(f"/v2/{NAME}/manifests/{TAG}")
    assert digest_of(manifest) in said
    assert found["Id"] == image.id
    assert found["RootFS"]["Layers"] == image.diff_ids


def test_containerd_pull(server, place, image):
    need("containerd", "ctr")
    home, socket_path = place / "containerd", place / "containerd.sock"
    home.mkdir()
    (home / "config.toml").write_text(
        f'version = 2\nroot = "{home}/root"\nstate = "{home}/state"\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n'
        f'[grpc]\naddress = "{socket_path}"\n'
    )
    ctr = ["ctr", "--address", socket_path]
    with started(["containerd", "--config", home / "config.toml"], lambda: accepts(socket_path), place / "containerd.log"):
        run(*ctr, "images", "pull", "--plain-http", "--snapshotter", "native", reference(server))
        images = run(*ctr, "images", "ls").splitlines()
        digest = next(line for line in images if line.startswith(reference(server))).split()[2]
        manifest = json.loads(run(*ctr, "content", "get", digest))
        snapshots = run(*ctr, "snapshots", "--snapshotter", "native", "ls")
    assert manifest["config"]["digest"] == image.id
    assert [layer["digest"] for layer in manifest["layers"]] == image.diff_ids
    assert chain_id(image.diff_ids) in snapshots


def test_corrupt_blob_cuts_the_transfer(place, image):
    """One bit of the store rots: the client sees a short transfer, the log says where."""
    store = place / "rotten"
    shutil.copytree(place / "store", store)
    record = json.loads((store / "layers" / image.diff_ids[0].removeprefix("sha256:")).read_text())
    path = store / "blobs/sha256" / record["blob"].removeprefix("sha256:")
    path.chmod(0o644)
    data = bytearray(path.read_bytes())
    data[record["indexOffset"] // 2] ^= 1
    path.write_bytes(data)
    log = place / "rotten.log"
    with serving(store, log, "--listen", "127.0.0.1:0") as server:
        connection = http.client.HTTPConnection(server.host, server.port, timeout=30)
        connection.request("GET", f"/imgfs/blobs/{image.diff_ids[0]}")
        reply = connection.getresponse()
        with pytest.raises(http.client.IncompleteRead) as cut:
            reply.read()
        connection.close()
        assert image.layers[0].startswith(cut.value.partial)
        assert server.ask("/healthz")[0].status == 200
    lines = [line for line in log.read_text().splitlines() if " error " in line]
    assert len(lines) == 1
    assert f"blob {record['blob']} is corrupt: chunk " in lines[0]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_ends_it(place, image, number):  # pylint: disable=unused-argument
    """Also in the middle of a transfer, and with idle connections."""
    with serving(place / "store", place / "signal.log", "--listen", "127.0.0.1:0") as server:
        idle = socket.create_connection((server.host, server.port))
        busy = socket.create_connection((server.host, server.port))
        busy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        busy.sendall(f"GET /imgfs/blobs/{image.diff_ids[0]} HTTP/1.1\r\nHost: case\r\n\r\n".encode())
        assert busy.recv(15) == b"HTTP/1.1 200 OK"
        server.process.send_signal(number)
        assert server.process.wait(60) == 0
        idle.close()
        busy.close()


def test_listens_on_ipv6(place, image):  # pylint: disable=unused-argument
    if not socket.has_ipv6 or not Path("/proc/net/if_inet6").exists():
        pytest.skip("no IPv6 here")
    with serving(place / "store", place / "six.log", "--listen", "[::1]:0") as server:
        assert server.address.startswith("[::1]:")
        assert server.ask("/v2/")[1] == b"{}"


def test_access_log(place, image):
    log = place / "access.log"
    with serving(place / "store", place / "logged.log", "--listen", "127.0.0.1:0", "--access-log", log) as server:
        server.ask(f"/imgfs/blobs/{image.diff_ids[1]}")
        wait_until(log.read_text, "a line in the log")
    words = log.read_text().split()
    assert words[2:6] == ["GET", f"/imgfs/blobs/{image.diff_ids[1]}", "200", str(len(image.layers[1]))]
    assert words[7] == "ok"


def refused(place, *options):
    done = subprocess.run([IMGFS, "serve", "--store", place / "store", *options], capture_output=True, text=True, timeout=20,
                          check=False)
    return done.returncode, done.stderr


def test_other_machines_want_plain_http(place, image):  # pylint: disable=unused-argument
    status, said = refused(place, "--listen", "0.0.0.0:0")
    assert status == 2 and "--plain-http" in said
    with serving(place / "store", place / "plain.log", "--listen", "0.0.0.0:0", "--plain-http") as server:
        assert server.address.startswith("0.0.0.0:")


def test_port_in_use(server, place):
    status, said = refused(place, "--listen", server.address)
    assert status == 1 and server.address in said and "in use" in said
