"""An image from export to a running service, and what happens to it when the build host goes."""
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import machine
import tree

PROBE = Path(__file__).with_name("probe.py")
BLOB_DIGEST = "containerd.io/snapshot/imgfs.blob.digest"


def probe(path, seconds=60):
    """Reads a file past the page cache: its digest and size, or its errno."""
    done = machine.run(sys.executable, PROBE, path, timeout=seconds)
    return json.loads(done.stdout)


def whole(reference, path):
    return {"sha256": reference[path]["sha256"], "size": reference[path]["size"]}


def jars(reference):
    """The libraries of the invoker, largest first: files of many chunks that share none."""
    found = [path for path in reference if path.startswith("opt/invoker/lib/") and path.endswith(".jar")]
    return sorted(found, key=lambda path: -reference[path]["size"])


def layers_of(store, name):
    """The annotated layers of a manifest in the store."""
    repository, _, tag = name.partition(":")
    manifest = json.loads((store.path / "repositories" / repository / "_manifests" / tag).read_text())
    return manifest["layers"]


@pytest.mark.parametrize("tag", ["inv-v1", "inv-v2"])
def test_lz4_gives_back_the_tar(tag, store, images):
    layers = layers_of(store, store.add(tag))
    wanted = [line.split()[0] for line in (images / "layers" / tag / "list").read_text().splitlines()]
    assert [layer["digest"] for layer in layers] == [f"sha256:{digest}" for digest in wanted]
    for layer in layers:
        blob = layer["annotations"][BLOB_DIGEST].removeprefix("sha256:")
        with subprocess.Popen(["lz4", "-dc", store.path / "blobs/sha256" / blob], stdout=subprocess.PIPE) as lz4:
            summed = machine.run("sha256sum", stdin=lz4.stdout, timeout=300)
        assert lz4.returncode == 0
        assert f"sha256:{summed.stdout.split()[0]}" == layer["digest"]


def test_second_mount_fetches_nothing(store, serve, tap, mount_http, unpacked_scan):
    name, counted = store.add("inv-v1"), tap(serve())
    first = mount_http(counted.host, name)
    assert not tree.compare(unpacked_scan("inv-v1"), tree.scan_apart(first.directory))
    first.unmount()
    assert counted.blob_requests(), "the forwarder sees what is fetched"

    counted.requests.clear()
    second = mount_http(counted.host, name)
    assert not tree.compare(unpacked_scan("inv-v1"), tree.scan_apart(second.directory))
    second.unmount()
    assert counted.blob_requests() == []


def test_first_mount_fetches_little(store, serve, tap, mount_http, unpacked_scan):
    """Mounting and reading one small file moves a small part of the image."""
    name, counted = store.add("inv-v1"), tap(serve())
    reference = unpacked_scan("inv-v1")
    mounted = mount_http(counted.host, name)
    assert probe(mounted.directory / "etc/passwd") == whole(reference, "etc/passwd")
    mounted.unmount()
    assert counted.bytes_down < sum(fields.get("size", 0) for fields in reference.values()) / 20


@pytest.mark.parametrize("goes", [signal.SIGSTOP, signal.SIGKILL], ids=["stalls", "dies"])
def test_build_host_goes_and_returns(goes, store, serve, mount_http, unpacked_scan):
    name, server = store.add("inv-v1"), serve()
    reference = unpacked_scan("inv-v1")
    present, absent, *_ = jars(reference)
    mounted = mount_http(server.host, name, "--deadline", "3")
    assert probe(mounted.directory / present) == whole(reference, present)

    server.signal(goes)
    assert probe(mounted.directory / absent, 40) == {"errno": "EIO"}
    assert probe(mounted.directory / present) == whole(reference, present)

    if goes == signal.SIGSTOP:
        server.signal(signal.SIGCONT)
    else:
        serve(port=server.port)
    assert probe(mounted.directory / absent) == whole(reference, absent)
    mounted.unmount()


@pytest.mark.parametrize("source", ["store", "http"])
def test_service_gets_ready(source, store, serve, mount, mount_http, container):
    """The invoker's service starts in a container over the mount, and all its parts work."""
    name = store.add("inv-v1")
    mounted = mount("--store", store.path, name) if source == "store" else mount_http(serve().host, name)
    service = container(mounted.directory, "inv-v1")
    service.start()
    lines = service.lines_until("READY")
    assert service.wait() == 0
    assert not [line for line in lines if "FAIL" in line]
    service.close()
    mounted.unmount()
