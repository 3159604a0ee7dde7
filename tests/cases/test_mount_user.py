"""Mounts of ordinary users, through fusermount3."""
import contextlib
import ctypes
import fcntl
import json
import os
import pwd
import signal
import struct
import subprocess
import threading
from pathlib import Path

import pytest

import machine
from namespace import MountNamespace

USER = "games"  # some user that Debian has; fusermount3 serves none that has no name
OTHER = "daemon"


class UserMounts:
    def __init__(self, work):
        self.space = MountNamespace(work)
        self.space.open_fuse()
        self.home, self.directory = work / "home", work / "mount"
        for path in (self.home, self.directory):
            path.mkdir()
            os.chown(path, pwd.getpwnam(USER).pw_uid, -1)
        self.log = self.home / "log"
        self.prefix = self.space.as_user(USER, self.home)

    def imgfs(self, *words, **options):
        return machine.run(*self.prefix, machine.IMGFS, *words, **options)

    def mount(self, *what, check=True):
        return self.imgfs("mount", "--log", self.log, *what, self.directory, check=check)

    def run(self, *command, **options):
        return machine.run(*self.prefix, *command, **options)

    def processes(self, executable):
        uid = pwd.getpwnam(USER).pw_uid
        return [pid for pid in machine.processes_of(executable) if os.stat(f"/proc/{pid}").st_uid in (uid, 0)
                and str(self.directory) in machine.Mount._command(machine.parent_of(pid))  # pylint: disable=protected-access
                + machine.Mount._command(pid)]  # pylint: disable=protected-access

    def close(self):
        self.space.close()


@pytest.fixture
def user(work):
    # The way to the test's directories has to be open to a user.
    for path in (work, work.parent):
        path.chmod(0o755)
    mounts = UserMounts(work)
    yield mounts
    mounts.close()


@pytest.fixture
def image(store, serve):
    name = store.add("inv-v1")
    return f"{serve().host}/{name}"


def test_mounts_reads_and_unmounts(user, image, unpacked):
    done = user.mount(image)
    assert "mounted" in done.stdout
    (line,) = user.space.mounts()
    assert f"user_id={pwd.getpwnam(USER).pw_uid}" in line and "allow_other" not in line
    same = user.run("cmp", user.directory / "etc/os-release", unpacked("inv-v1") / "etc/os-release")
    assert same.returncode == 0
    assert (user.home / ".cache/imgfs/imgfs-cache").exists()
    assert "Permission denied" in user.run("cat", user.directory / "etc/shadow", check=False).stderr
    user.imgfs("umount", user.directory)
    assert not user.space.mounts()
    machine.wait_until(lambda: not user.processes(machine.KEEPER), "the keeper's end")
    # Read-ahead and scores that only root may set are no reason for a complaint.
    assert "warning" not in user.log.read_text()


def test_root_does_not_wait_for_a_users_files(user, image):
    """What root sees of a user's mount is measured by a process of that user, in some seconds, whoever holds the locks of that user's cache."""
    user.mount(image)
    user.imgfs("pull", "--seal", image)
    (cache,) = user.home.glob(".cache/imgfs")

    def status():
        done = machine.imgfs("status", "--json", timeout=30)
        return [row for row in json.loads(done.stdout) if row["directory"] == str(user.directory)], done.stderr

    (row,), _ = status()
    assert row["sealed"] and row["readyPercent"] == 100
    for seal in (cache / "seals").iterdir():
        seal.unlink()
    with open(cache / "evict.lock", "rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        rows, said = status()
        (keeper,) = (machine.parent_of(pid) for pid in user.processes(machine.SERVER))
        assert not rows and f"process {keeper} of user {pwd.getpwnam(USER).pw_uid}, which is named as a keeper, is left out" in said
        assert "not be read in time" in said
    (row,), _ = status()
    assert row["sealed"]
    (seal,) = (cache / "seals").iterdir()
    assert seal.stat().st_uid == pwd.getpwnam(USER).pw_uid, "root makes none of the user's files"
    assert f"  owner   user {pwd.getpwnam(USER).pw_uid}\n" in machine.imgfs("status").stdout


def test_root_is_told_of_its_own_mount_first(user, image, mount, work):
    """A user who mounts the same image later is not who root asks about by the image's name."""
    own = mount("--cache", work / "cache", image)
    user.mount(image)
    for directory in (own.directory, user.directory):
        words = ("cat", directory / "etc/os-release")
        (machine.run if directory == own.directory else user.run)(*words)

    def told():
        done = machine.imgfs("why", "--json", image, check=False)
        return done.returncode == 0 and json.loads(done.stdout)

    assert machine.wait_until(told, "a read in the record")["directory"] == str(own.directory)


def plan_of(keeper):
    """What a keeper has been told."""
    names = [f"/proc/{keeper}/fd/{name}" for name in os.listdir(f"/proc/{keeper}/fd")]
    (plan,) = (name for name in names if os.readlink(name) == "/memfd:imgfs-plan (deleted)")
    return json.loads(Path(plan).read_text())


LIAR = """
import ctypes, sys
ctypes.CDLL(None).prctl(15, b"imgfs-keeper", 0, 0, 0)
print("ready", flush=True)
sys.stdin.read()
"""


def as_other(script, *descriptors):
    """The process of another user, with these open."""
    script.write_text(LIAR)
    return subprocess.Popen(
        ["/usr/bin/python3", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=descriptors,
        user=OTHER, group=OTHER, extra_groups=[],
    )


def test_root_reads_no_file_of_whoever_is_named_so(user, image, work):
    """What a keeper has is memory; a file of that name, which may be one that never answers, is not read."""
    user.mount(image)
    (server,) = user.processes(machine.SERVER)
    plan = plan_of(machine.parent_of(server))
    path = "/memfd:imgfs-plan"  # gone at once, so that its link is that of memory
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
    os.unlink(path)
    try:
        os.write(descriptor, json.dumps(plan).encode())
        with as_other(work / "liar", descriptor) as liar:
            assert liar.stdout.readline() == b"ready\n"
            done = machine.imgfs("status")
        assert f"process {liar.pid} of user" in done.stderr and "it has not what a keeper of this version has" in done.stderr
        assert str(work / "liar") not in done.stdout and str(user.directory) in done.stdout
    finally:
        os.close(descriptor)


class HungTree:
    """A FUSE file system that everybody may look at, and that takes every request and answers none but the first."""

    INIT = struct.Struct("<IiQIIIIHHIII24x")

    def __init__(self, point, kind=b"fuse"):
        self.point = point
        point.mkdir()
        self.device = os.open("/dev/fuse", os.O_RDWR)
        options = f"fd={self.device},rootmode=40000,user_id=0,group_id=0,allow_other"
        assert ctypes.CDLL(None, use_errno=True).mount(b"hung", os.fsencode(point), kind, 0, options.encode()) == 0
        unique = struct.unpack_from("<IIQ", os.read(self.device, 1 << 17))[2]
        os.write(self.device, self.INIT.pack(self.INIT.size, 0, unique, 7, 31, 0, 0, 0, 0, 4096, 0, 0))
        self.taken = 0
        self.thread = threading.Thread(target=self._take, daemon=True)
        self.thread.start()

    def _take(self):
        with contextlib.suppress(OSError):
            while os.read(self.device, 1 << 17):
                self.taken += 1

    def close(self):
        machine.run("umount", "--lazy", "--force", self.point)
        self.thread.join()
        os.close(self.device)


def named(name, user):
    """The processes of a user that have this name."""
    return [int(path.parts[2]) for path in Path("/proc").glob("[0-9]*/status") if fields(path).get("Name") == name
            and int(fields(path)["Uid"].split()[0]) == pwd.getpwnam(user).pw_uid]


def fields(path):
    with contextlib.suppress(OSError):
        return dict(line.split(":\t", 1) for line in path.read_text().splitlines() if ":\t" in line)
    return {}


def killed(name, user):
    """Those that are gone once they stop waiting."""
    return [pid for pid in named(name, user)
            if int(fields(Path(f"/proc/{pid}/status"))["SigPnd"], 16) & 1 << signal.SIGKILL - 1]


def test_root_does_not_wait_for_a_file_that_never_answers(user, image, work):
    """Not even for the process that does, which nobody can kill before the file system is gone; nor does who reads what status says."""
    user.mount(image)
    (server,) = user.processes(machine.SERVER)
    plan = plan_of(machine.parent_of(server))
    tree = HungTree(work / "hung")
    memory = os.memfd_create("imgfs-plan")
    file = os.open(tree.point, os.O_PATH)
    try:
        plan["layers"][0]["index"] = file
        os.write(memory, json.dumps(plan).encode())
        with as_other(work / "liar", memory, file) as liar:
            assert liar.stdout.readline() == b"ready\n"
            done = machine.imgfs("status", timeout=60)
            assert f"process {liar.pid} of user" in done.stderr and "could not be read in time" in done.stderr
            assert tree.taken and str(user.directory) in done.stdout
            (stuck,) = machine.wait_until(lambda: killed("imgfs-measure", OTHER), "the end of its time")
            done = machine.imgfs("status", timeout=60)
            assert f"process {liar.pid} of user" in done.stderr and "could not be read in time" in done.stderr
            assert named("imgfs-measure", OTHER) == [stuck], "who has one that hangs gets no other"
    finally:
        tree.close()
        os.close(file)
        os.close(memory)


def test_a_tree_that_never_answers_is_not_dead(work):
    """Who asks it is not waited for, nor is what that one has open."""
    tree = HungTree(work / "hung", b"fuse.imgfs")
    try:
        done = machine.imgfs("mount", "--cache", work / "cache", "localhost:1/a:b", tree.point, check=False, timeout=60)
        assert done.returncode == 1 and "is mounted" in done.stderr and tree.taken
        done = machine.imgfs("doctor", check=False, timeout=60)
        assert f"{tree.point}: Connection timed out" in done.stdout
    finally:
        tree.close()


def test_upgrades_what_is_its_own(user, image):
    user.mount(image)
    (server,) = user.processes(machine.SERVER)
    assert user.imgfs("upgrade").stdout == f"upgraded {user.directory}\n"
    (other,) = machine.wait_until(lambda: user.processes(machine.SERVER), "a server")
    assert other != server
    assert user.run("cat", user.directory / "etc/os-release").stdout
    done = user.space.run(machine.IMGFS, "upgrade", user.directory, check=False)
    assert done.returncode == 1
    assert f"user {pwd.getpwnam(USER).pw_uid} has mounted it" in done.stderr
    assert user.processes(machine.SERVER) == [other]
    user.imgfs("umount", user.directory)


def test_replaces_a_dead_mount(user, image):
    user.mount(image)
    (keeper,) = user.processes(machine.KEEPER)
    os.kill(keeper, signal.SIGKILL)
    machine.wait_until(lambda: not user.processes(machine.KEEPER), "the keeper's end")
    assert "detached a dead mount" in user.mount(image).stderr
    assert len(user.space.mounts()) == 1
    assert user.run("cat", user.directory / "etc/os-release").stdout
    user.imgfs("umount", user.directory)


def test_nobody_else_sees_it(user, image):
    user.mount(image)
    for prefix in (user.space.prefix, user.space.as_user(OTHER, "/")):
        seen = machine.run(*prefix, "ls", user.directory, check=False)
        assert seen.returncode != 0 and "Permission denied" in seen.stderr
    user.imgfs("umount", user.directory)


def test_allow_other_is_for_fuse_conf_to_permit(user, image, work):
    configuration = work / "fuse.conf"
    configuration.write_text("# nothing\n")
    user.space.run("mount", "--bind", configuration, "/etc/fuse.conf")
    refused = user.mount("--allow-other", image, check=False)
    assert refused.returncode == 1
    assert "allow_other only allowed if 'user_allow_other' is set in /etc/fuse.conf" in refused.stderr
    configuration.write_text("user_allow_other\n")
    user.mount("--allow-other", image)
    other = machine.run(*user.space.as_user(OTHER, "/"), "cat", user.directory / "etc/hostname", check=False)
    assert "Permission denied" not in other.stderr
    user.imgfs("umount", user.directory)


def test_what_a_user_may_not(user, image):
    refused = user.mount("--suid", image, check=False)
    assert refused.returncode == 1 and "only root may allow set-uid files" in refused.stderr
    elsewhere = user.imgfs("mount", image, "/mnt", check=False)
    assert elsewhere.returncode == 1 and "user has no write access to mountpoint /mnt" in elsewhere.stderr
    bare = machine.run(*user.space.prefix, "setpriv", "--reuid", USER, "--clear-groups", "env", "-i", machine.IMGFS,
                       "mount", image, user.directory, check=False)
    assert bare.returncode == 3 and "--cache" in bare.stderr
    assert not user.space.mounts()


def test_without_the_helper(user, image):
    refused = machine.run(*user.prefix, "env", "PATH=/nonexistent", machine.IMGFS, "mount", image, user.directory,
                          check=False)
    assert refused.returncode == 1 and "package fuse3" in refused.stderr


def test_busy_and_lazy(user, image):
    user.mount(image)
    holder = subprocess.Popen([*user.prefix, "sh", "-c", f"cd {user.directory} && echo in && exec sleep infinity"],
                              stdout=subprocess.PIPE)
    try:
        assert holder.stdout.readline() == b"in\n"
        busy = user.imgfs("umount", user.directory, check=False)
        assert busy.returncode == 1 and "is in use" in busy.stderr
        user.imgfs("umount", "--lazy", user.directory)
        assert not user.space.mounts()
    finally:
        machine.end(holder)
        holder.stdout.close()
    machine.wait_until(lambda: not user.processes(machine.KEEPER), "the keeper's end")


def test_server_killed(user, image, unpacked):
    user.mount(image)
    (server,) = machine.wait_until(lambda: user.processes(machine.SERVER), "a server")
    os.kill(server, signal.SIGKILL)
    user.run("cmp", user.directory / "usr/bin/dpkg", unpacked("inv-v1") / "usr/bin/dpkg")
    user.imgfs("umount", user.directory)


def test_in_the_foreground(user, image):
    child = subprocess.Popen([str(word) for word in (*user.prefix, machine.IMGFS, "mount", "--foreground", image,
                                                     user.directory)],
                             bufsize=0, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        while not machine.read_line(child.stdout, "imgfs mount").startswith("on "):
            pass
        assert len(user.space.mounts()) == 1
        child.send_signal(signal.SIGTERM)
        assert child.wait(60) == 0
        assert not user.space.mounts()
    finally:
        machine.end(child)
        child.stdout.close()
