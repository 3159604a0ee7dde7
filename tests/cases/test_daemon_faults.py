"""What is done to the node daemon by hand, and what it makes of it."""
import contextlib
import errno
import json
import os
import resource
import shutil
import signal
import socket
import struct
import subprocess
from pathlib import Path

import pytest

import front as fake
import machine
from endpoint import NAME, TAG
from endpoint import make_backend, make_image, make_place  # noqa: F401 # pylint: disable=unused-import # fixtures
from test_daemon import check_content, make_daemon, make_reference, mounts_at  # noqa: F401 # pylint: disable=unused-import # fixtures
from test_source_faults import spoil


def test_a_directory_inside_the_mount(daemon, reference, image, work):
    """With the mount that is left, what is inside of it would go: nothing changes."""
    daemon.start()
    daemon.mount(reference, work / "a")
    owner = str(work / "a")
    answer = daemon.call(call="attach", owner=owner, reference=reference, plain_http=True, directory=str(work / "a/usr"))
    assert answer["error"]["code"] == "EBUSY" and owner in answer["error"]["text"], answer
    check_content(work / "a", image)
    entry = daemon.list()[owner]
    assert entry["mounted"] and entry["directory"] == owner


def test_an_owner_moves(daemon, reference, image, work):
    """The new mount is there before the old one goes."""
    daemon.start()
    daemon.mount(reference, work / "a")
    (work / "b").mkdir()
    answer = daemon.call(call="attach", owner=str(work / "a"), reference=reference, plain_http=True, directory=str(work / "b"))
    assert "ok" in answer, answer
    check_content(work / "b", image)
    assert not mounts_at(work / "a") and daemon.list()[str(work / "a")]["directory"] == str(work / "b")
    daemon.kill()
    daemon.start()
    assert daemon.list()[str(work / "a")]["mounted"] and len(mounts_at(work / "b")) == 1


@pytest.mark.parametrize("how", ["", "--lazy"])
def test_a_shared_mount_is_unmounted(daemon, reference, image, work, how):
    """It is put back; mounts of its images never notice, and its other images are found where they were."""
    daemon.start()
    daemon.mount(reference, work / "a")
    path = Path(daemon.imgfs("attach", "--owner", "me", reference).stdout.strip())
    keeper, server = daemon.keeper(), daemon.server()
    for name in ("plain", "xattr", "plain"):
        subprocess.run(["umount", *how.split(), daemon.runtime / "fs" / name], check=True)
        machine.wait_until(lambda name=name: mounts_at(daemon.runtime / "fs" / name), "the mount")
    check_content(path, image)
    check_content(work / "a", image)
    assert daemon.keeper() == keeper and daemon.server() == server
    assert "is mounted again" in daemon.log.read_text()
    daemon.imgfs("umount", work / "a")
    daemon.mount(reference, work / "b")
    check_content(work / "b", image)


def test_a_shared_mount_is_aborted(daemon, reference, image, work):
    """It is made anew with all its images, and what is mounted of it; the other one goes on."""
    daemon.start()
    daemon.mount(reference, work / "a")
    path = Path(daemon.imgfs("attach", "--owner", "me", reference).stdout.strip())
    keeper = daemon.keeper()
    (line,) = mounts_at(daemon.runtime / "fs/plain")
    subprocess.run(["umount", "--force", daemon.runtime / "fs/plain"], check=True)
    machine.wait_until(lambda: "made anew" in daemon.log.read_text(), "the log")
    machine.wait_until(path.exists, "the image")
    check_content(path, image)

    def is_back():
        lines = mounts_at(work / "a")
        return len(lines) == 1 and lines[0].split()[2] != line.split()[2]

    machine.wait_until(is_back, "the mount of the image")
    check_content(work / "a", image)
    assert daemon.keeper() == keeper
    daemon.imgfs("umount", work / "a")


def test_the_state_is_lost(daemon, reference, work):
    """The keeper knows which numbers the kernel may still remember, also one that was replaced meanwhile."""
    daemon.start()
    for _ in range(3):
        slot = daemon.call(call="attach", owner="me", reference=reference, plain_http=True)["ok"]["slot"]
        daemon.imgfs("detach", "me")
    assert slot == 3
    daemon.mount(reference, work / "a")
    daemon.imgfs("upgrade", work / "a", timeout=120)
    daemon.manager.expect("READY=1")
    daemon.imgfs("umount", work / "a")
    daemon.kill()
    shutil.rmtree(daemon.state)
    daemon.start()
    assert daemon.call(call="attach", owner="me", reference=reference, plain_http=True)["ok"]["slot"] == 5


class Manager:
    """The keeper's socket, spoken to by daemon-message.h alone."""

    HEADER = struct.Struct("<IIIiI64s")
    HELLO, ATTACH, MORE, DETACH, GET, ANSWER = 1, 2, 3, 4, 7, 11

    def __init__(self, runtime):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.settimeout(60)
        self.socket.connect(str(runtime / "keeper.sock"))
        assert self.ask(self.HELLO, count=1)[0] == self.HELLO

    def ask(self, kind, slot=0, count=0, name=b"", fds=()):
        """Type, result and descriptors of the answer."""
        socket.send_fds(self.socket, [self.HEADER.pack(kind, slot, 0, 0, count, name)], fds)
        data, received, _, _ = socket.recv_fds(self.socket, 1 << 14, 200)
        answer, _, _, result, _, _ = self.HEADER.unpack(data[:self.HEADER.size])
        return answer, result, received

    def hear(self):
        """Type, result and text of the answer to what was sent."""
        data = self.socket.recv(1 << 14)
        answer, _, _, result, _, _ = self.HEADER.unpack(data[:self.HEADER.size])
        return answer, result, data[self.HEADER.size:].decode()

    def descriptors(self, slot):
        """The plan of an image and what it names."""
        found = []
        while (answer := self.ask(self.GET, slot, len(found)))[1] == 0:
            found += answer[2]
        return found


def test_a_plan_that_cannot_be_read_any_more(daemon, reference):
    """The next server knows nothing of such an image, but that it is there: EIO, and never that it has gone."""
    daemon.start()
    path = Path(daemon.imgfs("attach", "--owner", "me", reference).stdout.strip())
    daemon.kill()
    manager = Manager(daemon.runtime)
    fds = manager.descriptors(1)
    assert manager.ask(manager.DETACH, 1)[1] == 0 and not path.exists()
    plan = os.memfd_create("plan")
    os.write(plan, os.pread(fds[0], 1 << 20, 0))
    assert manager.ask(manager.ATTACH, 9, len(fds), path.name.encode(), [plan, *fds[1:]])[1] == 0
    assert (path / "usr").is_dir()
    os.pwrite(plan, b"?", 0)
    server = daemon.server()
    os.kill(server, signal.SIGKILL)
    daemon.server(other_than=server)
    for name in ("etc", "bin", "no/such"):
        with pytest.raises(OSError) as fault:
            os.stat(path / name)
        assert fault.value.errno == errno.EIO, fault.value
    assert manager.ask(manager.DETACH, 9)[1] == 0 and not path.exists()
    for fd in (plan, *fds):
        os.close(fd)
    manager.socket.close()


@pytest.mark.parametrize("what", ["tmpfs", "overlay"])
def test_something_on_top(what, daemon, reference, image, work):
    """What is covered is not unmounted, nor is it mounted once more: not when the manager starts again either."""
    daemon.start()
    daemon.mount(reference, work / "a")
    owner = str(work / "a")
    (work / "over").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", work / "over"], check=True)
    for name in ("upper", "work"):
        (work / "over" / name).mkdir()
    options = f"lowerdir={owner},upperdir={work}/over/upper,workdir={work}/over/work"
    subprocess.run(["mount", "-t", what, *(("-o", options) if what == "overlay" else ()), what, owner], check=True)
    table = mounts_at(work / "a")
    daemon.kill()
    daemon.start()
    entry = daemon.list()[owner]
    assert entry["mounted"] and not entry["lingering"], entry
    assert mounts_at(work / "a") == table
    subprocess.run(["umount", owner], check=True)
    subprocess.run(["umount", work / "over"], check=True)
    check_content(work / "a", image)
    daemon.imgfs("umount", work / "a")
    assert not daemon.list()


def test_the_keeper_dies_below_something_on_top(daemon, reference, image, work):
    """The image is not mounted over what covers it, but once that is gone; the log has the way out."""
    daemon.start()
    daemon.mount(reference, work / "a")
    daemon.mount(reference, work / "b")
    machine.run("mount", "-t", "tmpfs", "tmpfs", work / "a")
    (work / "a/mine").touch()
    table, keeper = mounts_at(work / "a"), daemon.keeper()
    os.kill(keeper, signal.SIGKILL)
    daemon.keeper(other_than=keeper)
    machine.wait_until(lambda: daemon.list()[str(work / "b")]["mounted"], "the other image")
    entry = machine.wait_until(lambda: (one := daemon.list()[str(work / "a")]).get("fault") and one, "the fault")
    assert "below another mount" in entry["fault"] and f"findmnt {work}/a" in daemon.log.read_text()
    assert len(mounts_at(work / "a")) == len(table) and (work / "a/mine").exists()
    machine.run("umount", work / "a")
    machine.wait_until(lambda: daemon.list()[str(work / "a")]["mounted"], "the image", 10)
    assert "fault" not in daemon.list()[str(work / "a")] and len(mounts_at(work / "a")) == 1
    check_content(work / "a", image)


@pytest.mark.parametrize("limit", [40, 400])
def test_the_keeper_runs_out_of_descriptors(limit, daemon, reference, image, work):
    """What it cannot take it refuses, in words; it goes on, and so does who asked, with all else that it has."""
    daemon.start()
    daemon.mount(reference, work / "a")
    keeper, server = daemon.keeper(), daemon.server()
    manager = Manager(daemon.runtime)
    limits = resource.prlimit(keeper, resource.RLIMIT_NOFILE, (limit, resource.prlimit(keeper, resource.RLIMIT_NOFILE)[1]))
    with open(os.devnull, "rb") as nothing:
        for number, part in enumerate((200, 200, 50)):
            kind = manager.ATTACH if number == 0 else manager.MORE
            socket.send_fds(manager.socket, [manager.HEADER.pack(kind, 99, 0, 0, 450, b"a" * 64)], [nothing.fileno()] * part)
    answer, result, text = manager.hear()
    assert (answer, result) == (manager.ANSWER, -errno.EMFILE) and "no descriptors left" in text, text
    assert manager.ask(manager.DETACH, 99)[1] == -errno.ENOENT
    manager.socket.close()
    resource.prlimit(keeper, resource.RLIMIT_NOFILE, limits)
    assert len(os.listdir(f"/proc/{keeper}/fd")) < limit
    check_content(work / "a", image)
    daemon.mount(reference, work / "b")
    check_content(work / "b", image)
    assert daemon.keeper() == keeper and daemon.server() == server
    assert "has died" not in daemon.log.read_text()


SECRETS = ("Geheim-1", "Geheim-2", "Geheim-3")


@pytest.mark.parametrize("kind", ["basic", "identity"])
def test_a_login_expires(kind, daemon, backend, image, work, monkeypatch):
    """The server's login is refused: the helper is asked again, and reads go on; also those of the next server, and with the next login."""
    monkeypatch.setenv("PATH", f"{work}:{os.environ['PATH']}")
    monkeypatch.setenv("DOCKER_CONFIG", str(work))
    helper = work / "docker-credential-vault"
    with contextlib.ExitStack() as stack:
        front = stack.enter_context(fake.Front(backend))
        (work / "config.json").write_text(json.dumps({"credHelpers": {front.host: "vault"}}))

        def let(secret):
            """From now on this login counts alone."""
            user = "<token>" if kind == "identity" else "ann"
            helper.write_text(f"""#!/bin/sh\nread host; printf '{{"Username":"{user}","Secret":"{secret}"}}'\n""")
            helper.chmod(0o755)
            if kind == "basic":
                front.user = f"ann:{secret}"
            else:
                front.tokens = stack.enter_context(fake.Tokens(user=f"ann:{secret}", identity=secret))

        def read(path):
            """Of the network: what the disk had of it, and what came along with other files, is spoilt; and the kernel forgets it."""
            spoil(daemon.cache)
            with open(work / "a" / path, "rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                assert file.read() == image.files[path], path

        let(SECRETS[0])
        daemon.start()
        daemon.mount(f"{front.host}/{NAME}:{TAG}", work / "a", "--no-fill")
        read("usr/noise")
        let(SECRETS[1])
        read("usr/text")
        machine.wait_until(lambda: "newer ones were got" in daemon.log.read_text(), "a word about the login")
        server = daemon.server()
        os.kill(server, signal.SIGKILL)
        daemon.server(other_than=server)
        read("usr/hard")
        let(SECRETS[2])
        read("usr/noise")
        assert not any(secret in daemon.log.read_text() for secret in SECRETS)
        daemon.imgfs("umount", work / "a")
