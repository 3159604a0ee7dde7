"""A container on a read-only tree: overlayfs over it, and runc. Works with either version of cgroups, with or without systemd."""
import contextlib
import json
import os
import subprocess
from pathlib import Path

from machine import end, mount_points, read_line, run


def runtime_config(layout, tag, root, name, arguments=None):
    """The runtime's configuration of an image: umoci's, but without a terminal and in the network it is started in."""
    path = Path(root).parent / "umoci.json"
    run("umoci", "raw", "runtime-config", "--image", f"{layout}:{tag}", path)
    config = json.loads(path.read_text())
    path.unlink()
    config["root"] = {"path": str(root), "readonly": False}
    config["process"]["terminal"] = False
    if arguments:
        config["process"]["args"] = list(arguments)
    config["linux"]["namespaces"] = [one for one in config["linux"]["namespaces"] if one["type"] != "network"]
    config["linux"]["cgroupsPath"] = f"/{name}"
    # With the host's network, a sysfs of the container's own cannot be mounted everywhere, and nothing here needs one.
    config["mounts"] = [one for one in config["mounts"] if one["type"] not in ("sysfs", "cgroup")]
    return config


class Container:
    """Runs one command over `lower`, a directory with an image's tree; what it writes is kept in memory."""

    def __init__(self, scratch, lower, layout, tag, arguments=None, prefix=()):
        self.scratch, self.prefix = Path(scratch), [str(word) for word in prefix]
        self.name = f"imgfs-{os.getpid()}-{self.scratch.name}"
        self.root = self.scratch / "root"
        self.process = None
        self.scratch.mkdir(parents=True)
        try:
            self._build(lower, layout, tag, arguments)
        except BaseException:
            self.close()
            raise

    def _build(self, lower, layout, tag, arguments):
        run("mount", "-t", "tmpfs", "tmpfs", self.scratch)
        for name in ("upper", "work", "root", "state"):
            (self.scratch / name).mkdir()
        config = runtime_config(layout, tag, self.root, self.name, arguments)
        (self.scratch / "config.json").write_text(json.dumps(config))
        options = f"lowerdir={lower},upperdir={self.scratch / 'upper'},workdir={self.scratch / 'work'}"
        run("mount", "-t", "overlay", "-o", options, "overlay", self.root)

    def _runc(self):
        return ["runc", "--root", str(self.scratch / "state")]

    def start(self):
        command = [*self.prefix, *self._runc(), "run", "--bundle", str(self.scratch), self.name]
        self.process = subprocess.Popen(
            command, bufsize=0, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )

    def lines_until(self, word, seconds=120):
        """What the command says up to the first line with the word."""
        lines = [read_line(self.process.stdout, f"the container before {word}", seconds)]
        while word not in lines[-1]:
            lines.append(read_line(self.process.stdout, f"the container after {lines}", seconds))
        return lines

    def wait(self, seconds=60):
        return self.process.wait(seconds)

    def close(self):
        """Ends the container if it runs, and takes everything down; harmless twice."""
        if self.process:
            if self.process.poll() is None:
                run(*self._runc(), "delete", "--force", self.name, check=False)
                end(self.process)
            self.process.stdout.close()
            self.process = None
        for point in mount_points(self.scratch):
            with contextlib.suppress(AssertionError):
                run("umount", point)
        with contextlib.suppress(FileNotFoundError):
            self.scratch.rmdir()
