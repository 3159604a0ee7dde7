"""Readers of a mount that compare what they get, byte for byte, with a tree that holds the same files."""
import mmap
import os
import random
import signal
import stat
import struct
import sys
import time

HUNG_SECONDS = 60
PIECE = 1 << 20
LARGE = 4 << 20
COUNTERS = ("operations", "bytes", "errors", "short", "wrong")
FAULTS = ("errors", "short", "wrong", "hung", "broken")
RECORD = struct.Struct("=5Qd")  # the counters, and when the reader last came back


class Fault(Exception):
    """What a reader saw that it must not see; `kind` is one of COUNTERS."""

    def __init__(self, kind, path, text):
        super().__init__(f"{kind}: {path}: {text}")
        self.kind = kind


def tree_files(reference):
    """Paths below `reference`: regular files that are not empty, links, directories."""
    files, links, directories = [], [], [""]
    for parent, names, others in os.walk(reference):
        for name in names + others:
            path = os.path.join(parent, name)
            mode = os.lstat(path).st_mode
            relative = os.path.relpath(path, reference)
            if stat.S_ISLNK(mode):
                links.append(relative)
            elif stat.S_ISDIR(mode):
                directories.append(relative)
            elif stat.S_ISREG(mode) and os.path.getsize(path) > 0:
                files.append(relative)
    return files, links, directories


class Reader:
    def __init__(self, mount, reference, trees, seed):
        self.mount, self.reference = mount, reference
        self.files, self.links, self.directories = trees or ([], [], [])
        self.random = random.Random(seed)
        self.bytes = 0

    def compare(self, path, offset, got, expected):
        if len(got) < len(expected):
            raise Fault("short", path, f"{len(got)} bytes at {offset} instead of {len(expected)}")
        if got != expected:
            raise Fault("wrong", path, f"bytes at {offset} differ")
        self.bytes += len(got)

    def open_both(self, path):
        ours = os.open(os.path.join(self.mount, path), os.O_RDONLY)
        os.posix_fadvise(ours, 0, 0, os.POSIX_FADV_DONTNEED)
        return ours, os.open(os.path.join(self.reference, path), os.O_RDONLY)

    def range_of(self, size):
        """A whole small file, or a piece anywhere in a large one."""
        if size <= LARGE:
            return 0, size
        offset = self.random.randrange(size)
        return offset, min(self.random.choice((1, 4096, 131072, LARGE)), size - offset)

    def read_file(self):
        path = self.random.choice(self.files)
        ours, theirs = self.open_both(path)
        try:
            offset, left = self.range_of(os.fstat(theirs).st_size)
            while left > 0:
                size = min(left, PIECE)
                self.compare(path, offset, os.pread(ours, size, offset), os.pread(theirs, size, offset))
                offset, left = offset + size, left - size
        finally:
            os.close(ours)
            os.close(theirs)

    def read_mapped(self):
        """Faults of a mapping, where an error would be SIGBUS."""
        path = self.random.choice(self.files)
        ours, theirs = self.open_both(path)
        try:
            size = os.fstat(theirs).st_size
            with mmap.mmap(ours, size, prot=mmap.PROT_READ) as mapped:
                for _ in range(8):
                    offset = self.random.randrange(size)
                    expected = os.pread(theirs, 4096, offset)
                    self.compare(path, offset, mapped[offset : offset + len(expected)], expected)
        finally:
            os.close(ours)
            os.close(theirs)

    def look_up(self):
        path = self.random.choice(self.files + self.links + self.directories)
        ours = os.lstat(os.path.join(self.mount, path))
        theirs = os.lstat(os.path.join(self.reference, path))
        for field in ("st_mode", "st_uid", "st_gid", "st_size"):
            if stat.S_ISDIR(ours.st_mode) and field == "st_size":
                continue
            if getattr(ours, field) != getattr(theirs, field):
                raise Fault("wrong", path, field)

    def look_up_missing(self):
        directory = self.random.choice(self.directories)
        path = os.path.join(self.mount, directory, f"missing-{self.random.getrandbits(48):x}")
        try:
            os.lstat(path)
        except FileNotFoundError:
            return
        raise Fault("wrong", path, "it is there")

    def list_directory(self):
        path = self.random.choice(self.directories)
        ours = sorted(os.listdir(os.path.join(self.mount, path)))
        theirs = sorted(os.listdir(os.path.join(self.reference, path)))
        if ours != theirs:
            raise Fault("wrong", path, f"{len(ours)} names instead of {len(theirs)}, or others")

    def read_link(self):
        if not self.links:
            return
        path = self.random.choice(self.links)
        if os.readlink(os.path.join(self.mount, path)) != os.readlink(os.path.join(self.reference, path)):
            raise Fault("wrong", path, "the target differs")

    def step(self):
        steps = (self.read_file, self.read_mapped, self.look_up, self.look_up_missing, self.list_directory, self.read_link)
        self.random.choices(steps, weights=(6, 2, 3, 2, 1, 1))[0]()

    def walk(self):
        """One directory after the other, for ever: yields after each."""
        while True:
            for parent, names, others in os.walk(self.reference):
                path = os.path.relpath(parent, self.reference)
                ours = {entry.name: entry.inode() > 0 and entry.is_dir(follow_symlinks=False)
                        for entry in os.scandir(os.path.join(self.mount, path))}
                links = {name for name in names if os.path.islink(os.path.join(parent, name))}
                theirs = {name: True for name in names if name not in links} | dict.fromkeys([*others, *links], False)
                if ours != theirs:
                    raise Fault("wrong", path, f"{len(ours)} names instead of {len(theirs)}, or others")
                yield

    def run(self, record, stop, walks=False):
        """Reads until the first byte of `stop` is set; `record` is this reader's part of the shared memory."""
        counts = dict.fromkeys(COUNTERS, 0)
        walk = self.walk()
        while stop[0] == 0:
            try:
                if walks:
                    next(walk)
                else:
                    self.step()
            except (Fault, OSError) as fault:
                counts[getattr(fault, "kind", "errors")] += 1
                print(f"reader: {fault}", file=sys.stderr, flush=True)
                walk = self.walk()  # a generator that has raised is at its end
            counts["operations"] += 1
            counts["bytes"] = self.bytes
            record[:] = RECORD.pack(*(counts[name] for name in COUNTERS), time.monotonic())


class Readers:
    """Processes, so that one killed by SIGBUS is seen as such."""

    def __init__(self, count, mount, reference, seed, walkers=0):
        self.count = count
        self.memory = mmap.mmap(-1, 1 + (count + walkers) * RECORD.size)
        self.started = time.monotonic()
        trees = tree_files(reference) if count else None
        if trees and not trees[0]:
            sys.exit(f"{reference} holds no files")
        self.pids = [self.start(i, Reader(mount, reference, trees, seed + i)) for i in range(count + walkers)]
        self.broken = []

    def slot(self, number):
        start = 1 + number * RECORD.size
        return memoryview(self.memory)[start : start + RECORD.size]

    def start(self, number, reader):
        pid = os.fork()
        if pid == 0:
            try:
                reader.run(self.slot(number), self.memory, number >= self.count)
            except BaseException as error:  # a reader must not return into the parent's code
                print(f"reader ended: {error!r}", file=sys.stderr, flush=True)
                os._exit(1)
            os._exit(0)
        return pid

    def hung(self):
        """How many readers have not come back for too long; notes those that died."""
        count = 0
        for number, pid in enumerate(self.pids):
            last = RECORD.unpack(self.slot(number))[-1] or self.started
            if pid and os.waitpid(pid, os.WNOHANG)[0] == pid:
                self.broken.append(pid)
                self.pids[number] = 0
            elif pid and time.monotonic() - last > HUNG_SECONDS:
                count += 1
        return count

    def finish(self):
        """Ends the readers; returns the sums of their counters, how many did not come back, and how many died."""
        self.memory[0] = 1
        deadline = time.monotonic() + HUNG_SECONDS
        hung = 0
        for number, pid in enumerate(self.pids):
            while pid:
                ended, status = os.waitpid(pid, os.WNOHANG)
                if ended:
                    if status != 0:
                        self.broken.append(pid)
                    break
                if time.monotonic() > deadline:
                    os.kill(pid, signal.SIGKILL)
                    hung += 1
                    break
                time.sleep(0.005)
        records = [RECORD.unpack(self.slot(i)) for i in range(len(self.pids))]
        sums = {name: sum(record[i] for record in records) for i, name in enumerate(COUNTERS)}
        return {**sums, "hung": hung, "broken": len(self.broken)}
