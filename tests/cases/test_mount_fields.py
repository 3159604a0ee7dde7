"""What a file can have, kept to the last bit: an image with every field, beside the same tar unpacked by GNU tar."""
import contextlib
import ctypes
import errno
import fcntl
import io
import mmap
import os
import shutil
import stat
import struct
import subprocess
import tarfile
import tempfile
from pathlib import Path

import pytest

import machine
import random_trees
import tree

LIBC = ctypes.CDLL(None, use_errno=True)
MANY = 100000
NET_RAW = 13
# struct vfs_ns_cap_data's predecessor, version 2 with the effective bit (linux/capability.h).
CAPABILITY = struct.pack("<5I", 0x02000001, 1 << NET_RAW, 0, 0, 0)
ACL = "user::rw-,user:1000:r--,group::---,mask::r--,other::---"
DEFAULT_ACL = "user::rwx,user:1000:rwx,group::r-x,mask::rwx,other::---"
BINARY = bytes(range(256)) * 4
LARGE = bytes(reversed(range(256))) * 250  # near the most that the kernel lets an attribute have: 65,536 bytes
DEPTH = 19  # as far as one name in a tar may reach: 4,095 bytes


def add(tar, name, kind=tarfile.REGTYPE, content=b"", xattrs=(), **fields):
    info = tarfile.TarInfo(name)
    info.type, info.size, info.mode, info.mtime = kind, len(content), 0o644, 1700000000
    for key, value in fields.items():
        setattr(info, key, value)
    info.pax_headers = dict(fields.get("pax_headers", {}))
    for key, value in xattrs:
        info.pax_headers[f"SCHILY.xattr.{key}"] = value.decode("utf-8", "surrogateescape")
    tar.addfile(info, io.BytesIO(content))


def make_tar():
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
        add(tar, ".", tarfile.DIRTYPE, mode=0o755)
        for mode in (0, 0o4755, 0o2755, 0o1644, 0o7777, 0o111):
            add(tar, f"mode-{mode:04o}", content=b"x", mode=mode)
        add(tar, "sticky", tarfile.DIRTYPE, mode=0o1777)
        add(tar, "owner", content=b"x", uid=4000000000, gid=3999999999)
        add(tar, "nanoseconds", content=b"x", pax_headers={"mtime": "1700000000.123456789"})
        add(tar, "before-1970", content=b"x", pax_headers={"mtime": "-100.5"})
        add(tar, "far", content=b"x", pax_headers={"mtime": "8589934592"})
        add(tar, "xattrs", content=b"x",
            xattrs=[("user.a", b"1"), ("user.binary", BINARY), ("user.empty-not", b"\0"), ("trusted.t", b"t"), ("user.\u00e4", b"name")])
        add(tar, "capable", content=Path("/usr/bin/cat").read_bytes(), mode=0o755, xattrs=[("security.capability", CAPABILITY)])
        add(tar, "set-uid", content=Path("/usr/bin/id").read_bytes(), mode=0o4755, uid=1234)
        add(tar, "program", content=b"#!/bin/sh\necho ran\n", mode=0o755)
        add(tar, "acl", content=b"readable by 1000", mode=0o640, pax_headers={"SCHILY.acl.access": ACL})
        add(tar, "acl-dir", tarfile.DIRTYPE, mode=0o750, pax_headers={"SCHILY.acl.access": "user::rwx,group::r-x,other::---", "SCHILY.acl.default": DEFAULT_ACL})
        add(tar, "one", content=b"linked")
        for name in ("two", "three"):
            add(tar, name, tarfile.LNKTYPE, linkname="one")
        add(tar, "char", tarfile.CHRTYPE, devmajor=1, devminor=3, mode=0o666)
        add(tar, "block", tarfile.BLKTYPE, devmajor=4095, devminor=1048575)
        add(tar, "fifo", tarfile.FIFOTYPE)
        add(tar, "loop-a", tarfile.SYMTYPE, linkname="loop-b")
        add(tar, "loop-b", tarfile.SYMTYPE, linkname="loop-a")
        add(tar, "pieces", content=b"".join(struct.pack("<I", number) for number in range(200000)))
        add(tar, "empty")
        add(tar, "long-link", tarfile.SYMTYPE, linkname="t" * 4095)
        add(tar, "n" * 255, content=b"x")
        add(tar, "\udcff\udcfe not utf-8", content=b"x")
        deep = "/".join(["d" * 200] * DEPTH)
        for level in range(1, DEPTH + 1):
            add(tar, "/".join(deep.split("/")[:level]), tarfile.DIRTYPE, mode=0o755)
        add(tar, f"{deep}/end", content=b"deep")
        add(tar, "big", tarfile.DIRTYPE, mode=0o755)
        for number in range(MANY):
            add(tar, f"big/{number:06d}")
    return file.getvalue()


@pytest.fixture(scope="module")
def tar():
    return make_tar()


def make_sparse_layer(session_dir):
    """A file with holes, as GNU tar writes it, and an attribute that ext4 cannot have."""
    with tempfile.TemporaryDirectory(dir=session_dir) as directory:
        with open(f"{directory}/sparse", "wb") as file:
            for at in (1 << 20, 7 << 20):
                file.seek(at)
                file.write(b"data" * 16384)
            file.truncate(20 << 20)
        sparse = subprocess.run(["tar", "-c", "--sparse", "--format=pax", "-C", directory, "sparse"], stdout=subprocess.PIPE, check=True).stdout
        assert len(sparse) < 1 << 20
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
        add(tar, "large-xattr", content=b"x", xattrs=[("user.large", LARGE)])
        add(tar, "linked-later", tarfile.LNKTYPE, linkname="empty")
    return [sparse, file.getvalue()]


@pytest.fixture(scope="module")
def unpacked_by_tar(tar, session_dir):
    root = session_dir / "fields-tar"
    root.mkdir()
    subprocess.run(["tar", "-x", "--xattrs", "--xattrs-include=*", "--acls", "-p", "--numeric-owner", "-C", root], input=tar, check=True)
    return root


@pytest.fixture(scope="module")
def exported(tar, session_dir):
    """The store with the image, and what it takes to mount it."""
    place = session_dir / "fields"
    random_trees.write_layout(place / "layout", [random_trees.Image("fields", [tar, *make_sparse_layer(session_dir)])])
    machine.imgfs("export", "--store", place / "store", "--tag", "fields:1", f"oci:{place}/layout:fields")
    (place / "cache").mkdir()
    yield ("--store", place / "store", "--cache", place / "cache", "fields:1")
    shutil.rmtree(place)


@pytest.fixture(scope="module")
def mounted(exported, session_dir):
    one = machine.Mount(session_dir / "fields-mount", session_dir / "fields.log", *exported)
    yield one.directory
    one.unmount()


def scan_shallow(root):
    """As tree.scan(), but not below the chain of directories, whose paths are too long for it."""
    done = {}
    for name in [".", *sorted(os.listdir(root))]:
        # The last ones are of the layers on top.
        if not name.startswith("ddd") and name not in ("sparse", "large-xattr", "linked-later", "empty"):
            fields, inode = tree.entry(os.path.join(root, name))
            done[name] = {**fields, "inode": inode[1] if fields["links"] > 1 and name in ("one", "two", "three") else 0}
    return done


def test_every_field(mounted, unpacked_by_tar):
    ours, reference = scan_shallow(mounted), scan_shallow(unpacked_by_tar)
    for scan in (ours, reference):
        assert scan["one"]["inode"] == scan["two"]["inode"] == scan["three"]["inode"]
        for name in ("one", "two", "three"):
            scan[name]["inode"] = 0
    found = tree.compare(reference, ours)
    assert not found, "\n".join(found)
    assert ours["one"]["links"] == 3
    assert ours["nanoseconds"]["mtime"] == 1700000000123456789
    assert ours["before-1970"]["mtime"] == -100500000000
    assert ours["far"]["mtime"] == 8589934592 * 10**9
    attributes = ours["xattrs"]["xattrs"]
    assert attributes["trusted.t"] == b"t".hex() and attributes["user.binary"] == BINARY.hex() and attributes["user.\u00e4"] == b"name".hex()
    assert ours["capable"]["xattrs"]["security.capability"] == CAPABILITY.hex()
    assert set(ours["acl"]["xattrs"]) == {"system.posix_acl_access"} and "system.posix_acl_default" in ours["acl-dir"]["xattrs"]


def test_layers_on_top(mounted):
    assert os.getxattr(mounted / "large-xattr", "user.large") == LARGE
    assert os.stat(mounted / "empty").st_nlink == 2 and os.path.samefile(mounted / "empty", mounted / "linked-later")


def test_holes(mounted):
    """A sparse file reads as zeros where it has none, takes no room for it, and says where its data is."""
    with open(mounted / "sparse", "rb", buffering=0) as file:
        at = os.fstat(file.fileno())
        assert at.st_size == 20 << 20 and 128 << 10 <= at.st_blocks * 512 < 1 << 20
        content = file.read()
        assert len(content) == at.st_size and content.count(b"data") == 32768 and content.strip(b"\0").startswith(b"data")
        found, position = [], 0
        while position < at.st_size:
            try:
                data = os.lseek(file.fileno(), position, os.SEEK_DATA)
            except OSError as fault:
                assert fault.errno == errno.ENXIO
                break
            position = os.lseek(file.fileno(), data, os.SEEK_HOLE)
            found.append((data, position))
    assert found == [(1 << 20, (1 << 20) + 65536), (7 << 20, (7 << 20) + 65536)]


def test_deep_path(mounted):
    at = os.open(mounted, os.O_RDONLY | os.O_DIRECTORY)
    for _ in range(DEPTH):
        below = os.open("d" * 200, os.O_RDONLY | os.O_DIRECTORY, dir_fd=at)
        os.close(at)
        at = below
    file = os.open("end", os.O_RDONLY, dir_fd=at)
    assert os.read(file, 100) == b"deep"
    os.close(file)
    os.close(at)


def test_a_large_directory(mounted):
    """All entries, each once; positions of telldir() stay good; types without a stat()."""
    with os.scandir(mounted / "big") as entries:
        names = [entry.name for entry in entries if entry.is_file(follow_symlinks=False)]
    assert len(names) == len(set(names)) == MANY
    LIBC.opendir.restype = LIBC.readdir.restype = ctypes.c_void_p
    LIBC.telldir.restype, LIBC.telldir.argtypes = ctypes.c_long, [ctypes.c_void_p]
    LIBC.readdir.argtypes = LIBC.closedir.argtypes = [ctypes.c_void_p]
    LIBC.seekdir.argtypes = [ctypes.c_void_p, ctypes.c_long]

    def name_at(entry):
        return ctypes.string_at(entry + 19).decode()  # d_name of struct dirent

    directory = LIBC.opendir(os.fsencode(mounted / "big"))
    assert directory
    positions = []
    for number in range(60000):
        if number % 7919 == 0:
            positions.append((LIBC.telldir(directory), None))
        entry = LIBC.readdir(directory)
        if number % 7919 == 0:
            positions[-1] = (positions[-1][0], name_at(entry))
    for position, name in reversed(positions):
        LIBC.seekdir(directory, position)
        assert name_at(LIBC.readdir(directory)) == name
    LIBC.closedir(directory)


# struct linux_dirent64 up to its name: inode, offset, length of the record, type.
DIRENT = struct.Struct("=QqHB")


def test_types_in_directories(mounted):
    """What getdents64(2) says of types and inodes is what stat() says: tools that trust it need no stat()."""
    directory, seen = os.open(mounted, os.O_RDONLY | os.O_DIRECTORY), {}
    buffer = ctypes.create_string_buffer(1 << 16)
    while (size := LIBC.syscall(217, directory, buffer, len(buffer))) > 0:
        at = 0
        while at < size:
            inode, _, length, kind = DIRENT.unpack_from(buffer, at)
            seen[buffer.raw[at + DIRENT.size:at + length].split(b"\0")[0]] = (inode, kind)
            at += length
    os.close(directory)
    assert size == 0 and seen[b"."][1] == seen[b".."][1] == stat.S_IFDIR >> 12
    for name in os.listdir(os.fsencode(mounted)):
        status = os.lstat(os.fsencode(mounted) + b"/" + name)
        assert seen[name] == (status.st_ino, stat.S_IFMT(status.st_mode) >> 12)


def test_inode_numbers(exported, mounted, mount):
    """Small enough for overlayfs's extra bits, and the same on another mount."""
    again = mount(*exported)
    for name in os.listdir(mounted):
        number = os.lstat(mounted / name).st_ino
        assert 0 < number < 2**48
        assert number == os.lstat(again.directory / name).st_ino
    again.unmount()


def test_statfs(mounted):
    about = os.statvfs(mounted)
    assert about.f_namemax == 255 and about.f_bfree == 0 and about.f_files > MANY and about.f_blocks > 0
    assert about.f_flag & os.ST_RDONLY


READ_ONLY = [
    ("open for writing", lambda root: os.open(root / "empty", os.O_WRONLY)),
    ("create", lambda root: os.open(root / "new", os.O_CREAT | os.O_WRONLY, 0o644)),
    ("truncate", lambda root: os.truncate(root / "one", 0)),
    ("unlink", lambda root: os.unlink(root / "one")),
    ("rmdir", lambda root: os.rmdir(root / "sticky")),
    ("mkdir", lambda root: os.mkdir(root / "new")),
    ("rename", lambda root: os.rename(root / "one", root / "new")),
    ("link", lambda root: os.link(root / "one", root / "new")),
    ("symlink", lambda root: os.symlink("x", root / "new")),
    ("mkfifo", lambda root: os.mkfifo(root / "new")),
    ("chmod", lambda root: os.chmod(root / "one", 0o600)),
    ("chown", lambda root: os.chown(root / "one", 1, 1)),
    ("utime", lambda root: os.utime(root / "one")),
    ("setxattr", lambda root: os.setxattr(root / "one", "user.x", b"1")),
    ("removexattr", lambda root: os.removexattr(root / "xattrs", "user.a")),
]


@pytest.mark.parametrize("call", [call for _, call in READ_ONLY], ids=[name for name, _ in READ_ONLY])
def test_nothing_can_be_changed(call, mounted):
    with pytest.raises(OSError) as caught:
        call(mounted)
    assert caught.value.errno == errno.EROFS


def with_file(path, action):
    file = os.open(path, os.O_RDONLY)
    try:
        return action(file)
    finally:
        os.close(file)


WRONG = [
    (errno.ENOENT, lambda root: os.stat(root / "none")),
    (errno.ENOTDIR, lambda root: os.stat(root / "one/below")),
    (errno.ENAMETOOLONG, lambda root: os.stat(root / ("x" * 256))),
    (errno.EINVAL, lambda root: os.readlink(root / "one")),
    (errno.EISDIR, lambda root: with_file(root / "sticky", lambda file: os.read(file, 1))),
    (errno.ENOTDIR, lambda root: os.listdir(root / "one")),
    (errno.ENOTDIR, lambda root: os.open(root / "one", os.O_RDONLY | os.O_DIRECTORY)),
    (errno.ELOOP, lambda root: os.open(root / "long-link", os.O_RDONLY | os.O_NOFOLLOW)),
    (errno.ELOOP, lambda root: os.stat(root / "loop-a")),
    (errno.ENAMETOOLONG, lambda root: os.stat(root / ("d/" * 2048))),
    (errno.EINVAL, lambda root: with_file(root / "one", lambda file: os.pread(file, 1, -1))),
    (errno.ENXIO, lambda root: os.open(root / "fifo", os.O_WRONLY | os.O_NONBLOCK)),
    (errno.EACCES, lambda root: os.open(root / "char", os.O_RDONLY)),
    (errno.EACCES, lambda root: os.execv(root / "one", ["one"])),
    (errno.ENOEXEC, lambda root: os.execv(root / "mode-0111", ["mode-0111"])),
    (errno.ENOTDIR, lambda root: os.stat(f"{root}/one/")),
    (errno.EBADF, lambda root: with_file(root / "one", lambda file: os.write(file, b"x"))),
    (errno.EROFS, lambda root: os.access(root / "one", os.W_OK) or os.open(root / "one", os.O_RDWR)),
    (errno.ENODATA, lambda root: os.getxattr(root / "xattrs", "user.none")),
    (errno.ENXIO, lambda root: with_file(root / "one", lambda file: os.lseek(file, 100, os.SEEK_DATA))),
]


@pytest.mark.parametrize("code, call", WRONG, ids=[errno.errorcode[code] + str(i) for i, (code, _) in enumerate(WRONG)])
def test_errors_are_those_of_posix(code, call, mounted):
    with pytest.raises(OSError) as caught:
        call(mounted)
    assert caught.value.errno == code


def as_user(uid, *command):
    return machine.run("setpriv", "--reuid", uid, "--regid", uid, "--clear-groups", *command, check=False)


def let_in(path):
    """Lets other users through the directories above."""
    for parent in (path.parent, path):
        parent.chmod(0o755)


def test_others_are_kept_out(mounted, session_dir):
    """Modes and ACLs count for other users (default_permissions)."""
    let_in(session_dir)
    done = as_user(1000, "cat", mounted / "mode-0000")
    assert done.returncode != 0 and "Permission denied" in done.stderr
    assert as_user(1000, "cat", mounted / "one").stdout == "linked"
    assert as_user(1000, "test", "-x", mounted / "mode-4755").returncode == 0
    assert as_user(1000, "test", "-x", mounted / "one").returncode != 0
    assert as_user(1000, "cat", mounted / "acl").stdout == "readable by 1000"
    assert "Permission denied" in as_user(1001, "cat", mounted / "acl").stderr
    assert "Permission denied" in as_user(1000, "ls", mounted / "acl-dir").stderr


def test_privileges_of_files(exported, mounted, mount, session_dir):
    """Set-uid and capabilities count where --suid says so, and else not."""
    let_in(session_dir)
    trusting = mount("--suid", *exported)
    let_in(trusting.directory.parent)
    for root, uid, effective in ((mounted, "1000", 0), (trusting.directory, "1234", 1 << NET_RAW)):
        assert as_user(1000, root / "set-uid", "-u").stdout.strip() == uid
        status = as_user(1000, root / "capable", "/proc/self/status").stdout
        capabilities = next(line for line in status.splitlines() if line.startswith("CapEff:"))
        assert int(capabilities.split()[1], 16) == effective
    trusting.unmount()


def test_programs_run(exported, mounted, mount):
    assert machine.run(mounted / "program").stdout == "ran\n"
    strict = mount("--noexec", *exported)
    with pytest.raises(PermissionError):
        machine.run(strict.directory / "program")
    strict.unmount()


def test_ways_to_read(mounted):
    """Maps, direct and vectored reads, sendfile and splice all give the same bytes; so do reads across the end."""
    expected = b"".join(struct.pack("<I", number) for number in range(200000))
    with open(mounted / "pieces", "rb", buffering=0) as file:
        fd = file.fileno()
        with mmap.mmap(fd, 0, prot=mmap.PROT_READ) as mapped:
            assert mapped[:] == expected
        with mmap.mmap(fd, 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE) as mapped:
            mapped[:4] = b"mine"
            assert os.pread(fd, 4, 0) == expected[:4]
        assert os.pread(fd, 100, len(expected) - 10) == expected[-10:]
        assert os.pread(fd, 100, len(expected)) == os.pread(fd, 100, len(expected) + 12345) == b""
        parts = [bytearray(7), bytearray(5000), bytearray(100000)]
        assert os.preadv(fd, parts, 12345) == 105007 and b"".join(parts) == expected[12345:12345 + 105007]
        with tempfile.TemporaryFile() as copy:
            assert os.sendfile(copy.fileno(), fd, 1000, 300000) == 300000
            copy.seek(0)
            assert copy.read() == expected[1000:301000]
        reader, writer = os.pipe()
        count = os.splice(fd, writer, 4096, offset_src=777)
        assert os.read(reader, count) == expected[777:777 + count]
        os.close(reader)
        os.close(writer)
        os.fsync(fd)
        os.fdatasync(fd)
    direct = os.open(mounted / "pieces", os.O_RDONLY | os.O_DIRECT)
    with mmap.mmap(-1, 1 << 16) as aligned:
        assert os.preadv(direct, [aligned], 1 << 17) == 1 << 16 and aligned[:] == expected[1 << 17:(1 << 17) + (1 << 16)]
    os.close(direct)


def test_locks_and_watches(mounted):
    """Programs lock files and watch directories of read-only images, too."""
    with open(mounted / "one", "rb") as one, open(mounted / "one", "rb") as two:
        fcntl.flock(one, fcntl.LOCK_EX)
        with pytest.raises(BlockingIOError):
            fcntl.flock(two, fcntl.LOCK_SH | fcntl.LOCK_NB)
        fcntl.lockf(one, fcntl.LOCK_SH)
    watcher = LIBC.inotify_init1(os.O_NONBLOCK)
    assert LIBC.inotify_add_watch(watcher, os.fsencode(mounted), 0x20) >= 0  # IN_OPEN
    (mounted / "three").read_bytes()
    assert b"three" in os.read(watcher, 4096)
    os.close(watcher)


def test_by_handle(mounted):
    """Files can be opened by handle (as knfsd does), and a stale handle says so."""
    class Handle(ctypes.Structure):
        _fields_ = [("bytes", ctypes.c_uint), ("type", ctypes.c_int), ("data", ctypes.c_ubyte * 128)]

    handle, mount_id = Handle(bytes=128), ctypes.c_int()
    assert LIBC.name_to_handle_at(-100, os.fsencode(mounted / "one"), ctypes.byref(handle), ctypes.byref(mount_id), 0) == 0
    subprocess.run(["sh", "-c", "echo 2 >/proc/sys/vm/drop_caches"], check=False)
    root = os.open(mounted, os.O_RDONLY)
    try:
        file = LIBC.open_by_handle_at(root, ctypes.byref(handle), os.O_RDONLY)
        assert file >= 0, os.strerror(ctypes.get_errno())
        assert os.read(file, 100) == b"linked" and stat.S_ISREG(os.fstat(file).st_mode)
        os.close(file)
        for i in range(4):
            handle.data[i] = 0xff
        assert LIBC.open_by_handle_at(root, ctypes.byref(handle), os.O_RDONLY) == -1
        assert ctypes.get_errno() == errno.ESTALE
    finally:
        os.close(root)


class Overlay:
    """An overlay in a tmpfs of its own, whose directory is `merged`."""

    def __init__(self, scratch, lowers, *options, prefix=()):
        self.scratch, self.merged, self.prefix = scratch, scratch / "merged", prefix
        scratch.mkdir(exist_ok=True)
        machine.run(*prefix, "mount", "-t", "tmpfs", "tmpfs", scratch)
        try:
            machine.run(*prefix, "mkdir", scratch / "upper", scratch / "work", self.merged)
            lower = ":".join(str(path) for path in lowers)
            text = ",".join([f"lowerdir={lower}", f"upperdir={scratch}/upper", f"workdir={scratch}/work", *options])
            machine.run(*prefix, "mount", "-t", "overlay", "-o", text, "overlay", self.merged)
        except AssertionError:
            machine.run(*prefix, "umount", scratch)
            raise

    def __enter__(self):
        return self.merged

    def __exit__(self, *_exception):
        machine.run(*self.prefix, "umount", self.merged)
        machine.run(*self.prefix, "umount", self.scratch)


def test_below_overlayfs(mounted, work):
    """Copy-up keeps what a file has; whiteouts and renames work on top."""
    with Overlay(work / "scratch", [mounted]) as merged:
        for name in ("xattrs", "capable", "acl", "set-uid", "owner", "nanoseconds", "mode-7777"):
            before = tree.entry(mounted / name)[0]
            assert tree.entry(merged / name)[0] == before
            os.rename(merged / name, merged / f"{name}-moved")
            assert tree.entry(merged / f"{name}-moved")[0] == before
        os.unlink(merged / "one")
        os.rename(merged / "two", merged / "moved")
        assert not (merged / "one").exists() and (merged / "moved").read_text() == "linked"
        assert (merged / "three").read_text() == "linked"
        assert (mounted / "one").read_text() == "linked"
        shutil.rmtree(merged / "acl-dir")
        (merged / "acl-dir").mkdir()
        assert not os.listdir(merged / "acl-dir") and os.stat(merged / "acl-dir").st_mode & 0o777 == 0o755


def test_two_lower_directories(exported, mounted, mount, work):
    """The same image twice, as of two releases: inode numbers are those of overlayfs, content that of the upper one."""
    again = mount(*exported)
    with Overlay(work / "scratch", [mounted, again.directory], "xino=on") as merged:
        names = os.listdir(merged)
        assert sorted(names) == sorted(os.listdir(mounted))
        assert len(os.listdir(merged / "big")) == MANY
        assert (merged / "pieces").read_bytes() == (mounted / "pieces").read_bytes()
    again.unmount()


def test_userxattr_in_a_user_namespace(mounted, session_dir, work):
    """As rootless engines use it: the overlay's own attributes are user.overlay.*, and root there is a user here."""
    let_in(session_dir)
    work.chmod(0o755)
    scratch = work / "scratch"
    scratch.mkdir()
    script = """
        set -e
        mount -t tmpfs tmpfs "$1" && mkdir "$1/upper" "$1/work" "$1/merged"
        mount -t overlay -o "userxattr,lowerdir=$0,upperdir=$1/upper,workdir=$1/work" overlay "$1/merged"
        cd "$1/merged"
        test "$(cat one)" = linked
        echo changed >>two && test "$(cat two)" = linkedchanged && test "$(cat three)" = linked
        rm one && test ! -e one
        rm -r sticky && mkdir sticky && /usr/bin/python3 -c 'import os; print(os.getxattr("../upper/sticky", "user.overlay.opaque").decode())'
        sha256sum <pieces
    """
    done = machine.run("unshare", "--user", "--map-root-user", "--mount", "bash", "-c", script, mounted, scratch)
    assert done.stdout.startswith("y") and tree.digest(mounted / "pieces") in done.stdout


class IdMap(ctypes.Structure):
    """struct mount_attr of mount_setattr(2)."""

    _fields_ = [(name, ctypes.c_uint64) for name in ("set", "clear", "propagation", "userns")]


@contextlib.contextmanager
def idmapped(source, target):
    """A mount of `source` in which its uid 0 is 100000. Skips where the kernel does not offer it for FUSE."""
    tree_fd = LIBC.syscall(428, -100, os.fsencode(source), 1)  # open_tree(OPEN_TREE_CLONE)
    assert tree_fd >= 0
    holder = subprocess.Popen(["unshare", "--user", "sleep", "infinity"])
    target.mkdir()
    try:
        machine.wait_until(lambda: os.readlink(f"/proc/{holder.pid}/ns/user") != os.readlink("/proc/self/ns/user"), "a namespace")
        for name in ("uid_map", "gid_map"):
            with open(f"/proc/{holder.pid}/{name}", "w", encoding="ascii") as file:
                file.write("0 100000 65536")
        with open(f"/proc/{holder.pid}/ns/user", "rb") as userns:
            attributes = IdMap(set=0x00100000, userns=userns.fileno())  # MOUNT_ATTR_IDMAP
            done = LIBC.syscall(442, tree_fd, b"", 0x1000, ctypes.byref(attributes), ctypes.sizeof(attributes))
        if tuple(int(part) for part in os.uname().release.split(".")[:2]) < (6, 12):  # FUSE_ALLOW_IDMAP
            assert done != 0 and ctypes.get_errno() == errno.EINVAL
            pytest.skip("this kernel has no idmapped FUSE mounts")
        assert done == 0, os.strerror(ctypes.get_errno())
        assert LIBC.syscall(429, tree_fd, b"", -100, os.fsencode(target), 4) == 0  # move_mount(MOVE_MOUNT_F_EMPTY_PATH)
        yield target
    finally:
        os.close(tree_fd)
        machine.run("umount", target, check=False)
        machine.end(holder)


def test_idmapped(mounted, work):
    """Owners are seen through the map; also when it is the lower directory of an overlay."""
    with idmapped(mounted, work / "mapped") as target:
        assert os.lstat(target / "one").st_uid == 100000
        assert os.lstat(mounted / "one").st_uid == 0
        assert (target / "one").read_text() == "linked"
        with Overlay(work / "scratch", [target]) as merged:
            assert os.lstat(merged / "one").st_uid == 100000 and (merged / "one").read_text() == "linked"
            with open(merged / "three", "a", encoding="ascii") as file:
                file.write("!")
            assert os.lstat(merged / "three").st_uid == 100000 and (merged / "three").read_text() == "linked!"
