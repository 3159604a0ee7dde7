"""Random trees in layers: docker's overlay2, umoci and imgfs agree on every field of every name.

IMGFS_RANDOM_TREES sets how many trees are made (200 by default), IMGFS_RANDOM_SEED the first seed. A tree is made again alone by these
two: IMGFS_RANDOM_TREES=1 IMGFS_RANDOM_SEED=N.
"""
import json
import os
import stat

import pytest

import machine
import random_trees
import tree
from docker import Docker

TREES = int(os.environ.get("IMGFS_RANDOM_TREES", "200"))
SEED = int(os.environ.get("IMGFS_RANDOM_SEED", "1"))
GROUP = 25  # trees an image


@pytest.fixture(scope="module")
def engine(session_dir):
    docker = Docker(session_dir / "docker")
    yield docker
    docker.stop()


def groups():
    """First seed and number of trees of each image."""
    return [(first, min(GROUP, SEED + TREES - first)) for first in range(SEED, SEED + TREES, GROUP)]


def normalised(scan):
    """Groups of names of one inode as what can be seen of them: a name alone is no group, whatever the link count."""
    sizes = {}
    for fields in scan.values():
        first = fields.get("first")
        sizes[first] = sizes.get(first, 0) + 1
    for fields in scan.values():
        if "first" in fields and sizes[fields["first"]] == 1:
            del fields["first"]
    return scan


class Oracles:
    """One image, unpacked by docker and by umoci."""

    def __init__(self, work, engine, image):
        self.work, self.engine, self.image = work, engine, image
        self.layout = work / "layout"
        random_trees.write_layout(self.layout, [image])
        self.merged = work / "docker"

    def umoci(self):
        root = self.work / "umoci"
        machine.run("umoci", "raw", "unpack", "--image", f"{self.layout}:{self.image.name}", root, timeout=300)
        return tree.scan(str(root))

    def docker(self):
        """The layers that docker made, mounted as it mounts them for a container, but read-only and above nothing."""
        archive, name, empty = self.work / "archive.tar", f"random:{self.image.name}", self.work / "empty"
        random_trees.write_archive(archive, [self.image])
        self.engine.run("load", "--input", archive)
        archive.unlink()
        data = json.loads(self.engine.run("image", "inspect", name).stdout)[0]["GraphDriver"]["Data"]
        lower = [data["UpperDir"], *data.get("LowerDir", "").split(":")]
        for path in (empty, self.merged):
            path.mkdir()
        directories = ":".join(path for path in [*lower, str(empty)] if path)
        machine.run("mount", "-t", "overlay", "-o", f"ro,lowerdir={directories}", "overlay", self.merged)
        try:
            return tree.scan(str(self.merged))
        finally:
            machine.run("umount", self.merged)
            self.engine.run("image", "rm", name)

    def imgfs(self):
        store, mounted = self.work / "store", self.work / "imgfs"
        machine.imgfs("export", "--store", store, "--tag", "random:1", f"oci:{self.layout}:{self.image.name}")
        mount = machine.Mount(mounted, self.work / "log", "--store", store, "--cache", self.work / "cache", "random:1")
        try:
            return tree.scan_apart(mounted)
        finally:
            mount.clear()


def docker_differs(path, field):
    """overlayfs counts links as the layer below has them, hidden names included; docker makes the root itself."""
    return field == "links" or (path == "." and field in ("mode", "uid", "gid", "mtime", "xattrs"))


def umoci_differs(path, field):
    """The root is made by umoci where no layer has an entry for it."""
    return path == "." and field == "mtime"


def layers_of(seed):
    """How many layers the tree of a seed has: the same in any group."""
    return random_trees.LAYERS_MAX - (seed - 1) // GROUP % random_trees.LAYERS_MAX


def compare(oracle, ours, known, name):
    """Fails with the seeds of the trees that differ, t<seed>."""
    found = tree.compare(oracle, ours, known)
    seeds = sorted({sentence.split("/")[0].split(":")[0] for sentence in found})
    assert not found, f"{name} has it otherwise in {seeds[:10]}:\n" + "\n".join(found[:20])


@pytest.mark.parametrize("first, count", groups())
def test_all_agree(first, count, engine, work):
    roots = [(f"t{seed}", seed) for seed in range(first, first + count)]
    oracles = Oracles(work, engine, random_trees.Image(f"s{first}", random_trees.make_layers(roots, layers_of(first))))
    ours = normalised(oracles.imgfs())
    assert sum(stat.S_ISDIR(fields["type"]) for fields in ours.values()) > count
    compare(normalised(oracles.docker()), ours, docker_differs, "docker")
    compare(normalised(oracles.umoci()), ours, umoci_differs, "umoci")


@pytest.mark.parametrize("seed", range(SEED, SEED + max(1, TREES // 40)))
def test_at_the_root(seed, engine, work):
    """The same where the tree is the whole image."""
    oracles = Oracles(work, engine, random_trees.Image(f"r{seed}", random_trees.make_layers([(".", seed)], random_trees.LAYERS_MAX)))
    ours = normalised(oracles.imgfs())
    compare(normalised(oracles.docker()), ours, docker_differs, "docker")
    compare(normalised(oracles.umoci()), ours, umoci_differs, "umoci")


@pytest.mark.parametrize("first, count", groups()[::4])
def test_rare_ones(first, count, work):
    """Links to files of layers below, directories without entries, whiteouts of nothing, entries that come twice: umoci knows them."""
    roots = [(f"t{seed}", seed) for seed in range(first, first + count)]
    tars = random_trees.make_layers(roots, random_trees.LAYERS_MAX, rare=True)
    oracles = Oracles(work, None, random_trees.Image(f"u{first}", tars))
    compare(normalised(oracles.umoci()), normalised(oracles.imgfs()), umoci_differs, "umoci")
