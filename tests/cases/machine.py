"""What cases and benchmarks do with a machine: run imgfs, serve, mount, and find what is left of it all."""
import contextlib
import json
import os
import select
import signal
import subprocess
import time
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("IMGFS_BUILD", TOP / "build/gcc")).resolve()
IMAGES = Path(os.environ.get("IMGFS_IMAGES", "/var/cache/imgfs-tests/images"))
# What this machine is configured to do is none of the tests' business.
os.environ["IMGFS_CONFIG"] = ""
IMGFS = BUILD / "tools/cmd/imgfs"
KEEPER = BUILD / "fs/mount/imgfs-keeper"
SERVER = BUILD / "fs/mount/imgfs-server"


# Limits of what may hang, not of what is slow: machines that are busy with other things are to pass.
LIMIT = 120


def run(*command, timeout=LIMIT, check=True, **options):
    """Runs a command to its end and returns it with its output; a failure shows what the command said."""
    words = [str(word) for word in command]
    done = subprocess.run(words, capture_output=True, text=True, timeout=timeout, **options)
    if check and done.returncode != 0:
        raise AssertionError(f"{' '.join(words)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    return done


def imgfs(*arguments, **options):
    return run(IMGFS, *arguments, **options)


def wait_until(condition, what, seconds=LIMIT):
    """Waits for a true value of condition() and returns it. Polls, since /proc announces nothing."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > end:
            raise AssertionError(f"{what}: not within {seconds} s")
        time.sleep(0.005)
    return value


def read_line(stream, what, seconds=LIMIT):
    """The next line of an unbuffered stream; fails at its end and after that time."""
    end, line = time.monotonic() + seconds, b""
    while not line.endswith(b"\n"):
        ready, _, _ = select.select([stream], [], [], max(0, end - time.monotonic()))
        byte = stream.read(1) if ready else b""
        if not byte:
            raise AssertionError(f"{what}: {'ended' if ready else f'silent for {seconds} s'} after {line!r}")
        line += byte
    return line.decode(errors="replace").rstrip("\n")


def build_option(name):
    """What the build was configured with; meson says so itself."""
    options = json.loads((BUILD / "meson-info/intro-buildoptions.json").read_text())
    return next(option["value"] for option in options if option["name"] == name)


def processes():
    """The executable of every process, by number. One that ends meanwhile is left out."""
    found = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                found[int(entry)] = os.readlink(f"/proc/{entry}/exe").removesuffix(" (deleted)")
    return found


def processes_of(executable):
    return {pid for pid, path in processes().items() if path == str(executable)}


def keepers_below(directory):
    """Of mounts below a directory, whoever started them."""
    found = []
    for pid in processes():
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            if words[0] == b"imgfs-keeper" and words[1].startswith(os.fsencode(directory)):
                found.append(pid)
    return found


def parent_of(pid):
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    return int(stat.rpartition(")")[2].split()[1])


def resident(pid):
    """Memory that a process holds, in bytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return 0


def mount_points(below):
    """Mount points at or below a directory, deepest last mounted first."""
    prefix, found = str(below), []
    for line in Path("/proc/self/mountinfo").read_text(errors="replace").splitlines():
        point = line.split()[4].encode().decode("unicode_escape")
        if point == prefix or point.startswith(prefix + "/"):
            found.append(point)
    return found[::-1]


def namespaces():
    """Names of the network namespaces of this machine."""
    with contextlib.suppress(FileNotFoundError):
        return set(os.listdir("/run/netns"))
    return set()


def drop_caches():
    """Makes the next reads come from the disk, where this machine allows it."""
    os.sync()
    with contextlib.suppress(OSError):
        Path("/proc/sys/vm/drop_caches").write_text("1")


def end(process, seconds=60):
    """Ends a child: asks it to, and kills it when it does not. Returns its exit status."""
    if process.poll() is None:
        process.send_signal(signal.SIGCONT)
        process.terminate()
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(seconds)
    return process.returncode


class Serve:
    """A running `imgfs serve`. `prefix` is a command to run it under, such as one that enters a namespace."""

    def __init__(self, store, log, address="127.0.0.1", port=0, prefix=(), options=()):
        command = [*prefix, IMGFS, "serve", "--store", store, "--listen", f"{address}:{port}", "--plain-http", *options]
        with open(log, "ab") as errors:
            self.process = subprocess.Popen(
                [str(word) for word in command], bufsize=0, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=errors,
            )
        try:
            line = read_line(self.process.stdout, "imgfs serve")
            while not line.startswith("listening on "):
                line = read_line(self.process.stdout, "imgfs serve")
        except AssertionError:
            self.stop()
            raise AssertionError(f"imgfs serve does not listen:\n{Path(log).read_text(errors='replace')}") from None
        self.port = int(line.rpartition(":")[2].rstrip("/"))
        self.host = f"{address}:{self.port}"

    def signal(self, number):
        self.process.send_signal(number)
        if number == signal.SIGKILL:
            self.process.wait(60)

    def stop(self):
        status = end(self.process)
        self.process.stdout.close()
        return status


class Mount:
    """A mounted image: `what` are the arguments of `imgfs mount` but the directory. The cache is beside that, unless one is named."""

    def __init__(self, directory, log, *what, prefix=(), fill=False):
        self.directory, self.log = Path(directory), Path(log)
        self.directory.mkdir(parents=True, exist_ok=True)
        # The machine's own cache is none of the tests' business either.
        cache = () if "--cache" in what else ("--cache", self.directory.parent / "cache")
        before = processes_of(KEEPER)
        # Most look at what reads fetch; the background fill would take part in that.
        options = () if fill else ("--no-fill",)
        self.keeper = None
        try:
            run(*prefix, IMGFS, "mount", *options, "--log", log, *cache, *what, directory)
            keepers = [pid for pid in processes_of(KEEPER) - before if str(directory) in self._command(pid)]
            new = keepers or list(processes_of(KEEPER) - before)
            assert len(new) == 1, f"{len(new)} new keepers for {directory}"
            self.keeper = new[0]
        except BaseException:
            self.clear()
            raise

    @staticmethod
    def _command(pid):
        with contextlib.suppress(OSError):
            return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
        return ""

    def server(self, other_than=None):
        """The number of the server that runs now, once there is one other than the one named."""

        def running():
            return [p for p in processes_of(SERVER) if p != other_than and parent_of(p) == self.keeper]

        return wait_until(running, f"a server of {self.directory}; log: {self.log}")[0]

    def unmount(self):
        imgfs("umount", self.directory)
        wait_until(lambda: self.keeper not in processes_of(KEEPER), "the keeper's end after umount")

    def clear(self):
        """Unmounts whatever the state; for clean-up only."""
        if str(self.directory) not in mount_points(self.directory):
            return
        with contextlib.suppress(AssertionError, subprocess.TimeoutExpired):
            imgfs("umount", self.directory, timeout=20)
            # What it writes to goes next.
            wait_until(lambda: self.keeper not in processes_of(KEEPER), "the keeper's end after umount")
            return
        with contextlib.suppress(AssertionError, subprocess.TimeoutExpired):
            imgfs("umount", "--lazy", self.directory, timeout=20)
            return
        subprocess.run(["umount", "--lazy", str(self.directory)], check=False, timeout=20)
        with contextlib.suppress(ProcessLookupError):
            if self.keeper:
                os.kill(self.keeper, signal.SIGKILL)
