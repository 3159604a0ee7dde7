"""A mounted image is the tree that umoci unpacks from it: every name with all it has, every byte."""
import os
import signal
import stat
import sys
import tarfile

import pytest

import machine
import tree
from images import Image, Layout, tar_of

IMAGES = ["inv-v1", "inv-v2", "py-v1", "node-v1"]


def test_invoker_has_what_can_go_wrong(unpacked_scan):
    """The comparison below means something: the reference has many names, links, modes that matter."""
    entries = unpacked_scan("inv-v1")
    types = {fields["type"] for fields in entries.values()}
    assert len(entries) > 5000
    assert {stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK} <= types
    assert any(fields["mode"] & stat.S_ISUID for fields in entries.values())
    assert any("first" in fields for fields in entries.values())


@pytest.mark.parametrize("tag", IMAGES)
def test_from_a_store(tag, store, mount, unpacked_scan):
    mounted = mount("--store", store.path, store.add(tag))
    found = tree.compare(unpacked_scan(tag), tree.scan_apart(mounted.directory))
    assert not found, "\n".join(found[:20])
    mounted.unmount()


@pytest.mark.parametrize("tag", IMAGES)
def test_over_http(tag, store, serve, mount_http, unpacked_scan):
    name = store.add(tag)
    mounted = mount_http(serve().host, name)
    found = tree.compare(unpacked_scan(tag), tree.scan_apart(mounted.directory))
    assert not found, "\n".join(found[:20])
    mounted.unmount()


def link(name, target, kind=tarfile.SYMTYPE):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def directory(name):
    info = tarfile.TarInfo(name)
    info.type, info.mode = tarfile.DIRTYPE, 0o755
    return info


LOOK = """
import hashlib, os, sys
names, size, seen = 0, 0, hashlib.sha256()
for directory, _, files in os.walk(os.fsencode(sys.argv[1])):
    names += 1 + len(files)
for directory, _, files in os.walk(os.fsencode(sys.argv[1])):
    for path in [directory, *(os.path.join(directory, name) for name in files)]:
        found = os.lstat(path)
        seen.update(repr((path, found)).encode())
        if os.path.isfile(path) and not os.path.islink(path) and found.st_size < 16384:
            file = os.open(path, os.O_RDONLY)  # open() would ask each for a terminal's settings, and the kernel the server
            data = os.read(file, 16384)
            os.close(file)
            size += len(data)
            seen.update(data)
print(names, size, seen.hexdigest())
"""


def test_what_is_known_needs_no_server(store, mount):
    """Names, attributes and bytes that were asked for once are the kernel's alone: the server is stopped, and all goes on."""
    mounted = mount("--store", store.path, store.add("inv-v1"))

    def look():
        """In a process of its own, which can be ended when it waits for the server."""
        return machine.run(sys.executable, "-c", LOOK, mounted.directory, timeout=60).stdout

    first = look()
    server = mounted.server()
    os.kill(server, signal.SIGSTOP)
    try:
        again = look()
    finally:
        os.kill(server, signal.SIGCONT)
    assert again == first and int(first.split()[0]) > 5000 and int(first.split()[1]) > 1_000_000
    mounted.unmount()


def test_hard_links_to_lower_layers(work, mount):
    """Their targets are paths in what lies below, symlinks among the parents included."""
    base = tar_of(directory("./"), directory("usr"), directory("usr/lib"), ("usr/lib/x", b"hello"), link("usr/lib/last", "x"),
                  link("lib", "usr/lib"), link("abs", "/usr/lib"), link("usr/up", "../abs"), link("usr/out", "../../../abs/."))
    targets = ["usr/lib/x", "lib/x", "abs/x", "usr/up/x", "usr/out/x", "lib/last"]
    image = Image(base, tar_of(*(link(f"to-{number}", target, tarfile.LNKTYPE) for number, target in enumerate(targets))))
    layout = Layout(work / "layout")
    layout.add(layout.manifest(image), "t")
    machine.run("umoci", "raw", "unpack", "--image", f"{layout.path}:t", work / "unpacked")
    machine.imgfs("export", "--store", work / "store", "--tag", "x:1", f"oci:{layout.path}")
    mounted = mount("--store", work / "store", "x:1")
    reference = tree.scan_apart(work / "unpacked")
    assert reference["to-4"]["links"] == 6
    found = tree.compare(reference, tree.scan_apart(mounted.directory))
    assert not found, "\n".join(found)
    mounted.unmount()


def test_compare_sees_differences(work):
    """The comparison itself: every kind of difference is one sentence."""
    reference, other = work / "reference", work / "other"
    for root in (reference, other):
        root.mkdir()
        (root / "same").write_text("same")
        (root / "text").write_text("one")
        (root / "one").write_text("linked")
        (root / "two").hardlink_to(root / "one")
        (root / "link").symlink_to("same")
    (reference / "only").write_text("")
    (other / "more").write_text("")
    (other / "text").write_text("two")
    (other / "link").unlink()
    (other / "link").symlink_to("text")
    (other / "two").unlink()
    (other / "two").write_text("linked")
    (other / "same").chmod(0o4755)
    found = tree.compare(tree.scan_apart(reference), tree.scan_apart(other), lambda path, field: field == "mtime")
    assert [sentence.split(":")[:2] for sentence in found] == [
        ["link", " target"], ["more", " not in the reference"], ["one", " first"], ["one", " links"],
        ["only", " missing"], ["same", " mode"], ["text", " sha256"], ["two", " first"], ["two", " links"],
    ]
