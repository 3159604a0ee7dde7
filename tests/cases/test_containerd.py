"""Ordinary images through containerd and runc with imgfs as their snapshotter: what works with overlayfs works with it."""
import os
import signal
import tempfile
from pathlib import Path

import pytest

import machine
from containerd import Containerd, host_tree, image
from images import tar_of

ONE, TWO = "docker.io/case/one:1", "docker.io/case/two:1"


@pytest.fixture(scope="module")
def base():
    return host_tree("/bin/cat", "/bin/ls", "/bin/sleep", "/usr/bin/stat", "/bin/mkdir", "/bin/rm")


@pytest.fixture
def containerd():
    """One that has to be empty at the end: no container, snapshot, directory or mount."""
    with tempfile.TemporaryDirectory(prefix="imgfs-c-", dir="/var/tmp") as root:
        os.chmod(root, 0o711)  # the root of a user namespace has to get through
        one = Containerd(root)
        try:
            yield one
            for name in one.ctr("containers", "ls", "-q").stdout.split():
                one.ctr("containers", "rm", name)
            one.remove_images()
            machine.wait_until(lambda: not one.keys(), "the end of all snapshots", 120)
            machine.wait_until(lambda: not one.directories(), "the end of all directories", 120)
            machine.wait_until(lambda: not machine.mount_points(one.layers), "the end of what layers were seen through", 120)
        finally:
            one.stop()
        assert not machine.mount_points(root)


def test_two_images_share_layers(containerd, base):
    shared = tar_of(("etc/shared", b"shared"))
    containerd.import_images([(image(base, shared, tar_of(("etc/name", b"one"))), ONE), (image(base, shared, tar_of(("etc/name", b"two"))), TWO)])
    assert list(containerd.keys().values()) == ["Committed"] * 4
    for name in (ONE, TWO):
        done = containerd.run("--rm", name, "c", "/bin/sh", "-c", "cat /etc/shared /etc/name")
        assert done.stdout == "shared" + name.split("/")[-1].split(":")[0]
    containerd.ctr("images", "rm", "--sync", TWO)
    machine.wait_until(lambda: len(containerd.keys()) == 3 and len(containerd.directories()) == 3, "the end of what only one had", 120)
    assert containerd.run("--rm", ONE, "c", "/bin/cat", "/etc/name").stdout == "one"


def test_write_commit_run_again(containerd, base):
    containerd.import_images([(image(base, tar_of(("etc/gone", b"x"), ("d/old", b"x"))), ONE)])
    containerd.run(ONE, "first", "/bin/sh", "-c", "echo new >/etc/new; rm /etc/gone; rm -r /d; mkdir /d; echo y >/d/young")
    containerd.snapshots("commit", "--", "changed", "first")
    usage = containerd.snapshots("usage", "changed").stdout.split()
    assert "changed" in usage
    containerd.snapshots("prepare", "again", "changed")
    root = containerd.root / "again"
    root.mkdir()
    mount = containerd.snapshots("mounts", root, "again").stdout
    machine.run("/bin/sh", "-c", mount)
    try:
        done = containerd.run("--rm", "--rootfs", root, "second", "/bin/sh", "-c", "cat /etc/new; ls /etc /d")
        assert done.stdout.split() == ["new", "/d:", "young", "/etc:", "new"]
    finally:
        machine.run("umount", root, check=False)
    containerd.snapshots("rm", "again")
    containerd.ctr("containers", "rm", "first")
    containerd.snapshots("rm", "changed")


def test_128_layers(containerd, base):
    layers = [tar_of((f"layer/{number}", str(number).encode()), ("layer/last", str(number).encode())) for number in range(127)]
    containerd.import_images([(image(base, *layers), ONE)])
    done = containerd.run("--rm", ONE, "c", "/bin/sh", "-c", "cat /layer/0 /layer/126 /layer/last; echo w >/layer/0; cat /layer/0")
    assert done.stdout == "0126126w\n"


MAPS = ("--uidmap", "0:100000:65536", "--gidmap", "0:200000:65536")


@pytest.mark.parametrize("options", [MAPS, (*MAPS, "--remap-labels")], ids=["client-chowns", "snapshotter-maps"])
def test_remapped_ids(options, containerd, base):
    """The container's root owns what the image's root owns, and is somebody else outside."""
    containerd.import_images([(image(base, tar_of(("etc/name", b"one"))), ONE)])
    done = containerd.run(*options, ONE, "c", "/bin/sh", "-c",
                          "stat -c '%u:%g' /etc/name /bin; echo w >>/etc/name; echo n >/new; stat -c '%u:%g' /etc/name /new")
    assert done.stdout.split() == ["0:0"] * 4
    written = [path for path in containerd.layers.glob("snapshots/*/fs/new")]
    assert [(path.stat().st_uid, path.stat().st_gid) for path in written] == [(100000, 200000)]
    containerd.ctr("containers", "rm", "c")
    for key, kind in reversed(containerd.keys().items()):
        if kind != "Committed" or "sha256" not in key or key.endswith("-100000-200000"):
            containerd.snapshots("rm", key, check=False)


def test_restarts_under_a_running_container(containerd, base):
    containerd.import_images([(image(base, tar_of(("etc/name", b"one"))), ONE)])
    containerd.run("--detach", ONE, "long", "/bin/sleep", "1000")

    pid = containerd.ctr("tasks", "ls").stdout.splitlines()[1].split()[1]

    def works(number):
        containerd.ctr("tasks", "exec", "--exec-id", f"e{number}", "long", "/bin/sh", "-c", f"echo {number} >>/tmp/log")
        assert Path(f"/proc/{pid}/root/tmp/log").read_text().split() == [str(one) for one in range(number + 1)]
        assert containerd.run("--rm", ONE, f"short{number}", "/bin/cat", "/etc/name").stdout == "one"

    works(0)
    assert containerd.stop_snapshotter() == 0
    containerd.start_snapshotter()
    works(1)
    containerd.kill_snapshotter()
    containerd.start_snapshotter()
    works(2)
    containerd.stop_containerd()
    containerd.start_containerd()
    works(3)
    containerd.daemon.send_signal(signal.SIGKILL)
    containerd.daemon.wait(120)
    containerd.kill_snapshotter()
    containerd.start_snapshotter()
    containerd.start_containerd()
    works(4)
    containerd.ctr("tasks", "kill", "--signal", "KILL", "long")
    machine.wait_until(lambda: "STOPPED" in containerd.ctr("tasks", "ls").stdout, "the container's end", 120)
    containerd.ctr("tasks", "rm", "long")


def test_socket_activation(base):
    """As systemd starts it: the socket is there before and after, and a client waits where nobody has started yet."""
    import socket  # pylint: disable=import-outside-toplevel
    import subprocess  # pylint: disable=import-outside-toplevel

    from containerd import SNAPSHOTTER  # pylint: disable=import-outside-toplevel
    with tempfile.TemporaryDirectory(prefix="imgfs-c-", dir="/var/tmp") as root, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{root}/s.sock")
        listener.listen()

        def start():
            command = 'exec 3<&"$0"; export LISTEN_FDS=1 LISTEN_PID=$$; exec "$@"'
            words = ["/bin/bash", "-c", command, str(listener.fileno()), str(SNAPSHOTTER), "--root", f"{root}/layers", "--no-daemon"]
            return subprocess.Popen(words, pass_fds=[listener.fileno()], stderr=subprocess.PIPE, text=True)

        for _ in range(2):
            process = start()
            line = process.stderr.readline()
            assert "serving address=inherited" in line, line
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(f"{root}/s.sock")
                client.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0")
                assert client.recv(9)[3] == 4  # SETTINGS
            assert machine.end(process) == 0
            process.stderr.close()
            assert os.path.exists(f"{root}/s.sock")
