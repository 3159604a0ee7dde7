#!/usr/bin/python3
"""Compares two directory trees by everything a file has: tree.py compare REFERENCE OTHER, or tree.py scan ROOT.

A scan is one JSON list for each name: path, then fields. Bytes that are no UTF-8 travel as surrogates.
"""
import errno
import hashlib
import json
import os
import stat
import subprocess
import sys

SCAN_SECONDS = 600


def digest(path):
    content = hashlib.sha256()
    with open(path, "rb", buffering=0) as file:
        while block := file.read(1 << 20):
            content.update(block)
    return content.hexdigest()


def xattrs(path):
    """All attributes as hexadecimal text. A file system that says it keeps none has none: what it lost, the other tree has."""
    try:
        names = os.listxattr(path, follow_symlinks=False)
    except OSError as fault:
        if fault.errno != errno.EOPNOTSUPP:
            raise
        names = []
    return {name: os.getxattr(path, name, follow_symlinks=False).hex() for name in sorted(names)}


def entry(path):
    """The fields of one name. A field that the type does not have is left out."""
    at = os.lstat(path)
    fields = {
        "type": stat.S_IFMT(at.st_mode),
        "mode": stat.S_IMODE(at.st_mode),
        "uid": at.st_uid,
        "gid": at.st_gid,
        "mtime": at.st_mtime_ns,
        "links": at.st_nlink,
        "xattrs": xattrs(path),
    }
    if stat.S_ISREG(at.st_mode):
        fields |= {"size": at.st_size, "sha256": digest(path)}
    elif stat.S_ISLNK(at.st_mode):
        fields |= {"size": at.st_size, "target": os.readlink(path)}
    elif stat.S_ISCHR(at.st_mode) or stat.S_ISBLK(at.st_mode):
        fields["device"] = [os.major(at.st_rdev), os.minor(at.st_rdev)]
    return fields, (at.st_dev, at.st_ino)


def walk(root):
    """Yields every name below root, the root as ".", parents first, in the order of bytes."""
    yield "."
    pending = ["."]
    while pending:
        directory = pending.pop()
        for item in sorted(os.scandir(os.path.join(root, directory)), key=lambda item: os.fsencode(item.name)):
            path = item.name if directory == "." else f"{directory}/{item.name}"
            yield path
            if item.is_dir(follow_symlinks=False):
                pending.append(path)


def scan(root):
    """The tree as a dictionary: path -> fields. Names of one inode have the same "first", the least of their paths."""
    tree, inodes = {}, {}
    for path in walk(root):
        tree[path], inode = entry(os.path.join(root, path))
        if tree[path]["type"] != stat.S_IFDIR and tree[path]["links"] > 1:
            inodes.setdefault(inode, []).append(path)
    for paths in inodes.values():
        for path in paths:
            tree[path]["first"] = min(paths)
    return tree


def scan_apart(root, seconds=SCAN_SECONDS):
    """As scan(), in a process of its own: a mount that hangs ends that one."""
    command = [sys.executable, __file__, "scan", str(root)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    if done.returncode != 0:
        raise AssertionError(f"{root} cannot be walked:\n{done.stderr}")
    return {path: fields for path, fields in map(json.loads, done.stdout.splitlines())}


def compare(reference, other, known=lambda path, field: False):
    """Sentences on what differs, in the order of paths. known() tells which differences are none."""
    found = []
    for path in sorted(reference.keys() | other.keys()):
        if path not in other:
            found.append(f"{path}: missing")
        elif path not in reference:
            found.append(f"{path}: not in the reference")
        else:
            a, b = reference[path], other[path]
            found += [f"{path}: {field}: {a.get(field)!r} in the reference, {b.get(field)!r} here"
                      for field in sorted(a.keys() | b.keys())
                      if a.get(field) != b.get(field) and not known(path, field)]
    return found


def main():
    verb, *roots = sys.argv[1:]
    if verb == "scan":
        for item in scan(roots[0]).items():
            print(json.dumps(item))
        return 0
    found = compare(scan(roots[0]), scan(roots[1]))
    print("\n".join(found) or "no difference")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
