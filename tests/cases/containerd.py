"""A containerd of one's own with imgfs-snapshotter as its plugin, on private directories and sockets."""
import contextlib
import io
import json
import os
import signal
import subprocess
import tarfile
from pathlib import Path

import machine
from images import OCI_CONFIG, OCI_LAYER, OCI_MANIFEST, Image, sha256

SNAPSHOTTER = Path(os.environ.get("IMGFS_SNAPSHOTTER", machine.BUILD / "snapshotter/imgfs-snapshotter"))
# Idmapped mounts of FUSE.
MAPPED_FUSE = tuple(int(part) for part in os.uname().release.split("-")[0].split(".")[:2]) >= (6, 12)
CONFIG = """version = 2
{cri}
[proxy_plugins.imgfs]
  type = "snapshot"
  address = "{socket}"
"""


def host_tree(*programs):
    """A layer with programs of this machine and the libraries they need."""
    paths = {"/bin/sh"}
    for program in ("/bin/sh", *programs):
        paths.add(program)
        for line in machine.run("ldd", program).stdout.splitlines():
            paths.update(word for word in line.split() if word.startswith("/"))
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name in ("bin", "lib", "lib64", "usr/bin", "tmp", "proc", "dev", "sys", "etc"):
            info = tarfile.TarInfo(name)
            info.type, info.mode = tarfile.DIRTYPE, 0o1777 if name == "tmp" else 0o755
            tar.addfile(info)
        for path in sorted(paths):
            info = tarfile.TarInfo(path.lstrip("/"))
            data = Path(path).read_bytes()
            info.size, info.mode = len(data), 0o755
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def oci_archive(path, images):
    """An OCI layout in a tar, as `ctr images import` takes it: `images` are (Image, name) pairs."""
    blobs, manifests = {}, []

    def add(data, kind, **more):
        blobs[sha256(data)] = data
        return {"mediaType": kind, "digest": f"sha256:{sha256(data)}", "size": len(data), **more}

    for image, name in images:
        config = add(image.config, OCI_CONFIG)
        layers = [add(layer, OCI_LAYER) for layer in image.layers]
        manifest = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": layers}
        names = {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name.rpartition(":")[2]}
        manifests.append(add(json.dumps(manifest).encode(), OCI_MANIFEST, annotations=names))
    index = json.dumps({"schemaVersion": 2, "manifests": manifests}).encode()
    members = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}', "index.json": index}
    members.update({f"blobs/sha256/{digest}": data for digest, data in blobs.items()})
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def image(*layers, command="/bin/sh"):
    return Image(*layers, config={"Env": ["PATH=/bin:/usr/bin"], "Cmd": command.split()})


class Containerd:
    """Snapshotter and containerd below `root`, which must be a short path: sockets have their limit."""

    def __init__(self, root, options=("--no-daemon",), cri='disabled_plugins = ["io.containerd.grpc.v1.cri"]', namespace=None):
        self.root, self.options = Path(root), options
        self.root.mkdir(parents=True, exist_ok=True)
        self.socket, self.plugin = self.root / "c.sock", self.root / "s.sock"
        self.namespace = namespace or f"imgfs-{os.getpid()}"
        self.layers = self.root / "layers"
        self.snapshotter = self.daemon = None
        (self.root / "config.toml").write_text(CONFIG.format(socket=self.plugin, cri=cri))
        try:
            self.start_snapshotter()
            self.start_containerd()
        except BaseException:
            self.stop()
            raise

    def start_snapshotter(self):
        command = [SNAPSHOTTER, "--address", self.plugin, "--root", self.layers, *self.options]
        with open(self.root / "snapshotter.log", "ab") as log:
            self.snapshotter = subprocess.Popen([str(word) for word in command], stdin=subprocess.DEVNULL, stderr=log)

        def listens():
            assert self.snapshotter.poll() is None, (self.root / "snapshotter.log").read_text()
            return self.plugin.exists()

        machine.wait_until(listens, "the snapshotter's socket", 120)
        # containerd's client waits up to three seconds before it tries a socket again that was away.
        if self.daemon and self.daemon.poll() is None:
            machine.wait_until(lambda: self.snapshots("ls", check=False).returncode == 0, "containerd's way to the snapshotter", 120)

    def kill_snapshotter(self):
        self.snapshotter.send_signal(signal.SIGKILL)
        self.snapshotter.wait(120)
        self.plugin.unlink()  # so that start_snapshotter() sees the new one

    def stop_snapshotter(self):
        return machine.end(self.snapshotter)

    def start_containerd(self):
        command = ["containerd", "--config", self.root / "config.toml", "--root", self.root / "root", "--state",
                   self.root / "state", "--address", self.socket]
        with open(self.root / "containerd.log", "ab") as log:
            self.daemon = subprocess.Popen([str(word) for word in command], stdin=subprocess.DEVNULL, stdout=log, stderr=log)

        def answers():
            assert self.daemon.poll() is None, (self.root / "containerd.log").read_text()
            return self.ctr("version", check=False).returncode == 0

        machine.wait_until(answers, "containerd", 120)

    def stop_containerd(self):
        machine.end(self.daemon)

    def command(self, *arguments):
        return ["ctr", "--address", str(self.socket), "--namespace", self.namespace, *map(str, arguments)]

    def ctr(self, *arguments, **options):
        return machine.run(*self.command(*arguments), **{"timeout": 300, **options})

    def snapshots(self, *arguments, **options):
        return self.ctr("snapshots", "--snapshotter", "imgfs", *arguments, **options)

    def keys(self):
        """The snapshots that containerd knows: their kind by key."""
        lines = [line.split() for line in self.snapshots("ls").stdout.splitlines()[1:]]
        return {words[0]: words[-1] for words in lines}

    def run(self, *arguments, **options):
        """
        `ctr run` with the snapshotter and a runtime's directory of its own. What the process writes is in the result's `stdout`, by way of a
        file: of a process that has ended before ctr 1.6 has opened its output's pipe ctr hears nothing.
        """
        output = self.root / "output"
        output.unlink(missing_ok=True)
        done = self.ctr("run", "--log-uri", f"file://{output}", "--runc-root", self.root / "runc", "--snapshotter", "imgfs", *arguments, **options)
        if "--detach" not in arguments:
            done.stdout += output.read_text() if output.exists() else ""
        return done

    def import_images(self, images):
        path = self.root / "images.tar"
        oci_archive(path, images)
        self.ctr("images", "import", "--snapshotter", "imgfs", path)
        path.unlink()

    def remove_images(self):
        names = self.ctr("images", "ls", "-q").stdout.split()
        for name in names:
            self.ctr("images", "rm", "--sync", name)

    def collect(self):
        """Has garbage collection run, after which containerd calls Cleanup."""
        self.ctr("leases", "create", "--id", "collect")
        self.ctr("leases", "rm", "--sync", "collect")

    def directories(self):
        return sorted(int(name) for name in os.listdir(self.layers / "snapshots"))

    def stop(self):
        """Ends everything, whatever state it is in."""
        if self.daemon and self.daemon.poll() is None:
            with contextlib.suppress(AssertionError, subprocess.TimeoutExpired):
                for name in self.ctr("tasks", "ls", "-q").stdout.split():
                    self.ctr("tasks", "kill", "--signal", "KILL", name, check=False)
                    self.ctr("tasks", "rm", "--force", name, check=False)
            self.stop_containerd()
        if self.snapshotter:
            self.stop_snapshotter()
        for point in machine.mount_points(self.root):
            machine.run("umount", "--lazy", point, check=False)


class Node:
    """A node daemon with directories of its own."""

    def __init__(self, root, options=()):
        self.root, self.options = Path(root), options
        self.socket = self.root / "run/imgfsd.sock"
        self.start()

    def start(self):
        command = [machine.IMGFS, "daemon", "--foreground", "--runtime", self.root / "run", "--state", self.root / "node", "--cache",
                   self.root / "cache", "--log", self.root / "imgfsd.log", "--timeout", "60", "--deadline", "60", *self.options]
        self.process = subprocess.Popen([str(word) for word in command], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

        def answers():
            assert self.process.poll() is None, (self.root / "imgfsd.log").read_text()
            return machine.imgfs("list", "--socket", self.socket, check=False).returncode == 0

        machine.wait_until(answers, "imgfsd", 120)

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(120)

    def holders(self):
        return json.loads(machine.imgfs("list", "--socket", self.socket, "--json").stdout)

    def stop(self):
        machine.imgfs("stop", "--socket", self.socket, check=False)
        machine.end(self.process)
        for pid in machine.keepers_below(self.root / "run"):  # where no imgfsd was there to end it
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
