"""A mount namespace of a test's own, in which the machine may look different."""
import os
import subprocess

import machine

# Unmounts what imgfs has mounted, but below $0.
SCRIPT = """awk '/ fuse.imgfs / { print $5 }' /proc/self/mountinfo | grep -v "^$0/" | xargs -r -n 1 umount --lazy; exec "$@" """


def alone(below="/nowhere"):
    """
    Words before a command that sees no mounts of imgfs but those below a directory. Another run on this machine may have mounted the same
    image, which keeps what a cache has of it; and in a namespace that lasts, copies of its mounts would be held until the end.
    """
    return ["unshare", "--mount", "--propagation", "private", "sh", "-c", SCRIPT, str(below)]


class MountNamespace:
    """Commands with `prefix` before them run in it. What was mounted in it has to be unmounted before close()."""

    def __init__(self, work):
        self.work = work
        self.holder = subprocess.Popen(
            [*alone(), "sh", "-c", "echo ready; exec sleep infinity"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        )
        assert self.holder.stdout.readline() == b"ready\n"
        self.prefix = ["nsenter", "--mount", "--target", str(self.holder.pid), "--wd=/", "--"]

    def run(self, *command, **options):
        return machine.run(*self.prefix, *command, **options)

    def as_user(self, name, home):
        """The prefix for a command of this user, whose home it is."""
        return [
            *self.prefix, "setpriv", "--reuid", name, "--regid", name, "--clear-groups",
            "env", f"HOME={home}", "XDG_CACHE_HOME=",
        ]

    def open_fuse(self):
        """/dev/fuse for everybody, as distributions have it."""
        node = self.work / "fuse"
        os.mknod(node, 0o20666, os.makedev(10, 229))
        node.chmod(0o666)
        self.run("mount", "--bind", node, "/dev/fuse")

    def mounts(self):
        """Lines of imgfs mounts."""
        table = self.run("cat", "/proc/self/mountinfo").stdout
        return [line for line in table.splitlines() if " fuse.imgfs " in line]

    def close(self):
        for line in self.mounts():
            self.run("umount", "--lazy", line.split()[4], check=False)
        machine.end(self.holder)
        self.holder.stdout.close()
