#!/usr/bin/python3
"""Makes the tars of the golden vectors, always the same bytes: make-tars.py DIRECTORY.

Their blobs' digests stand in blobs.txt and are checked by tests/unit/export/test-layer-golden.c. A change of a
digest without a new version of liblz4 or libzstd is a change of the format.
"""
import io
import pathlib
import sys
import tarfile


def words(size, seed):
    """Text of sorts: compressible, without a period that a chunk could repeat."""
    out = bytearray()
    while len(out) < size:
        seed = (seed * 6364136223846793005 + 1442695040888963407) % 2**64
        out += b"%s " % [b"layer", b"chunk", b"frame", b"index", b"%x" % (seed >> 40)][(seed >> 33) % 5]
    return bytes(out[:size])


def noise(size, seed):
    out = bytearray()
    while len(out) < size:
        seed = (seed * 6364136223846793005 + 1442695040888963407) % 2**64
        out.append(seed >> 56)
    return bytes(out)


def add(tar, name, kind=tarfile.REGTYPE, data=b"", **fields):
    info = tarfile.TarInfo(name)
    info.type = kind
    info.size = len(data)
    info.mtime = 1700000000
    info.mode = 0o755 if kind == tarfile.DIRTYPE else 0o644
    for key, value in fields.items():
        setattr(info, key, value)
    tar.addfile(info, io.BytesIO(data))


def types(tar):
    add(tar, "./", tarfile.DIRTYPE)
    add(tar, "./etc/passwd", data=b"root:x:0:0::/root:/bin/sh\n", uname="root", gname="root")
    add(tar, "./bin/", tarfile.DIRTYPE)
    add(tar, "./bin/busybox", data=words(5000, 1), mode=0o4755)
    add(tar, "./bin/sh", tarfile.LNKTYPE, linkname="./bin/busybox")
    add(tar, "./bin/late", tarfile.LNKTYPE, linkname="./bin/comes-later")
    add(tar, "./bin/comes-later", data=b"later")
    add(tar, "./bin/below", tarfile.LNKTYPE, linkname="./usr/bin/below")
    add(tar, "./sbin", tarfile.SYMTYPE, linkname="bin")
    add(tar, "./sbin/init", data=b"through a symlink")
    add(tar, "./dev/null", tarfile.CHRTYPE, devmajor=1, devminor=3, mode=0o666)
    add(tar, "./dev/sda", tarfile.BLKTYPE, devmajor=8, devminor=0)
    add(tar, "./run/fifo", tarfile.FIFOTYPE)
    add(tar, "./etc/.wh.shadow")
    add(tar, "./opt/.wh..wh..opq")
    add(tar, "./etc/passwd", data=b"root:x:0:0::/root:/bin/bash\n")
    add(tar, "./" + "long/" * 60 + "n\u00e4me", data=b"x")
    add(tar, "./cap", data=b"cap", pax_headers={"SCHILY.xattr.security.capability": "\x01\x00\x00\x02\x00\x04"}, mtime=-1.5)


def chunks(tar):
    add(tar, "words", data=words(300000, 2))
    add(tar, "noise", data=noise(40000, 3))
    for number in range(150):
        add(tar, f"small/{number:03}", data=words(number * 13 % 1500, number))
    add(tar, "zeros", data=bytes(300000))
    add(tar, "limit", data=words(4096, 4))
    add(tar, "below", data=words(4095, 5))


def write(path, fill, form, ending):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as tar:
        fill(tar)
        end = tar.offset
    data = buffer.getvalue()[:end]
    path.write_bytes(data + bytes(1024) if ending else data.rstrip(b"\0"))


def main():
    top = pathlib.Path(sys.argv[1])
    write(top / "empty.tar", lambda tar: None, tarfile.USTAR_FORMAT, True)
    write(top / "types.tar", types, tarfile.PAX_FORMAT, True)
    write(top / "chunks.tar", chunks, tarfile.GNU_FORMAT, False)


if __name__ == "__main__":
    main()
