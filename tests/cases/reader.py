#!/usr/bin/python3
"""Reads a mount at random and compares with the unpacked tree, until its standard input ends: reader.py REFERENCE MOUNT SEED.

Prints "ready" and at the end one line of JSON: {"reads", "bytes", "faults"}. A short read, an error, a wrong byte and a
missing name are each a fault.
"""
import json
import mmap
import os
import random
import select
import sys

FILES = 4000
LONGEST = 1 << 18
FAULTS_KEPT = 20


def regular_files(root):
    for directory, _, names in os.walk(root):
        for name in names:
            path = os.path.join(directory, name)
            if not os.path.islink(path) and os.path.isfile(path) and os.path.getsize(path):
                yield os.path.relpath(path, root)


def read_at(path, offset, length):
    file = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        return os.pread(file, length, offset)
    finally:
        os.close(file)


def read_mapped(path, offset, length):
    file = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        with mmap.mmap(file, 0, prot=mmap.PROT_READ) as mapped:
            return mapped[offset:offset + length]
    finally:
        os.close(file)


class Reader:
    def __init__(self, reference, mount, seed):
        self.reference, self.mount = reference, mount
        self.random = random.Random(seed)
        self.files = sorted(regular_files(reference))
        self.random.shuffle(self.files)
        del self.files[FILES:]
        self.reads = self.bytes = 0
        self.faults = []

    def fault(self, sentence):
        if len(self.faults) < FAULTS_KEPT:
            self.faults.append(sentence)

    def check_range(self, path):
        size = os.path.getsize(os.path.join(self.reference, path))
        offset = self.random.randrange(size)
        length = min(size - offset, self.random.randrange(1, LONGEST))
        read = read_mapped if self.random.random() < 0.2 else read_at
        got = read(os.path.join(self.mount, path), offset, length)
        wanted = read_at(os.path.join(self.reference, path), offset, length)
        self.reads += 1
        self.bytes += len(got)
        if len(got) != len(wanted):
            self.fault(f"{path}: {len(got)} bytes at {offset} instead of {len(wanted)}")
        elif got != wanted:
            self.fault(f"{path}: wrong bytes at {offset}, length {length}")

    def check_directory(self, path):
        got = sorted(os.listdir(os.path.join(self.mount, path)))
        if got != sorted(os.listdir(os.path.join(self.reference, path))):
            self.fault(f"{path}: another list of names")

    def step(self):
        path = self.random.choice(self.files)
        try:
            self.check_range(path)
            self.check_directory(os.path.dirname(path))
        except OSError as error:
            self.fault(f"{path}: {error}")


def main():
    reader = Reader(sys.argv[1], sys.argv[2], int(sys.argv[3]))
    print("ready", flush=True)
    while not select.select([sys.stdin], [], [], 0)[0]:
        reader.step()
    print(json.dumps({"reads": reader.reads, "bytes": reader.bytes, "faults": reader.faults}), flush=True)


main()
