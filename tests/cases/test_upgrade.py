"""Keeper and server of a mount are replaced by another build of them while it is in use.

The other build is that of another compiler, where there is one beside this one; else a copy. IMGFS_UPGRADES sets how often upgrades happen
under load (20 times by default), IMGFS_KILLS_REPORT names a file that gets a line of JSON a test.
"""
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import machine
from namespace import MountNamespace

UPGRADE_READERS = machine.TOP / "tests/crash/upgrade-readers"
UPGRADES = int(os.environ.get("IMGFS_UPGRADES", "20"))
REPORT = os.environ.get("IMGFS_KILLS_REPORT")
PROGRAMS = ("tools/cmd/imgfs", "fs/mount/imgfs-keeper", "fs/mount/imgfs-server")
OTHER_BUILD = machine.BUILD.with_name("clang")


class Installation:
    """The programs of a build in one directory, as a package puts them there: each replaced at once."""

    def __init__(self, directory, build):
        self.directory = directory
        directory.mkdir()
        self.install(build)

    def install(self, build):
        for program in PROGRAMS:
            target = self.directory / os.path.basename(program)
            shutil.copy2(build / program, target.with_suffix(".new"))
            target.with_suffix(".new").rename(target)

    def replace(self, name, text):
        """Puts a script in place of a program."""
        path = self.directory / name
        path.unlink()
        path.write_text(text)
        path.chmod(0o755)

    def __getitem__(self, name):
        return self.directory / name

    def imgfs(self, *arguments, **options):
        return machine.run(self["imgfs"], *arguments, **options)

    def runs(self, pid, name):
        """Is the process the program that is there now?"""
        try:
            return os.path.samefile(f"/proc/{pid}/exe", self[name])
        except FileNotFoundError:
            return False


@pytest.fixture(scope="module", name="other_build")
def find_other_build():
    has_all = all((OTHER_BUILD / program).exists() for program in PROGRAMS)
    return OTHER_BUILD if has_all else machine.BUILD


@pytest.fixture
def installation(work):
    """A function that installs this build, or the one named, in a directory of its own."""

    def make(name, build=machine.BUILD):
        return Installation(work / name, build)

    return make


class Mounted:
    """A mount that an installation's own `imgfs` has made."""

    def __init__(self, installed, what, directory, prefix):
        directory.mkdir(exist_ok=True)
        self.directory, self.log, self.prefix = directory, directory.with_suffix(".log"), prefix
        machine.run(*prefix, installed["imgfs"], "mount", "--log", self.log, *what, directory)
        self.keeper = next(int(pid) for pid in os.listdir("/proc") if pid.isdigit() and self._is_keeper(pid))

    def _is_keeper(self, pid):
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            return words[:2] == [b"imgfs-keeper", os.fsencode(self.directory)]
        return False

    def server(self):
        def running():
            children = Path(f"/proc/{self.keeper}/task/{self.keeper}/children").read_text().split()
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                return [int(pid) for pid in children if Path(f"/proc/{pid}/comm").read_text() == "imgfs-server\n"]
            return []

        return machine.wait_until(running, f"a server of {self.directory}")[0]

    def descriptors(self):
        """What the keeper has open, but for the server's program: that is another after an upgrade."""
        paths = [os.readlink(f"/proc/{self.keeper}/fd/{fd}") for fd in os.listdir(f"/proc/{self.keeper}/fd")]
        return sorted(path for path in paths if "imgfs-server" not in path)

    def read(self):
        return (self.directory / "etc/passwd").read_bytes()

    def unmount(self):
        server = self.server()
        machine.run(*self.prefix, machine.IMGFS, "umount", self.directory)
        machine.wait_until(lambda: not {self.keeper, server} & machine.processes().keys(), "the end of keeper and server")


@pytest.fixture
def mounted_by(work, store):
    """A function that mounts the invoker by an installation: from the store, or as `what` says."""
    mounts = []

    def make(installed, prefix=(), what=None):
        what = what or ("--store", store.path, store.add("inv-v1"))
        mounts.append(Mounted(installed, what, work / f"mount-{len(mounts)}", prefix))
        return mounts[-1]

    yield make
    for one in mounts:
        subprocess.run([*one.prefix, "umount", "--lazy", one.directory], check=False, capture_output=True, timeout=20)


def test_package_is_replaced(installation, other_build, mounted_by):
    """Other files appear under the same names; the mount goes on as these, and nothing is lost or left."""
    installed = installation("one")
    mounted = mounted_by(installed)
    before, content, first = mounted.descriptors(), mounted.read(), mounted.server()
    for build in (other_build, machine.BUILD):
        installed.install(build)
        assert not installed.runs(mounted.keeper, "imgfs-keeper"), "the mount has not changed by itself"
        done = installed.imgfs("upgrade", mounted.directory)
        assert done.stdout == f"upgraded {mounted.directory}\n"
        assert installed.runs(mounted.keeper, "imgfs-keeper")
        assert installed.runs(mounted.server(), "imgfs-server")
        assert mounted.server() != first
        assert mounted.descriptors() == before
        assert mounted.read() == content
    mounted.unmount()


def test_servers_of_the_new_build_follow(installation, other_build, mounted_by):
    """Also the server that takes over from one that was killed is the new program, though its file is gone by then."""
    old, new = installation("old"), installation("new", other_build)
    mounted = mounted_by(old)
    new.imgfs("upgrade", mounted.directory)
    server, inode = mounted.server(), os.stat(new["imgfs-server"]).st_ino
    shutil.rmtree(old.directory)
    new["imgfs-server"].unlink()
    os.kill(server, signal.SIGKILL)
    machine.wait_until(lambda: mounted.server() != server, "another server")
    assert os.stat(f"/proc/{mounted.server()}/exe").st_ino == inode
    mounted.unmount()


@pytest.fixture
def namespace(work):
    """Words that run a command in a mount namespace of the test's own, so that it sees no mounts of others."""
    space = MountNamespace(work)
    yield space.prefix
    space.close()


def test_all_mounts(installation, other_build, mounted_by, namespace):
    """All are those of the mount namespace."""
    old, new = installation("old"), installation("new", other_build)
    outside, *inside = [mounted_by(old), mounted_by(old, namespace), mounted_by(old, namespace)]
    done = machine.run(*namespace, new["imgfs"], "upgrade")
    assert sorted(done.stdout.splitlines()) == [f"upgraded {one.directory}" for one in inside]
    for one in inside:
        assert new.runs(one.keeper, "imgfs-keeper")
        one.unmount()
    assert old.runs(outside.keeper, "imgfs-keeper")
    assert machine.run(*namespace, new["imgfs"], "upgrade").stdout == "no image is mounted\n"
    outside.unmount()


@pytest.mark.parametrize("source", ["store", "http"])
@pytest.mark.parametrize("kill", [(), ("--kill",)], ids=["quiet", "killed"])
def test_readers_do_not_notice(kill, source, installation, other_build, mounted_by, unpacked, store, serve, work, request):
    """Up and down between two builds, while readers compare; also with an empty cache, and while servers are killed."""
    old, new = installation("old"), installation("new", other_build)
    name, what = store.add("inv-v1"), None
    if source == "http":
        what = ("--plain-http", "--cache", work / "cache", f"{serve().host}/{name}")
    mounted = mounted_by(old, what=what)
    done = machine.run(
        sys.executable, UPGRADE_READERS, "--json", "--readers", 4, "--seed", 1, *kill, mounted.directory, unpacked("inv-v1"),
        UPGRADES, new["imgfs"], old["imgfs"], check=False, timeout=60 + 20 * UPGRADES,
    )
    report = json.loads(done.stdout)
    faults = {kind: report[kind] for kind in ("failed", "errors", "short", "wrong", "hung", "broken")}
    assert not any(faults.values()), f"{faults}\n{done.stderr}"
    assert report["upgrades"] == UPGRADES
    assert report["operations"] > 0
    assert (report["kills"] > 0) == bool(kill)
    if REPORT:
        with open(REPORT, "a", encoding="utf-8") as file:
            file.write(json.dumps({"test": request.node.name, **report}) + "\n")
    mounted.unmount()


def refusal(installed, mounted):
    """What `imgfs upgrade` says when it fails; the mount has to be as it was."""
    old = mounted.server()
    done = installed.imgfs("upgrade", mounted.directory, check=False)
    assert done.returncode == 1
    assert done.stdout == ""
    assert mounted.server() == old
    assert mounted.read()
    return done.stderr


def test_program_of_another_state(installation, mounted_by):
    """A keeper asks before it becomes a program that may not know what to do with the mount."""
    installed, other = installation("one"), installation("other")
    mounted = mounted_by(installed)
    for answer in ("echo imgfs-keeper state 2 journal 1 plan 1", "exit 2", "yes", "exec 3>&1 >&-; exec sleep 0"):
        other.replace("imgfs-keeper", f"#!/bin/sh\n{answer}\n")
        assert "cannot go on for the running keeper" in refusal(other, mounted)
    other.replace("imgfs-keeper", "#!/nowhere\n")
    assert "cannot go on for the running keeper" in refusal(other, mounted)
    assert installed.runs(mounted.keeper, "imgfs-keeper")
    mounted.unmount()


def test_programs_missing(installation, mounted_by, work):
    installed, other = installation("one"), installation("other")
    mounted = mounted_by(installed)
    (work / "bin").mkdir()
    other["imgfs"].rename(work / "bin/imgfs")
    server = mounted.server()
    done = machine.run(work / "bin/imgfs", "upgrade", mounted.directory, check=False)
    assert done.returncode == 3
    assert "install imgfs completely" in done.stderr
    assert mounted.server() == server
    mounted.unmount()


def test_server_that_does_not_start(installation, mounted_by):
    """The keeper is new then, and goes on with the old server; a better one can follow."""
    old, broken = installation("old"), installation("broken")
    broken.replace("imgfs-server", "#!/bin/sh\nexit 3\n")
    mounted = mounted_by(old)
    done = broken.imgfs("upgrade", mounted.directory, check=False)
    assert done.returncode == 1
    assert "the old server goes on" in done.stderr
    assert mounted.read()
    assert old.runs(mounted.server(), "imgfs-server")
    old.imgfs("upgrade", mounted.directory)
    assert old.runs(mounted.keeper, "imgfs-keeper")
    mounted.unmount()


def waits_for_upgrade(pid):
    """Is a signal queued that the process has not seen?"""
    pending = Path(f"/proc/{pid}/status").read_text().split("ShdPnd:")[1].split()[0]
    return int(pending, 16) >> (signal.SIGRTMIN + 3 - 1) & 1


@pytest.fixture
def asked(installation, mounted_by):
    """A mount whose keeper is stopped, and an `imgfs upgrade` that waits for it."""
    installed = installation("one")
    mounted = mounted_by(installed)
    os.kill(mounted.keeper, signal.SIGSTOP)
    with subprocess.Popen(
        [installed["imgfs"], "upgrade", mounted.directory], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as asking:
        try:
            machine.wait_until(lambda: waits_for_upgrade(mounted.keeper), "the request")
            yield mounted, asking
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(mounted.keeper, signal.SIGCONT)
            machine.end(asking)


def test_keeper_ends_meanwhile(asked):
    mounted, asking = asked
    os.kill(mounted.keeper, signal.SIGKILL)
    out, errors = asking.communicate(timeout=60)
    assert (asking.returncode, out) == (1, "")
    assert "its imgfs-keeper ended meanwhile" in errors
    machine.imgfs("umount", mounted.directory)


def test_nobody_waits_any_more(asked):
    """A request whose sender is gone is no reason to do anything."""
    mounted, asking = asked
    server = mounted.server()
    asking.kill()
    asking.wait(60)
    os.kill(mounted.keeper, signal.SIGCONT)
    machine.wait_until(lambda: "request for an upgrade that cannot be read" in mounted.log.read_text(), "the keeper's complaint")
    assert mounted.server() == server
    assert mounted.read()
    mounted.unmount()


def test_what_is_no_mount(installation, work):
    installed = installation("one")
    done = installed.imgfs("upgrade", work, check=False)
    assert done.returncode == 1
    assert f"{work} is not an imgfs mount" in done.stderr


@pytest.fixture
def others_may_enter(work):
    """Lets every user reach the test's directory."""
    for directory in (work, work.parent):
        directory.chmod(0o711)


NOBODY = ("setpriv", "--reuid", "65534", "--clear-groups")


def test_mount_of_root(installation, mounted_by, others_may_enter):  # pylint: disable=unused-argument
    installed = installation("one")
    mounted = mounted_by(installed)
    server = mounted.server()
    done = machine.run(*NOBODY, installed["imgfs"], "upgrade", mounted.directory, check=False)
    assert done.returncode == 1
    assert "user 0 has mounted it, who alone can upgrade it" in done.stderr
    assert mounted.server() == server
    mounted.unmount()


def test_keeper_of_a_user(installation, mounted_by, work, others_may_enter):  # pylint: disable=unused-argument
    """A process that looks like a keeper, but is somebody else's, gets no signal from root: this one it would end."""
    installed = installation("one")
    mounted = mounted_by(installed)
    shutil.copy2("/bin/cat", work / "imgfs-keeper")
    with subprocess.Popen([*NOBODY, work / "imgfs-keeper", mounted.directory, "-"], stdin=subprocess.PIPE) as user:
        try:
            machine.wait_until(lambda: user.pid in machine.processes_of(work / "imgfs-keeper"), "the process")
            done = installed.imgfs("upgrade", mounted.directory, check=False)
            assert done.returncode == 1
            assert done.stdout == f"upgraded {mounted.directory}\n"
            assert "user 65534 has mounted it" in done.stderr
            assert user.poll() is None
        finally:
            machine.end(user)
    mounted.unmount()


def test_keeper_that_cannot_be_upgraded(installation, mounted_by, work):
    """One that does not wait for the signal, such as those of older versions, gets none."""
    installed = installation("one")
    mounted = mounted_by(installed)
    shutil.copy2("/bin/cat", work / "imgfs-keeper")
    with subprocess.Popen([work / "imgfs-keeper", mounted.directory, "-"], stdin=subprocess.PIPE) as old:
        try:
            machine.wait_until(lambda: old.pid in machine.processes_of(work / "imgfs-keeper"), "the process")
            done = installed.imgfs("upgrade", mounted.directory, check=False)
            assert done.returncode == 1
            assert "is of a version that cannot be upgraded in place" in done.stderr
            assert old.poll() is None
        finally:
            machine.end(old)
    mounted.unmount()
