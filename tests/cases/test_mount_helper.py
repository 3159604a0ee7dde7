"""mount(8) and fstab: the helper mount.imgfs."""
import os
import subprocess

import pytest

import machine
from namespace import MountNamespace


@pytest.fixture
def space(work):
    """A machine on which mount.imgfs is installed."""
    before = machine.processes_of(machine.KEEPER)
    one = MountNamespace(work)
    for name in ("upper", "work"):
        (work / name).mkdir()
    (work / "upper/mount.imgfs").symlink_to(machine.IMGFS)
    sbin = os.path.realpath("/sbin")
    one.run("mount", "-t", "overlay", "-o", f"lowerdir={sbin},upperdir={work}/upper,workdir={work}/work", "overlay", sbin)
    yield one
    one.close()
    machine.wait_until(lambda: machine.processes_of(machine.KEEPER) <= before, "the keepers' end")


@pytest.fixture
def point(work):
    path = work / "point"
    path.mkdir()
    return path


@pytest.fixture
def image(store, serve):
    name = store.add("inv-v1")
    return f"{serve().host}/{name}"


def test_mount_and_umount(space, point, image, work, unpacked):
    done = space.run("mount", "-t", "imgfs", "-o", f"noatime,deadline=5,cache={work}/cache,log={work}/log", image, point)
    assert done.stdout == ""
    (line,) = space.mounts()
    assert f" imgfs:{image}@sha256:" in line and "ro,nosuid,nodev" in line
    space.run("cmp", point / "usr/bin/dpkg", unpacked("inv-v1") / "usr/bin/dpkg")
    space.run("umount", point)
    assert not space.mounts()
    machine.wait_until(lambda: "unmounted" in (work / "log").read_text(), "the log of the unmount")


def test_fstab(space, point, image, work):
    fstab = work / "fstab"
    fstab.write_text(f"{image} {point} imgfs defaults,_netdev,nofail,x-systemd.automount,noexec,cache={work}/cache 0 0\n")
    for _ in range(2):  # once more, when it is there
        space.run("mount", "--all", "--fstab", fstab)
        (line,) = space.mounts()
        assert "noexec" in line.split()[5]
    denied = space.run(point / "bin/true", check=False)
    assert denied.returncode != 0
    space.run("umount", point)


def test_from_a_store(space, point, work, store):
    name = store.add("inv-v1")
    for _ in range(2):
        space.run("mount", "-t", "imgfs", "-o", f"store={store.path},cache={work}/cache", name, point)
    (line,) = space.mounts()
    assert f" imgfs:{name}@sha256:" in line
    space.run("umount", point)


def test_a_comma_in_a_value(space, point, image, work):
    """mount(8) hands it on as it stands in fstab: backslashes are doubled there by their own number."""
    space.run("mount", "-t", "imgfs", "-o", rf"noexec,cache={work}/one\054cache,deadline=5", image, point)
    assert (work / "one,cache/imgfs-cache").exists()
    space.run("umount", point)
    fstab = work / "fstab"
    fstab.write_text(rf"{image} {point} imgfs noauto,cache={work}/other\134054cache 0 0" + "\n")
    space.run("mount", "--fstab", fstab, point)
    assert (work / "other,cache/imgfs-cache").exists()
    space.run("umount", point)


@pytest.mark.parametrize("options, sentence, status", [
    ("colour=red", 'there is no option "colour"', 1),
    ("deadline", 'option "deadline" takes a value', 1),
    ("plain-http=yes", 'option "plain-http" takes no value', 1),
    ("deadline=never", "--deadline never: give seconds", 1),
    ("cache=/proc/nothing", "cannot use /proc/nothing as a cache", 32),
])
def test_wrong_options(space, point, image, options, sentence, status):
    done = space.run("mount", "-t", "imgfs", "-o", options, image, point, check=False)
    assert done.returncode == status and sentence in done.stderr
    assert not space.mounts()


def test_fake_and_sloppy(space, point, image, work):
    space.run("mount", "--fake", "-t", "imgfs", image, point)
    assert not space.mounts()
    space.run("mount", "-s", "-t", "imgfs", "-o", f"colour=red,cache={work}/cache", image, point)
    assert len(space.mounts()) == 1
    space.run("umount", point)


def test_by_hand(work):
    """The helper without mount(8)."""
    helper = work / "mount.imgfs"
    helper.symlink_to(machine.IMGFS)
    done = subprocess.run([helper], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "usage: mount -t imgfs" in done.stderr
    done = subprocess.run([helper, "a/b:c", work, "-N", "/proc/1/ns/mnt"], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "nsenter" in done.stderr
