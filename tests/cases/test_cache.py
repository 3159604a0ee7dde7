"""`imgfs cache`: what a node has fetched, and what of it can go while images are in use."""
import json
import os
import time

import pytest

import machine
import tree
from namespace import alone


@pytest.fixture(name="cache")
def make_cache(work):
    def cache(*arguments):
        done = machine.run(*alone(work), machine.IMGFS, "cache", "--json", "--cache", work / "cache", *arguments)
        return json.loads(done.stdout)

    return cache


def make_old(directory, seconds=7200):
    """As if all that is there had been got two hours ago."""
    then = time.time() - seconds
    for path in directory.rglob("*"):
        os.utime(path, (then, then), follow_symlinks=False)


def test_list_size_and_prune(store, serve, work, cache, mount_http, unpacked_scan):
    old, new = store.add("inv-v1"), store.add("inv-v2")
    server = serve()
    reference = f"{server.host}/case/inv:latest"
    machine.imgfs("tag", "--store", store.path, old, "case/inv:latest")
    machine.imgfs("pull", "--quiet", "--cache", work / "cache", reference)
    first = cache("ls")
    assert [(row["reference"], row["complete"]) for row in first] == [(reference, True)] and first[0]["totalBytes"] > 300_000_000
    sizes = cache("size")
    assert sizes["blobs"] >= first[0]["totalBytes"] and sizes["total"] == sum(sizes.values()) - sizes["total"]
    text = machine.imgfs("cache", "--cache", work / "cache", "ls").stdout
    assert "100%" in text and reference in text

    # The tag moves on. What it meant before is in use, and has nobody else's name.
    mounted = mount_http(server.host, "case/inv:latest")
    machine.imgfs("tag", "--store", store.path, new, "case/inv:latest")
    machine.imgfs("pull", "--quiet", "--cache", work / "cache", reference)
    make_old(work / "cache")
    assert cache("prune", "--dry-run")["objects"] == 0
    assert not tree.compare(unpacked_scan("inv-v1"), tree.scan_apart(mounted.directory))
    mounted.unmount()

    # Nobody uses it any more: it goes, but not what both have, nor what is young.
    dry = cache("prune", "--dry-run")
    assert dry["objects"] > 0 and cache("size")["total"] > sizes["total"]
    os.utime(work / "cache/manifests" / first[0]["manifest"].removeprefix("sha256:"))
    assert cache("prune", "--dry-run")["objects"] == dry["objects"] - 1
    assert cache("prune", "--keep", "5", "--dry-run")["objects"] == 0
    make_old(work / "cache")
    assert cache("prune") == dry | {"dryRun": False}
    again = mount_http(server.host, "case/inv:latest")
    before = server.process
    assert not tree.compare(unpacked_scan("inv-v2"), tree.scan_apart(again.directory))
    assert before and cache("ls")[0]["complete"]

    # All of it goes but what is mounted; then that too, under the mount, which lives on what its server has open.
    assert cache("prune", "--all")["objects"] == 0 and not cache("ls")
    os.rename(work / "cache", work / "elsewhere")
    assert not tree.compare(unpacked_scan("inv-v2"), tree.scan_apart(again.directory))
    again.unmount()
    os.rename(work / "elsewhere", work / "cache")
    # Written to by a clock that has been put back since: too young for a prune, but not for one of all.
    make_old(work / "cache", -3600)
    assert cache("prune")["objects"] == 0
    assert cache("prune", "--all")["bytes"] > 300_000_000
    assert cache("size")["total"] == 0
    machine.imgfs("rm", "--store", store.path, "case/inv:latest")


def test_what_is_no_object_stays(cache, work, tmp_path):
    """Files that a cache does not have are passed over, and a directory that is none is refused."""
    (work / "cache").mkdir()
    (work / "cache/imgfs-cache").write_text("imgfs cache 1\n")
    for path in ("blobs/README", "manifests/x", "tags/host/name/_tags/..x", "tags/file"):
        (work / "cache" / path).parent.mkdir(parents=True, exist_ok=True)
        (work / "cache" / path).write_text("hello")
    assert cache("ls") == [] and cache("prune", "--all")["objects"] == 0
    assert (work / "cache/blobs/README").exists()
    # As many parts as a name can have: a tag that is not seen would lose its image.
    name = "/".join("a" * 128)
    (work / f"cache/tags/host:1/{name}/_tags").mkdir(parents=True)
    (work / f"cache/tags/host:1/{name}/_tags/v1").write_text(f"sha256:{'0' * 64}\n")
    assert [row["reference"] for row in cache("ls")] == [f"host:1/{name}:v1"]
    (tmp_path / "file").write_text("x")
    done = machine.imgfs("cache", "--cache", tmp_path, "prune", "--all", check=False)
    assert done.returncode == 1 and "is not an imgfs cache" in done.stderr and (tmp_path / "file").exists()


@pytest.mark.parametrize("action", [("ls",), ("size",), ("verify",), ("evict", "--free", "1M"), ("prune",), ("pin", "h:1/a:b"), ("unpin", "h:1/a:b")])
def test_a_cache_that_is_not_there(action, work):
    """A mistyped directory is named, and not made; nor is one that is empty made a cache."""
    done = machine.imgfs("cache", "--cache", work / "cahce", *action, check=False)
    assert done.returncode == 3 and f"there is no cache {work}/cahce;" in done.stderr and not (work / "cahce").exists()
    (work / "cahce").mkdir()
    done = machine.imgfs("cache", "--cache", work / "cahce", *action, check=False)
    assert done.returncode == 3 and f"there is no cache {work}/cahce;" in done.stderr and not os.listdir(work / "cahce")


@pytest.mark.parametrize("arguments", [(), ("nothing",), ("ls", "--all"), ("prune", "--keep", "x"), ("ls", "size"), ("pin", "nohost"), ("unpin", "sha256:0")])
def test_wrong_usage(arguments, work):
    assert machine.imgfs("cache", "--cache", work / "cache", *arguments, check=False).returncode == 2
