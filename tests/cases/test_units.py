"""The systemd units: what systemd itself says of them, and that none of them would hide mounts from the host."""
import re
import shutil

import pytest

import machine

UNITS = machine.BUILD / "tools/deploy/systemd"
NAMES = ["imgfs-keeper.service", "imgfs-snapshotter.service", "imgfs-snapshotter.socket", "imgfsd.service"]
SERVICES = [name for name in NAMES if name.endswith(".service")]
PROGRAMS = {"imgfsd": machine.IMGFS, "imgfs-snapshotter": machine.BUILD / "snapshotter/imgfs-snapshotter"}
# Each of these gives the service a mount namespace of its own (systemd.exec(5)): what it mounts would be seen by nobody else.
UNSHARE = (
    "BindPaths", "BindReadOnlyPaths", "DynamicUser", "ExecPaths", "ExtensionImages", "InaccessiblePaths", "MountAPIVFS", "MountFlags",
    "MountImages", "NoExecPaths", "PrivateDevices", "PrivateMounts", "PrivateTmp", "PrivateUsers", "ProcSubset", "ProtectControlGroups",
    "ProtectHome", "ProtectKernelLogs", "ProtectKernelModules", "ProtectKernelTunables", "ProtectProc", "ProtectSystem", "ReadOnlyPaths",
    "ReadWritePaths", "RootDirectory", "RootImage", "TemporaryFileSystem", "PrivateIPC", "LogNamespace",
)


@pytest.fixture(name="units")
def make_units(work):
    """The units as installed, with programs that exist."""
    if not shutil.which("systemd-analyze"):
        pytest.skip("systemd-analyze is not installed")
    for program, built in PROGRAMS.items():
        (work / program).symlink_to(built)
    for unit in (UNITS / name for name in NAMES):
        text, count = re.subn(r"^(ExecStart=)/\S+/", rf"\g<1>{work}/", unit.read_text(), flags=re.M)
        assert count == (unit.suffix == ".service")
        (work / unit.name).write_text(text)
    return work


def test_verify(units):
    paths = [units / name for name in NAMES]
    assert sorted(path.name for path in UNITS.glob("imgfs*.*")) == NAMES, "no unit is left out"
    done = machine.run("systemd-analyze", "verify", "--man=no", *paths)
    assert done.stderr == ""
    # It does say what is wrong.
    for path in paths:
        path.write_text(path.read_text() + "Colour=red\n")
        assert "Colour" in machine.run("systemd-analyze", "verify", "--man=no", path, check=False).stderr


@pytest.mark.parametrize("name", SERVICES)
def test_the_hosts_mount_namespace(name):
    keys = {line.partition("=")[0] for line in (UNITS / name).read_text().splitlines() if line and line[0].isalpha()}
    assert keys and not keys & set(UNSHARE)


@pytest.mark.parametrize("name", ["imgfsd.service", "imgfs-snapshotter.service"])
def test_exposure(name, units):
    """What is left is what mounting in the host's namespace costs."""
    done = machine.run("systemd-analyze", "security", "--offline=true", "--no-pager", "--threshold=50", units / name, check=False)
    assert done.returncode == 0 and float(re.search(r"exposure level for \S+: ([\d.]+)", done.stdout)[1]) <= 5.0
    plain = units / "plain.service"
    plain.write_text("[Service]\nExecStart=/bin/true\n")
    assert machine.run("systemd-analyze", "security", "--offline=true", "--no-pager", "--threshold=50", plain, check=False).returncode != 0


def test_who_ends_whom():
    """Stopping the manager does not touch the keeper: another unit, which is only wanted."""
    manager, keeper = ((UNITS / name).read_text() for name in ("imgfsd.service", "imgfs-keeper.service"))
    assert "Wants=imgfs-keeper.service" in manager and "After=imgfs-keeper.service" in manager
    for text in (manager, keeper):
        assert not re.search(r"^(Requires|BindsTo|PartOf|Requisite|Conflicts)=", text, re.M)
    assert "--external-keeper" in manager and "KillMode=mixed" in keeper
