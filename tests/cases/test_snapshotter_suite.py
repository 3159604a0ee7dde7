"""containerd's own tests of a snapshotter, and random calls compared with its overlayfs snapshotter, by the client that it uses itself.

IMGFS_SNAPSHOTTER names another program than that of the build, one with a sanitizer for instance."""
import json
import os
import subprocess

import pytest

import machine
from containerd import MAPPED_FUSE, SNAPSHOTTER, image, oci_archive
from endpoint import chain_id
from images import tar_of

# What containerd says of its own test: it fails on some kernels with overlayfs.
SKIPPED_BY_CONTAINERD = "TestSuite/Rename"


def outcomes(text):
    """What became of each test: its name to PASS, FAIL or SKIP."""
    lines = [line.split() for line in text.splitlines() if line.lstrip().startswith("--- ")]
    return {words[2]: words[1].rstrip(":") for words in lines}


@pytest.mark.parametrize("name, count", [("TestSuite", 22), ("TestSameAsOverlay", 1), ("TestFilters", 1), ("TestStorm", 1), ("TestBig", 1), ("TestEndurance", 1)])
def test_driver(name, count, driver, work):
    environment = {**os.environ, "IMGFS_SNAPSHOTTER": str(SNAPSHOTTER), "TMPDIR": str(work)}
    command = [driver, "-test.v", "-test.run", f"^{name}$"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
    found = outcomes(done.stdout)
    wrong = {test: outcome for test, outcome in found.items() if outcome != "PASS" and test != SKIPPED_BY_CONTAINERD}
    assert done.returncode == 0 and not wrong and len(found) == count, f"{wrong}\n{done.stdout[-5000:]}\n{done.stderr[-5000:]}"


def kill(driver, work, name, **more):
    """kill -9 at system calls of the snapshotter: at so many as IMGFS_KILLS says of those after its start, at all if that is 0."""
    environment = {
        **os.environ, "IMGFS_SNAPSHOTTER": f"{machine.BUILD}/snapshotter/imgfs-snapshotter", "TMPDIR": str(work),
        "IMGFS_KILL_AT": str(machine.TOP / "tests/crash/kill-at"), "IMGFS_KILLS": os.environ.get("IMGFS_KILLS", "25"), **more,
    }
    command = [driver, "-test.v", "-test.timeout", "60m", "-test.run", f"^{name}$"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=3600, check=False)
    assert done.returncode == 0 and outcomes(done.stdout) == {name: "PASS"}, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    print(done.stdout.splitlines()[-4:])


def test_killed_at_system_calls(driver, work):
    """Nothing that was acknowledged is lost, and nothing is left that Cleanup does not remove."""
    kill(driver, work, "TestCrash")


def layer_labels(manifest):
    """What a client sends with each layer of an exported image, and the chain that each makes."""
    layers = json.loads(manifest.read_text())["layers"]
    diff_ids = [layer["digest"] for layer in layers]
    return [{"Chain": chain_id(diff_ids[:number + 1]), "Labels": layer["annotations"]} for number, layer in enumerate(layers)]


@pytest.fixture
def about_lazy(node, work):
    """A file about a node daemon and an image that it gets from an `imgfs serve`, for the driver. At the end nothing is held."""
    one = image(tar_of(("etc/one", b"one"), ("gone", b"x")), tar_of((".wh.gone", b""), ("etc/two", b"two")))
    oci_archive(work / "one.tar", [(one, "case/one:1")])
    machine.run("skopeo", "copy", f"oci-archive:{work}/one.tar", f"oci:{work}/oci:one")
    machine.imgfs("export", "--store", work / "store", "--tag", "case/one:1", f"oci:{work}/oci:one")
    server = machine.Serve(work / "store", work / "serve.log")
    try:
        about = {
            "Imgfs": str(machine.IMGFS), "Socket": str(node.socket), "Trees": [f"{node.root}/run/fs/{kind}" for kind in ("plain", "xattr")],
            "Attached": f"{node.root}/node/attached", "Reference": f"{server.host}/case/one:1",
            "Layers": layer_labels(work / "store/repositories/case/one/_manifests/1"), "File": "etc/two", "Content": "two",
            "Mapped": MAPPED_FUSE,
        }
        (work / "lazy.json").write_text(json.dumps(about))
        yield str(work / "lazy.json")
        assert node.holders() == []
    finally:
        server.stop()


def test_lazy_killed_at_system_calls(driver, about_lazy, work):
    """The same for lazy snapshots, with what the node daemon holds for them."""
    kill(driver, work, "TestLazyCrash", IMGFS_CRASH_LAZY=about_lazy)


def test_many_layers_over_lazy(driver, about_lazy, work):
    """More layers than a mount's options have room for, until containerd has shortened their paths."""
    kill(driver, work, "TestLazyManyLayers", IMGFS_CRASH_LAZY=about_lazy, IMGFS_SNAPSHOTTER=str(SNAPSHOTTER))


@pytest.mark.parametrize("text, sentence", [
    ("[snapshotter]\nrot = x\n", 'c.conf:2: there is no key "rot"'),
    ("[snapshotter]\nno-daemon = perhaps\n", 'c.conf:2: neither yes nor no: "perhaps"'),
    ("[mount]\nroot = x\n[snapshotter]\nroot = /dev/null/x\n", "/dev/null/x failed"),
])
def test_configuration(text, sentence, work):
    (work / "c.conf").write_text(text)
    command = [f"{machine.BUILD}/snapshotter/imgfs-snapshotter", "--config", work / "c.conf", "--address", work / "s.sock"]
    done = machine.run(*command, check=False)
    assert done.returncode == 1 and sentence in done.stderr
