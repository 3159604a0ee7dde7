"""What a file can have, kept to the last bit: an image with every field, beside the same tar unpacked by GNU tar."""
import ctypes
import errno
import io
import os
import stat
import subprocess
import tarfile

import pytest

import machine
import random_trees
import tree

LIBC = ctypes.CDLL(None, use_errno=True)
MANY = 100000
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
        add(tar, "xattrs", content=b"x", xattrs=[("user.a", b"1"), ("user.long", b"v" * 3000), ("trusted.t", b"t")])
        add(tar, "capable", content=b"x", mode=0o755)
        add(tar, "acl", content=b"readable by 1000", mode=0o640)
        add(tar, "one", content=b"linked")
        for name in ("two", "three"):
            add(tar, name, tarfile.LNKTYPE, linkname="one")
        add(tar, "char", tarfile.CHRTYPE, devmajor=1, devminor=3, mode=0o666)
        add(tar, "block", tarfile.BLKTYPE, devmajor=4095, devminor=1048575)
        add(tar, "fifo", tarfile.FIFOTYPE)
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


@pytest.fixture(scope="module")
def unpacked_by_tar(tar, session_dir):
    root = session_dir / "fields-tar"
    root.mkdir()
    subprocess.run(["tar", "-x", "--xattrs", "--xattrs-include=*", "-p", "--numeric-owner", "-C", root], input=tar, check=True)
    return root


@pytest.fixture
def mounted(tar, work, mount):
    random_trees.write_layout(work / "layout", [random_trees.Image("fields", [tar])])
    machine.imgfs("export", "--store", work / "store", "--tag", "fields:1", f"oci:{work}/layout:fields")
    one = mount("--store", work / "store", "--cache", work / "cache", "fields:1")
    yield one.directory
    one.unmount()




def scan_shallow(root):
    """As tree.scan(), but not below the chain of directories, whose paths are too long for it."""
    done = {}
    for name in [".", *sorted(os.listdir(root))]:
        if not name.startswith("ddd"):
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
    assert ours["xattrs"]["xattrs"]["trusted.t"] == b"t".hex()


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


def test_inode_numbers(tar, mounted, work, mount):
    """Small enough for overlayfs's extra bits, and the same on another mount."""
    again = mount("--store", work / "store", "--cache", work / "cache", "fields:1")
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
    (errno.ENODATA, lambda root: os.getxattr(root / "xattrs", "user.none")),
    (errno.ENXIO, lambda root: with_file(root / "one", lambda file: os.lseek(file, 100, os.SEEK_DATA))),
]


@pytest.mark.parametrize("code, call", WRONG, ids=[errno.errorcode[code] + str(i) for i, (code, _) in enumerate(WRONG)])
def test_errors_are_those_of_posix(code, call, mounted):
    with pytest.raises(OSError) as caught:
        call(mounted)
    assert caught.value.errno == code


def test_others_are_kept_out(mounted):
    """Modes count for other users (default_permissions)."""
    def as_user(*command):
        prefix = ["setpriv", "--reuid", "1000", "--regid", "1000", "--clear-groups"]
        for path in (mounted.parent, mounted.parent.parent):
            path.chmod(0o755)
        return machine.run(*prefix, *command, check=False)

    assert as_user("cat", mounted / "mode-0000").returncode != 0
    assert as_user("cat", mounted / "one").stdout == "linked"
    assert as_user("test", "-x", mounted / "mode-4755").returncode == 0
    assert as_user("test", "-x", mounted / "one").returncode != 0


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


def test_below_overlayfs(mounted, work):
    """Copy-up keeps what a file has; whiteouts and renames work on top."""
    scratch = work / "scratch"
    scratch.mkdir()
    machine.run("mount", "-t", "tmpfs", "tmpfs", scratch)
    for name in ("upper", "work", "merged"):
        (scratch / name).mkdir()
    merged = scratch / "merged"
    machine.run("mount", "-t", "overlay", "-o", f"lowerdir={mounted},upperdir={scratch}/upper,workdir={scratch}/work",
                "overlay", merged)
    try:
        before = tree.entry(mounted / "xattrs")[0]
        with open(merged / "xattrs", "ab"):
            os.utime(merged / "xattrs", ns=(before["mtime"], before["mtime"]))
        after = tree.entry(merged / "xattrs")[0]
        assert after == {**before, "xattrs": after["xattrs"]}
        assert {"user.a", "user.long"} <= set(after["xattrs"])
        os.unlink(merged / "one")
        os.rename(merged / "two", merged / "moved")
        assert not (merged / "one").exists() and (merged / "moved").read_text() == "linked"
        assert (merged / "three").read_text() == "linked"
        assert (mounted / "one").read_text() == "linked"
    finally:
        machine.run("umount", merged)
        machine.run("umount", scratch)


class IdMap(ctypes.Structure):
    """struct mount_attr of mount_setattr(2)."""

    _fields_ = [(name, ctypes.c_uint64) for name in ("set", "clear", "propagation", "userns")]


def test_idmapped(mounted, work):
    """Where the kernel has idmapped FUSE mounts: owners are seen through the map."""
    tree_fd = LIBC.syscall(428, -100, os.fsencode(mounted), 1)  # open_tree(OPEN_TREE_CLONE)
    assert tree_fd >= 0
    holder = subprocess.Popen(["unshare", "--user", "sleep", "infinity"])
    target = work / "mapped"
    target.mkdir()
    try:
        machine.wait_until(lambda: os.readlink(f"/proc/{holder.pid}/ns/user") != os.readlink("/proc/self/ns/user"), "a namespace")
        for name in ("uid_map", "gid_map"):
            with open(f"/proc/{holder.pid}/{name}", "w", encoding="ascii") as file:
                file.write("0 100000 65536")
        with open(f"/proc/{holder.pid}/ns/user", "rb") as userns:
            attributes = IdMap(set=0x00100000, userns=userns.fileno())  # MOUNT_ATTR_IDMAP
            if LIBC.syscall(442, tree_fd, b"", 0x1000, ctypes.byref(attributes), ctypes.sizeof(attributes)) != 0:
                code = ctypes.get_errno()
                assert code == errno.EINVAL
                pytest.skip("this kernel has no idmapped FUSE mounts")
        assert LIBC.syscall(429, tree_fd, b"", -100, os.fsencode(target), 4) == 0  # move_mount(MOVE_MOUNT_F_EMPTY_PATH)
        assert os.lstat(target / "one").st_uid == 100000
        assert os.lstat(mounted / "one").st_uid == 0
        assert (target / "one").read_text() == "linked"
    finally:
        os.close(tree_fd)
        machine.run("umount", target, check=False)
        machine.end(holder)
