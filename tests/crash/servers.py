"""Keeper and server of a mount as processes: finding them, and killing the server."""
import errno
import os
import signal
import sys
import time


def read_file(path):
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ESRCH):
            return b""
        raise


def find_keeper(mount):
    for pid in filter(str.isdigit, os.listdir("/proc")):
        if read_file(f"/proc/{pid}/comm") == b"imgfs-keeper\n":
            if read_file(f"/proc/{pid}/cmdline").split(b"\0")[1:2] == [os.fsencode(mount)]:
                return int(pid)
    sys.exit(f"no imgfs-keeper keeps {mount}")


def find_server(keeper):
    """The keeper's only child, once it is the server; 0 while there is none."""
    for pid in read_file(f"/proc/{keeper}/task/{keeper}/children").split():
        if read_file(f"/proc/{pid.decode()}/comm") == b"imgfs-server\n":
            return int(pid)
    return 0


def kill_server(keeper):
    """Returns whether there was one. It may be gone by itself meanwhile, when somebody else ends it."""
    server = find_server(keeper)
    try:
        if server:
            os.kill(server, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return server != 0


def milliseconds_to_answer(mount, start):
    """How long after `start` the mount answers; statfs() is never cached. One that never does is for the caller's time limit."""
    os.statvfs(mount)
    return (time.monotonic() - start) * 1000


def percentiles(values):
    """Of milliseconds."""
    ordered = sorted(values) or [0]
    shares = {"min": 0, "p50": 0.5, "p95": 0.95, "p99": 0.99, "max": 1}
    return {name: round(ordered[min(len(ordered) - 1, int(len(ordered) * share))], 1) for name, share in shares.items()}


def drop_names():
    with open("/proc/sys/vm/drop_caches", "w", encoding="ascii") as file:
        file.write("2")
