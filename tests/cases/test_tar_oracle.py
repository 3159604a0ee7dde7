"""The tar reader against Python's tarfile, GNU tar and bsdtar, on seeded random tars that these three wrote.

IMGFS_TAR_VARIANTS sets how many tars are made (200 by default); IMGFS_TAR_SEED the first seed.
"""
import hashlib
import json
import os
import pathlib
import random
import shutil
import subprocess
import tarfile

import pytest

VARIANTS = int(os.environ.get("IMGFS_TAR_VARIANTS", "200"))
SEED = int(os.environ.get("IMGFS_TAR_SEED", "1"))
GROUP = 10  # variants a test, so that a report stays readable

UTF8 = {**os.environ, "LC_ALL": "C.UTF-8"}
FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}
TYPES = [tarfile.REGTYPE] * 6 + [
    tarfile.AREGTYPE, tarfile.CONTTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE,
    tarfile.BLKTYPE, tarfile.FIFOTYPE,
]
PLAIN = {tarfile.AREGTYPE: "0", tarfile.CONTTYPE: "0", tarfile.GNUTYPE_SPARSE: "0"}


@pytest.fixture(scope="module")
def tar_list():
    build = os.environ.get("IMGFS_BUILD")
    if not build:
        pytest.skip("IMGFS_BUILD names no build directory")
    program = pathlib.Path(build, "tests/unit/export/tar-list")
    if not program.exists():
        pytest.skip(f"{program} is not built")
    return program


def listing(program, path):
    result = subprocess.run([program, path], capture_output=True, text=True, check=False)
    assert result.returncode == 0, f"{path}: {result.stderr}"
    return [json.loads(line) for line in result.stdout.splitlines()]


def as_bytes(text):
    return text.encode("utf-8", "surrogateescape")


def random_component(rng, longest):
    length = rng.choice([1, 3, 8, 20, longest])
    kind = rng.random()
    if kind < 0.7:
        alphabet = "abcXYZ019 ._-"
    elif kind < 0.9:
        alphabet = "aäöüß€日"
    else:
        alphabet = "a\udc80\udcff\udcfe"
    name = "".join(rng.choice(alphabet) for _ in range(length))
    while len(as_bytes(name)) > 255:
        name = name[:-1]
    return "x" + name[1:] if name.strip(".") == "" else name


def random_path(rng, form):
    if form == "ustar":
        return rng.choice(["", "./"]) + "/".join(random_component(rng, 20) for _ in range(rng.randint(1, 2)))[:30]
    path = rng.choice(["", "./", "/"]) + "/".join(random_component(rng, 120) for _ in range(rng.randint(1, 5)))
    return path


def random_mtime(rng, form):
    if form == "ustar":
        return rng.randrange(0, 8**11)
    if form == "gnu":
        return rng.choice([rng.randrange(0, 2**40), -rng.randrange(1, 2**40), -1])
    fraction = rng.choice([0.5, 0.25])
    return rng.choice([rng.randrange(0, 2**40), -rng.randrange(1, 2**30), rng.randrange(-2**30, 2**32) + fraction])


def random_info(rng, form):
    info = tarfile.TarInfo(random_path(rng, form))
    info.type = rng.choice(TYPES)
    info.mode = rng.randrange(0, 0o10000)
    large = form != "ustar"
    info.uid = rng.choice([0, 1000, 0o7777777] + ([2**31, 2**32 - 2] if large else []))
    info.gid = rng.choice([0, 1000, 0o7777777] + ([2**31, 2**32 - 2] if large else []))
    info.mtime = random_mtime(rng, form)
    data = b""
    if info.type in (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE):
        data = rng.randbytes(rng.choice([0, 1, 511, 512, 513, 4095, 4096, 10000]))
        info.size = len(data)
    elif info.type in (tarfile.SYMTYPE, tarfile.LNKTYPE):
        info.linkname = random_path(rng, form)
    elif info.type in (tarfile.CHRTYPE, tarfile.BLKTYPE):
        info.devmajor, info.devminor = rng.randrange(0, 4096), rng.randrange(0, 2**20)
    if form == "pax":
        if rng.random() < 0.3:
            names = [f"SCHILY.xattr.user.{i}" for i in range(rng.randint(1, 3))]
            info.pax_headers = {name: "väl\x00ue"[: rng.randint(1, 6)] for name in names}
        if rng.random() < 0.1:
            info.pax_headers["comment"] = "x" * rng.randrange(1, 3000)
    return info, data


def make_with_tarfile(rng, path):
    form = rng.choice(list(FORMATS))
    headers = {}
    if form == "pax" and rng.random() < 0.2:
        headers = {"comment": "global", "SCHILY.xattr.user.global": "yes"}
    with open(path, "wb") as file:
        options = {"format": FORMATS[form], "pax_headers": headers, "errors": "surrogateescape"}
        with tarfile.open(fileobj=file, mode="w", **options) as tar:
            # tarfile refuses a lone global header.
            for _ in range(rng.randint(1 if headers else 0, 12)):
                info, data = random_info(rng, form)
                if data:
                    with open(path.with_suffix(".data"), "wb+") as content:
                        content.write(data)
                        content.seek(0)
                        tar.addfile(info, content)
                else:
                    tar.addfile(info)
            end = tar.offset
    ending = rng.random()
    if ending < 0.2:
        os.truncate(path, end)
    elif ending < 0.3:
        with open(path, "ab") as file:
            file.write(rng.randbytes(rng.randrange(1, 3000)))


def make_tree(rng, top):
    files = []
    for number in range(rng.randint(1, 10)):
        path = os.fsencode(top)
        for component in random_path(rng, "gnu").strip("./").split("/")[:4]:
            if component.strip("."):
                path = os.path.join(path, as_bytes(component)[:200])
        path += b"%d" % number
        if len(path) > 3000:
            continue
        try:
            os.makedirs(os.path.dirname(path), exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            continue
        kind = rng.randrange(6)
        if kind == 0 and files:
            os.link(rng.choice(files), path, follow_symlinks=False)
        elif kind == 1:
            os.symlink(as_bytes(random_path(rng, "gnu")), path)
        elif kind == 2:
            os.mkfifo(path)
        elif kind == 3:
            make_sparse(rng, path)
        else:
            with open(path, "wb") as file:
                file.write(rng.randbytes(rng.choice([0, 1, 512, 5000, 70000])))
        if not os.path.islink(path):
            stamp = rng.randrange(-2**30, 2**33) * 10**9 + rng.choice([0, 123456789])
            os.utime(path, ns=(stamp, stamp))
        if kind in (3, 4, 5) and rng.random() < 0.3:
            try:
                os.setxattr(path, b"user.test", rng.randbytes(rng.randrange(1, 40)))
            except OSError:
                pass  # not every file system has them
        files.append(path)


def make_sparse(rng, path):
    with open(path, "wb") as file:
        at = 0
        for _ in range(rng.choice([0, 1, 3, 6, 30])):
            at += rng.randrange(1, 20) * 65536
            file.seek(at)
            file.write(rng.randbytes(rng.choice([4096, 8192, 777])))
        file.truncate(max(at + 8192, rng.randrange(1, 3_000_000)))


def make_with_gnu_tar(rng, path):
    top = path.with_suffix(".tree")
    top.mkdir()
    make_tree(rng, top)
    form = rng.choice(["gnu", "oldgnu", "pax"])
    command = ["tar", "-C", top, "-cf", path, f"--format={form}", "--sort=name"]
    if rng.random() < 0.7:
        command.append("--sparse")
        if form == "pax":
            command.append("--sparse-version=" + rng.choice(["0.0", "0.1", "1.0"]))
    if form == "pax" and rng.random() < 0.7:
        command += ["--xattrs", "--xattrs-include=*"]
    if rng.random() < 0.2:
        command.append("--blocking-factor=1")
    subprocess.run(command + ["."], check=True, capture_output=True)


def make_with_bsdtar(rng, path):
    top = path.with_suffix(".tree")
    top.mkdir()
    make_tree(rng, top)
    form = rng.choice(["pax", "pax", "gnutar", "ustar"])
    command = ["bsdtar", "-C", top, "-cf", path, f"--format={form}"]
    command += rng.choice([["--xattrs", "--acls"], ["--no-xattrs"]])
    # Names that are not UTF-8 make it complain, and some it leaves out.
    subprocess.run(command + ["."], check=False, capture_output=True, env=UTF8)


def expected_mtime(info):
    """Seconds and nanoseconds, from the pax text where there is one, since a float is not exact."""
    text = info.pax_headers.get("mtime")
    if text is None:
        return info.mtime, 0
    whole, _, fraction = text.partition(".")
    nanoseconds = int((fraction + "0" * 9)[:9])
    seconds = int(whole or "0")
    if text.startswith("-") and nanoseconds:
        return seconds - 1, 10**9 - nanoseconds
    return seconds, nanoseconds


def expected_name(info):
    """GNU tar may write a shortened path beside a sparse file's real name; tarfile takes whichever comes last."""
    return as_bytes(info.pax_headers.get("GNU.sparse.name", info.name)).rstrip(b"/")


def expected_xattrs(info):
    prefix = "SCHILY.xattr."
    headers = info.pax_headers
    return {as_bytes(key[len(prefix):]): as_bytes(headers[key]) for key in headers if key.startswith(prefix)}


def expected_extents(info):
    """File offset and length of each stretch of data, empty ones left out."""
    if info.sparse is None:
        return []
    return [(offset, length) for offset, length in info.sparse if length]


def check_entry(entry, info):
    kind = PLAIN.get(info.type, info.type.decode())
    assert bytes.fromhex(entry["name"]).rstrip(b"/") == expected_name(info)
    assert entry["type"] == kind
    assert entry["mode"] == info.mode & 0o7777
    assert (entry["uid"], entry["gid"]) == (info.uid, info.gid)
    assert (entry["mtime"], entry["nsec"]) == expected_mtime(info)
    if kind in "12":
        assert bytes.fromhex(entry["target"]) == as_bytes(info.linkname)
    if kind in "34":
        assert (entry["major"], entry["minor"]) == (info.devmajor, info.devminor)
    xattrs = {bytes.fromhex(x["name"]): bytes.fromhex(x["value"]) for x in entry["xattrs"]}
    assert xattrs == expected_xattrs(info)
    if kind == "0":
        assert entry["size"] == info.size
        assert entry["sparse"] == (info.sparse is not None)
        assert [(e[0], e[2]) for e in entry["extents"]] == expected_extents(info)
    else:
        assert entry["data_size"] == 0


def check_content(path, tar, entry, info):
    if not info.isreg():
        return
    assert content(path, entry) == tar.extractfile(info).read()


def check_against_tarfile(path, entries):
    with tarfile.open(path, "r:", errors="surrogateescape") as tar:
        members = tar.getmembers()
        assert len(entries) == len(members)
        for entry, info in zip(entries, members):
            check_entry(entry, info)
            check_content(path, tar, entry, info)


def check_against_gnu_tar(path, entries):
    """Names in order, as GNU tar sees them."""
    result = subprocess.run(
        ["tar", "--list", "--file", path, "--quoting-style=escape", "--absolute-names"],
        capture_output=True, check=True,
    )
    lines = result.stdout.splitlines()
    names = [line.decode("unicode_escape").encode("latin-1") for line in lines]
    assert [bytes.fromhex(entry["name"]) for entry in entries] == names


def plain_path(name):
    """A name as a place below the root."""
    return b"/".join(part for part in name.split(b"/") if part not in (b"", b"."))


def mtree_entries(path):
    """What bsdtar sees: for each place the fields of its last entry; and whether it came to the end, since it stops at names
    that are not of its locale, and at places below a file."""
    keywords = "!all,type,mode,uid,gid,size,time,link,sha256"
    command = ["bsdtar", "-cf", "-", "--format=mtree", f"--options={keywords}", f"@{path}"]
    result = subprocess.run(command, check=False, capture_output=True, env=UTF8)
    known = (b"can't be converted", b"is not directory", b"Error exit delayed")
    complaints = [line for line in result.stderr.splitlines() if not any(word in line for word in known)]
    assert not complaints
    listing = result.stdout
    entries = {}
    for line in listing.splitlines():
        name, *fields = line.split(b" ")
        if not line.startswith((b"#", b"/set")):
            fields = dict(field.partition(b"=")[::2] for field in fields if field)
            entries[plain_path(unescape(name))] = fields
    return entries, not result.stderr


def unescape(name):
    return name.decode("unicode_escape").encode("latin-1")


MTREE_TYPES = {"0": b"file", "2": b"link", "3": b"char", "4": b"block", "5": b"dir", "6": b"fifo"}


def is_settled(entries):
    """The places that one entry alone makes: mtree lists each once, and mixes up a file with a directory of its name."""
    seen = {}
    for entry in entries:
        seen.setdefault(plain_path(bytes.fromhex(entry["name"])), []).append(entry)
    parents = {place[:at] for place in seen for at in range(len(place)) if place[at:at + 1] == b"/"}
    alone = {place: found[0] for place, found in seen.items() if len(found) == 1}
    return {place: entry for place, entry in alone.items()
            if entry["type"] != "1" and (entry["type"] == "5" or place not in parents)}


def check_against_bsdtar(path, entries):
    """Types, modes, owners, times, sizes, targets and content, as libarchive has them."""
    listed, whole = mtree_entries(path)
    for place, entry in is_settled(entries).items():
        if not place:
            continue  # it has no line for the root's own name where that is "/"
        if place not in listed and not whole:
            continue
        fields = listed[place]
        assert fields[b"type"] == MTREE_TYPES[entry["type"]], place
        assert int(fields[b"mode"], 8) == entry["mode"], place
        assert (int(fields[b"uid"]), int(fields[b"gid"])) == (entry["uid"], entry["gid"]), place
        seconds, _, nanoseconds = fields[b"time"].partition(b".")
        # libarchive 3.6 takes the fraction of a time before 1970 the wrong way round.
        if entry["mtime"] >= 0 or not entry["nsec"]:
            assert (int(seconds), int(nanoseconds)) == (entry["mtime"], entry["nsec"]), place
        if entry["type"] == "0":
            assert int(fields[b"size"]) == entry["size"], place
            if entry["size"]:
                assert fields[b"sha256digest"].decode() == digest_to_last_data(path, entry), place
        if entry["type"] == "2":
            assert unescape(fields[b"link"]) == bytes.fromhex(entry["target"]), place


def content(path, entry):
    with open(path, "rb") as file:
        if not entry["sparse"]:
            file.seek(entry["data_offset"])
            return file.read(entry["size"])
        whole = bytearray(entry["size"])
        for offset, place, length in entry["extents"]:
            file.seek(place)
            whole[offset:offset + length] = file.read(length)
        return bytes(whole)


def digest_to_last_data(path, entry):
    """As bsdtar copies: a hole at the end is not there."""
    whole = content(path, entry)
    if entry["sparse"]:
        whole = whole[:max((offset + length for offset, _, length in entry["extents"]), default=0)]
    return hashlib.sha256(whole).hexdigest()


def make(rng, path):
    rng.choice([make_with_tarfile, make_with_tarfile, make_with_gnu_tar, make_with_bsdtar])(rng, path)


@pytest.mark.parametrize("first", range(SEED, SEED + VARIANTS, GROUP))
def test_random_tars(tar_list, tmp_path, first):
    for seed in range(first, min(first + GROUP, SEED + VARIANTS)):
        path = tmp_path / f"{seed}.tar"
        make(random.Random(seed), path)
        entries = listing(tar_list, path)
        try:
            if path.stat().st_size:
                check_against_tarfile(path, entries)
                check_against_gnu_tar(path, entries)
                check_against_bsdtar(path, entries)
        except AssertionError as error:
            raise AssertionError(f"seed {seed}, {path}: {error}") from error
        shutil.rmtree(path.with_suffix(".tree"), ignore_errors=True)
        path.unlink()
