"""Fixtures: private directories, a store with images, `imgfs serve`, mounts and containers. All is gone after a test."""
import contextlib
import os
import shutil
import signal
import sys
import tarfile
import tempfile
from pathlib import Path

import pytest

import machine
from container import Container
from containerd import Node
from tap import Tap
from tree import scan_apart

sys.path.append(str(machine.TOP / "tests/fake"))

# Where private directories are made. The default is not /tmp, which may be small and in memory.
BASE = Path(os.environ.get("IMGFS_CASES_DIR", "/var/tmp"))
# Seconds that no test takes, nor what is made for it or taken down after it. 0: no limit.
LIMIT = int(os.environ.get("IMGFS_CASES_LIMIT", "0"))


@contextlib.contextmanager
def limited(what):
    """Fails what waits for ever, so that all the others still run and nothing is left of it."""

    def too_long(_number, _frame):
        pytest.fail(f"{what}: not through within {LIMIT} s")

    before = signal.signal(signal.SIGALRM, too_long)
    signal.setitimer(signal.ITIMER_REAL, LIMIT, 30)  # again, since what is left behind may wait as well
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_setup(item):
    with limited(f"what {item.name} needs"):
        yield


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_call(item):
    with limited(item.name):
        yield


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_teardown(item):
    with limited(f"the end of {item.name}"):
        yield


@pytest.fixture(scope="session")
def session_dir():
    path = Path(tempfile.mkdtemp(prefix="imgfs-cases-", dir=BASE))
    yield path
    assert not machine.mount_points(path), "mounts are left; the directory is kept"
    shutil.rmtree(path)


@pytest.fixture(scope="session", autouse=True)
def nothing_left(session_dir):
    """Fails the run when a process, a mount or a network namespace that it made outlives it."""
    namespaces = machine.namespaces()
    yield

    def left():
        processes = {pid: path for pid, path in machine.processes().items() if path.startswith(f"{machine.BUILD}/")}
        found = (processes, machine.mount_points(session_dir), {name for name in machine.namespaces() - namespaces if name.startswith("imgfs")})
        return found if any(found) else None

    # Who has been told to end may be about to.
    with contextlib.suppress(AssertionError):
        machine.wait_until(lambda: not left(), "the end of all")
    assert not left(), f"left: processes, mounts, namespaces {left()}"


@pytest.fixture
def work(session_dir):
    """A directory of the test's own."""
    path = Path(tempfile.mkdtemp(dir=session_dir))
    yield path
    assert not machine.mount_points(path), "mounts are left"
    shutil.rmtree(path)


def need_image(tag):
    """Skips the test where the cache of images lacks the tag."""
    if not (machine.IMAGES / "layers" / tag / "list").exists():
        pytest.skip(f"no image {tag} in {machine.IMAGES}; tests/images/make-images builds it")


@pytest.fixture(scope="session")
def images():
    """The directory that tests/images/make-images filled."""
    return machine.IMAGES


class Store:
    """A store that images are exported into when a test first wants them."""

    def __init__(self, path):
        self.path = path
        self.names = {}

    def add(self, tag):
        """Exports an image once; returns its name in the store."""
        need_image(tag)
        if tag not in self.names:
            name = f"case/{tag}:1"
            source = f"oci:{machine.IMAGES}/oci:{tag}"
            machine.imgfs("export", "--store", self.path, "--tag", name, source, timeout=600)
            self.names[tag] = name
        return self.names[tag]


@pytest.fixture(scope="session")
def store(session_dir):
    return Store(session_dir / "store")


@pytest.fixture(scope="session")
def unpacked(session_dir):
    """What umoci makes of an image, the oracle: a function from tag to the unpacked tree."""
    trees = {}

    def unpack(tag):
        need_image(tag)
        if tag not in trees:
            root = session_dir / f"unpacked-{tag}"
            image = f"{machine.IMAGES}/oci:{tag}"
            machine.run("umoci", "raw", "unpack", "--image", image, root, timeout=600)
            trees[tag] = root
        return trees[tag]

    return unpack


def layered_mtime(tag, path):
    """The time that the layers' tars give a directory, in nanoseconds: that of the last one with an entry for it."""
    mtime = None
    for layer in sorted((machine.IMAGES / "layers" / tag).glob("*.tar")):
        with tarfile.open(layer) as tar:
            mtime = next((member.mtime for member in tar if member.name.strip("/") == path), mtime)
    return int(mtime * 10**9)


@pytest.fixture(scope="session")
def unpacked_scan(unpacked):
    """The scan of an unpacked tree, made once."""
    scans = {}

    def scan(tag):
        if tag not in scans:
            scans[tag] = scan_apart(unpacked(tag))
            if tag.startswith("inv-"):
                # The layer with opt/invoker/lib has no entry for opt/invoker. umoci makes that directory and so moves the
                # time of opt to now, which is in no layer and differs from one unpacking to the next.
                scans[tag]["opt"]["mtime"] = layered_mtime(tag, "opt")
        return scans[tag]

    return scan


@pytest.fixture
def serve(store, work):
    """A function that starts `imgfs serve` over the store."""
    running = []

    def start(**options):
        running.append(machine.Serve(store.path, work / "serve.log", **options))
        return running[-1]

    yield start
    for one in running:
        one.stop()


@pytest.fixture
def tap():
    """A function that starts a counting forwarder to a running `imgfs serve`."""
    taps = []

    def start(server):
        taps.append(Tap(("127.0.0.1", server.port)))
        return taps[-1]

    yield start
    for one in taps:
        one.close()


@pytest.fixture
def mount(work):
    """A function that mounts: its arguments are those of `imgfs mount`, without the directory."""
    mounts = []

    def start(*what, **options):
        number = len(mounts)
        mounts.append(machine.Mount(work / f"mount-{number}", work / f"mount-{number}.log", *what, **options))
        return mounts[-1]

    yield start
    for one in reversed(mounts):
        one.clear()


@pytest.fixture
def mount_http(mount, work):
    """A function that mounts an image from a host, with the test's cache."""

    def start(host, name, *options, **more):
        return mount("--plain-http", "--cache", work / "cache", *options, f"{host}/{name}", **more)

    return start


@pytest.fixture
def container(work, mount):  # pylint: disable=unused-argument # containers go before the mounts they stand on
    """A function that makes a container over a tree."""
    containers = []

    def make(lower, tag, **options):
        scratch = work / f"container-{len(containers)}"
        containers.append(Container(scratch, lower, machine.IMAGES / "oci", tag, **options))
        return containers[-1]

    yield make
    for one in reversed(containers):
        one.close()


@pytest.fixture
def node():
    """A node daemon below a short path that its server may enter."""
    with tempfile.TemporaryDirectory(prefix="imgfs-n-", dir="/var/tmp") as root:
        os.chmod(root, 0o711)
        one = Node(root)
        yield one
        one.stop()
        for point in machine.mount_points(root):
            machine.run("umount", "--lazy", point, check=False)


@pytest.fixture(scope="session")
def driver(session_dir):
    """The Go program that drives snapshotters, built from Debian's packages alone; what was compiled once is kept beside the build."""
    program = session_dir / "snapshotter-driver"
    environment = {
        **os.environ, "GO111MODULE": "off", "GOPATH": "/usr/share/gocode", "GOFLAGS": "", "GOCACHE": f"{machine.BUILD}/go-cache",
    }
    machine.run("/usr/bin/go", "test", "-c", "-o", program, ".", cwd=machine.TOP / "tests/cases/snapshotter-driver", env=environment, timeout=900)
    return program
