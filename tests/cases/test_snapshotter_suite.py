"""containerd's own tests of a snapshotter, and random calls compared with its overlayfs snapshotter, by the client that it uses itself.

IMGFS_SNAPSHOTTER names another program than that of the build, one with a sanitizer for instance."""
import os
import subprocess

import pytest

import machine

# What containerd says of its own test: it fails on some kernels with overlayfs.
SKIPPED_BY_CONTAINERD = "TestSuite/Rename"


def outcomes(text):
    """What became of each test: its name to PASS, FAIL or SKIP."""
    lines = [line.split() for line in text.splitlines() if line.lstrip().startswith("--- ")]
    return {words[2]: words[1].rstrip(":") for words in lines}


@pytest.mark.parametrize("name, count", [("TestSuite", 22), ("TestSameAsOverlay", 1), ("TestFilters", 1), ("TestStorm", 1), ("TestBig", 1)])
def test_driver(name, count, driver, work):
    program = os.environ.get("IMGFS_SNAPSHOTTER", f"{machine.BUILD}/snapshotter/imgfs-snapshotter")
    environment = {**os.environ, "IMGFS_SNAPSHOTTER": program, "TMPDIR": str(work)}
    command = [driver, "-test.v", "-test.run", f"^{name}$"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
    found = outcomes(done.stdout)
    wrong = {test: outcome for test, outcome in found.items() if outcome != "PASS" and test != SKIPPED_BY_CONTAINERD}
    assert done.returncode == 0 and not wrong and len(found) == count, f"{wrong}\n{done.stdout[-5000:]}\n{done.stderr[-5000:]}"


def test_killed_at_system_calls(driver, work):
    """kill -9 loses nothing that was acknowledged and leaves nothing that Cleanup does not remove. IMGFS_KILLS: at so many calls."""
    environment = {
        **os.environ, "IMGFS_SNAPSHOTTER": f"{machine.BUILD}/snapshotter/imgfs-snapshotter", "TMPDIR": str(work),
        "IMGFS_KILL_AT": str(machine.TOP / "tests/crash/kill-at"), "IMGFS_KILLS": os.environ.get("IMGFS_KILLS", "25"),
    }
    command = [driver, "-test.v", "-test.run", "^TestCrash$"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1200, check=False)
    assert done.returncode == 0 and outcomes(done.stdout) == {"TestCrash": "PASS"}, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"


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
