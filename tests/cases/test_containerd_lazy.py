"""Lazy images through containerd and runc: exported, served, pulled by `imgfs pull --containerd`, run with no layer in containerd's store."""
import contextlib
import json
import os
import signal
import subprocess
import tempfile
from pathlib import Path

import pytest

import cri
import docker
import front as fake
import machine
from containerd import MAPPED_FUSE, SNAPSHOTTER, Containerd, Node, host_tree, image, oci_archive
from daemon import Hung
from images import tar_of

# Of this run alone: `imgfs why` finds images by their names, also those that another run on this machine holds.
ONE = f"case/one-{os.getpid()}:1"


@pytest.fixture
def lazy(node):
    with tempfile.TemporaryDirectory(prefix="imgfs-c-", dir="/var/tmp") as root:
        os.chmod(root, 0o711)
        one = Containerd(root, options=("--daemon-socket", str(node.socket), "--metrics", f"{root}/metrics"))
        try:
            yield one
        finally:
            one.stop()
        assert not machine.mount_points(root)


@pytest.fixture
def host(work):
    """A build host with an image of three layers, the second of which takes something away."""
    base = host_tree("/bin/cat", "/bin/ls", "/bin/sleep", "/usr/bin/stat")
    gone = tar_of((".wh.gone", b""), ("etc/two", b"two"))
    one = image(base, tar_of(("gone", b"x"), ("etc/one", b"one")), gone)
    oci_archive(work / "one.tar", [(one, ONE)])
    machine.run("skopeo", "copy", f"oci-archive:{work}/one.tar", f"oci:{work}/oci:one")
    machine.imgfs("export", "--store", work / "store", "--tag", ONE, f"oci:{work}/oci:one")
    server = machine.Serve(work / "store", work / "serve.log")
    yield server
    server.stop()


def pull(lazy, node, host, *options, **more):
    name = f"{host.host}/{ONE}"
    machine.imgfs("pull", "--containerd", "--containerd-socket", lazy.socket, "--namespace", lazy.namespace, "--cache",
                  node.root / "cache", *options, name, **more)
    return name


def metric(lazy, outcome):
    lines = (lazy.root / "metrics").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if f'outcome="{outcome}"' in line)


def content(lazy):
    return [line.split() for line in lazy.ctr("content", "ls").stdout.splitlines()[1:]]


def remove_all(lazy, node):
    """Everything goes with the image: snapshots, content, and what the daemon holds."""
    lazy.remove_images()
    machine.wait_until(lambda: not lazy.keys() and not content(lazy) and not lazy.directories(), "the end of all snapshots", 120)
    machine.wait_until(lambda: "snapshotter:" not in json.dumps(node.holders()), "the end of what the daemon holds", 120)


def test_pull_and_run(lazy, node, host):
    name = pull(lazy, node, host)
    assert metric(lazy, "lazy") == 3
    sizes = [words[1] for words in content(lazy)]
    assert len(sizes) == 2 and not any("MB" in size or "MiB" in size for size in sizes), "only manifest and config are there"
    done = lazy.run("--rm", name, "c", "/bin/sh", "-c", "cat /etc/one /etc/two; ls /gone 2>/tmp/said; echo new >/etc/one; cat /etc/one")
    assert done.stdout == "onetwonew\n"
    assert lazy.run("--rm", name, "c", "/bin/cat", "/etc/one").stdout == "one"
    pull(lazy, node, host)  # again: nothing is made twice
    assert metric(lazy, "lazy") == 3
    remove_all(lazy, node)


def test_service_gets_ready(lazy, node, store, serve, work):
    """The invoker's service by `ctr run`, from a node that has nothing: no layer comes whole, and nothing is left of it."""
    image_name = store.add("inv-v1")
    name = f"{serve(options=('--access-log', work / 'access.log')).host}/{image_name}"
    machine.imgfs("pull", "--containerd", "--containerd-socket", lazy.socket, "--namespace", lazy.namespace,
                  "--cache", node.root / "cache", name)
    lines = lazy.run("--rm", "--net-host", name, "invoker").stdout.splitlines()
    assert "READY" in "".join(lines) and not [line for line in lines if "FAIL" in line]
    assert metric(lazy, "lazy") == 5 and len(content(lazy)) == 2
    whole = sum(path.stat().st_size for path in (machine.IMAGES / "layers/inv-v1").glob("*.tar"))
    sent = sum(int(line.split()[-3]) for line in (work / "access.log").read_text().splitlines())
    assert 0 < sent < whole, "also with what the background fill may have fetched meanwhile"
    remove_all(lazy, node)


def test_login(host, monkeypatch, work):
    """A login of the command line would not reach imgfsd, and is refused; one of imgfs.conf is what both use, and is kept by nobody else."""
    with fake.Front(host.host) as front, tempfile.TemporaryDirectory(prefix="imgfs-n-", dir="/var/tmp") as root:
        front.user = "ann:Geheim-7c1d"
        for option in (("--user", front.user), ("--plain-http",), ("--certs-dir", work), ("--login", work), ("--ca", work)):
            done = machine.imgfs("pull", "--containerd", *option, f"{front.host}/{ONE}", check=False)
            assert done.returncode == 2 and f"not told of {option[0]}: say it in section [host" in done.stderr
        (work / "imgfs.conf").write_text(f"[host {front.host}]\nuser = {front.user}\n")
        monkeypatch.setenv("IMGFS_CONFIG", str(work / "imgfs.conf"))
        os.chmod(root, 0o711)
        node, engine = Node(root), None
        try:
            engine = Containerd(Path(root) / "c", ("--daemon-socket", str(node.socket), "--metrics", f"{root}/c/metrics"))
            name = pull(engine, node, front)
            assert engine.run("--rm", name, "c", "/bin/cat", "/etc/one", "/etc/two").stdout == "onetwo"
            kept = machine.run("grep", "-rlaF", "Geheim-7c1d", root, check=False)
            assert kept.stdout == "", "neither labels, logs nor state have it"
            remove_all(engine, node)
        finally:
            if engine:
                engine.stop()
            node.stop()
            for point in machine.mount_points(root):
                machine.run("umount", "--lazy", point, check=False)


def test_committed_over_lazy(lazy, node, host):
    name = pull(lazy, node, host)
    lazy.run(name, "c", "/bin/sh", "-c", "echo changed >/etc/one")
    lazy.snapshots("commit", "changed", "c")
    lazy.snapshots("prepare", "again", "changed")
    mount = lazy.snapshots("mounts", "/nowhere", "again").stdout
    lowers = mount.split("lowerdir=")[1].split(",")[0].split()[0].split(":")
    assert len(lowers) == 2 and lowers[1].startswith(str(node.root / "run/fs")), "the lazy part is one directory"
    root = lazy.root / "again"
    root.mkdir()
    machine.run("/bin/sh", "-c", lazy.snapshots("mounts", root, "again").stdout)
    try:
        assert (root / "etc/one").read_text() == "changed\n" and (root / "etc/two").read_text() == "two"
    finally:
        machine.run("umount", root)
    lazy.snapshots("rm", "again")
    lazy.ctr("containers", "rm", "c")
    lazy.snapshots("rm", "changed")
    remove_all(lazy, node)


MAPS = ("--uidmap", "0:100000:65536", "--gidmap", "0:200000:65536", "--remap-labels")


def test_remapped_ids(lazy, node, host):
    """The container's root owns what the image's root owns, and is somebody else outside; no file of the image was copied for that."""
    name = pull(lazy, node, host)
    script = "stat -c '%u:%g' /etc/one /bin /bin/cat; cat /etc/one; echo w >>/etc/one; echo n >/new; stat -c '%u:%g' /etc/one /new; cat /etc/one"

    def run(container, **options):
        return lazy.run(*MAPS, name, container, "/bin/sh", "-c", script, **options)

    if not MAPPED_FUSE:
        done = run("c", check=False)
        assert done.returncode != 0 and "the lazy image cannot be shown with the ids" in done.stderr and "needs Linux 6.12" in done.stderr
        lazy.ctr("containers", "rm", "c", check=False)
        remove_all(lazy, node)
        return
    for number in range(3):
        before = set(lazy.layers.glob("snapshots/*/fs"))
        assert run(f"c{number}").stdout.split() == ["0:0"] * 3 + ["one0:0", "0:0", "onew"]
        (upper,) = set(lazy.layers.glob("snapshots/*/fs")) - before
        written = {str(path.relative_to(upper)): path for path in (upper, *upper.rglob("*"))}
        assert written.keys() - {"run"} == {".", "etc", "etc/one", "new"}, "/run is runc's, to mount there"
        assert {(path.stat().st_uid, path.stat().st_gid) for path in written.values()} == {(100000, 200000)}
        (point,) = set(machine.mount_points(lazy.layers))
        assert Path(point).parent == lazy.layers / "idmap"
        if number == 0:  # the next one finds that mount dead, since another keeper shows the tree
            node.stop()
            node.start()
        elif number == 1:
            lazy.kill_snapshotter()
            lazy.start_snapshotter()
    for number in range(3):
        lazy.ctr("containers", "rm", f"c{number}")
    lazy.collect()
    machine.wait_until(lambda: not machine.mount_points(lazy.layers), "the end of what the tree was seen through", 120)
    remove_all(lazy, node)


def test_restarts_under_a_running_container(lazy, node, host):
    name = pull(lazy, node, host)
    lazy.run("--detach", name, "long", "/bin/sleep", "1000")
    pid = lazy.ctr("tasks", "ls").stdout.splitlines()[1].split()[1]
    for number, restart in enumerate(("snapshotter", "daemon", "both", "containerd")):
        if restart in ("snapshotter", "both"):
            lazy.kill_snapshotter()
        if restart in ("daemon", "both"):
            node.kill()
            node.start()
        if restart in ("snapshotter", "both"):
            lazy.start_snapshotter()
        if restart == "containerd":
            lazy.stop_containerd()
            lazy.start_containerd()
        assert Path(f"/proc/{pid}/root/etc/one").read_text() == "one"
        assert lazy.run("--rm", name, f"short{number}", "/bin/cat", "/etc/two").stdout == "two"
    lazy.ctr("tasks", "kill", "--signal", "KILL", "long")
    machine.wait_until(lambda: "STOPPED" in lazy.ctr("tasks", "ls").stdout, "the container's end", 120)
    lazy.ctr("tasks", "rm", "long")
    lazy.ctr("containers", "rm", "long")
    remove_all(lazy, node)


def test_two_snapshotters(lazy, node, host):
    """Another snapshotter at the same daemon, for another containerd, keeps its hands off what the first one holds; and each holds its own."""
    name = pull(lazy, node, host)
    held = {holder["owner"] for holder in node.holders()}
    with tempfile.TemporaryDirectory(prefix="imgfs-c-", dir="/var/tmp") as root:
        other = Containerd(root, options=lazy.options[:2])
        try:
            assert {holder["owner"] for holder in node.holders()} == held
            pull(other, node, host)
            assert len(node.holders()) == 2 * len(held) == 6
            assert other.run("--rm", name, "c", "/bin/cat", "/etc/one").stdout == "one"
            other.remove_images()
            machine.wait_until(lambda: len(node.holders()) == 3, "the end of what was held for the other", 120)
        finally:
            other.stop()
    assert {holder["owner"] for holder in node.holders()} == held
    assert lazy.run("--rm", name, "c", "/bin/cat", "/etc/one").stdout == "one"
    remove_all(lazy, node)


def test_without_a_daemon(lazy, node, host):
    """A layer that cannot be had is refused with the reason; a container over a lazy image that cannot be shown does not start empty."""
    name = pull(lazy, node, host)
    node.stop()
    done = lazy.run("--rm", name, "c", "/bin/cat", "/etc/one", check=False)
    assert done.returncode != 0 and "lazy parent cannot be had" in done.stderr
    lazy.remove_images()
    machine.wait_until(lambda: not lazy.keys(), "the end of all snapshots", 120)
    done = machine.imgfs("pull", "--containerd", "--containerd-socket", lazy.socket, "--namespace", lazy.namespace, "--cache",
                         node.root / "cache", name, check=False)
    assert done.returncode != 0 and "does not take the layer" in done.stderr
    assert metric(lazy, "unavailable") == 1
    assert "reason=unavailable" in (lazy.root / "snapshotter.log").read_text()
    why = ("why", "--root", lazy.layers, name)
    said = machine.imgfs(*why, check=False)
    assert said.returncode == 1 and f"{name} did not start lazily" in said.stderr and "(unavailable: " in said.stderr
    (lazy.root / "imgfs.conf").write_text(f"[snapshotter]\nroot = {lazy.layers}\n")
    assert machine.imgfs("--config", lazy.root / "imgfs.conf", "why", name.partition("/")[2], check=False).stderr == said.stderr
    node.start()
    assert pull(lazy, node, host) == name
    assert "did not start lazily" not in machine.imgfs(*why, check=False).stderr
    assert lazy.run("--rm", name, "c", "/bin/cat", "/etc/one").stdout == "one"
    remove_all(lazy, node)


def test_ordinary_pull_of_an_exported_image(lazy, node, host):
    """What `ctr` of 1.6 pulls itself comes without labels and is unpacked: the same image by the other way."""
    name = f"{host.host}/{ONE}"
    lazy.ctr("images", "pull", "--plain-http", "--snapshotter", "imgfs", name)
    assert lazy.run("--rm", name, "c", "/bin/cat", "/etc/one", "/etc/two").stdout == "onetwo"
    assert metric(lazy, "lazy") == 0
    remove_all(lazy, node)


# What tools/deploy says of CRI.
DEPLOYED = (machine.TOP / "tools/deploy/containerd/containerd-1.6.toml").read_text()
CRI = DEPLOYED[DEPLOYED.index("[plugins."):]
# What keeps it to this directory and to an image for pods that is here. Not every machine lets root lower oom_score_adj.
PRIVATE = """
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".cni]
  conf_dir = "{root}/cni"
  bin_dir = "{root}/cni"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
    Root = "{root}/runc"
"""
PAUSE = "case.local/pause:1"


@contextlib.contextmanager
def cri_engine(sources, disabled="false"):
    """A node and a containerd with CRI, and with the image for pods."""
    with tempfile.TemporaryDirectory(prefix="imgfs-n-", dir="/var/tmp") as root:
        os.chmod(root, 0o711)
        node, engine = Node(root, sources), None
        try:
            config = CRI.replace("annotations = false", f"annotations = {disabled}") + PRIVATE.format(pause=PAUSE, root=f"{root}/c")
            options = ("--daemon-socket", str(node.socket), "--metrics", f"{root}/c/metrics")
            engine = Containerd(Path(root) / "c", options, config, "k8s.io")
            yield node, engine
        finally:
            if engine:
                engine.stop()
            node.stop()
            for point in machine.mount_points(root):
                machine.run("umount", "--lazy", point, check=False)


@pytest.mark.parametrize("disabled", ["false", "true"], ids=["with-image-ref", "annotations-alone"])
def test_cri_pull(disabled, host, driver, work):
    """As a kubelet pulls. Without CRI's own labels the layer's annotations come all the same, and the daemon's source has the bytes."""
    with cri_engine(("--source", host.host) if disabled == "true" else (), disabled) as (node, engine):
        name = f"{host.host}/{ONE}"
        cri.Client(driver, engine.socket, work).pull(name)
        assert metric(engine, "lazy") == 3
        assert len(content(engine)) == 2, "no layer was fetched"
        assert engine.run("--rm", name, "c", "/bin/cat", "/etc/one", "/etc/two").stdout == "onetwo"
        remove_all(engine, node)


def test_cri_fallback(host, driver, work):
    """Where imgfsd is away the client pulls the layers as ever, and `imgfs why` has the reason by the image and by its containers."""
    with cri_engine(()) as (node, engine):
        client, name, long = cri.Client(driver, engine.socket, work), f"{host.host}/{ONE}", "0123456789abcdef" * 4
        node.stop()
        client.pull(name)
        engine.import_images([(image(host_tree("/bin/sleep"), command="/bin/sleep 1000000"), PAUSE)])
        assert metric(engine, "unavailable") == 1 and metric(engine, "parent-not-lazy") == 2
        for container in ("first", long):
            assert engine.run(name, container, "/bin/cat", "/etc/one", "/etc/two").stdout == "onetwo"
        pod = cri.sandbox_config(work / "logs")
        sandbox = client.run_sandbox(pod)
        service = client.start_container(sandbox, cri.container_config(name, "/bin/sleep", "1000000"), pod)

        def told(what):
            done = machine.imgfs("why", "--root", engine.layers, "--containerd-socket", engine.socket, what, check=False)
            assert done.returncode == (3 if "neither a mount" in done.stderr else 1)
            return done.stderr

        chain = told(name).split("pulled layer ")[1].split()[0]
        named = {"first": "first", long: long, long[:12]: long[:12], service: service, "default/pod/service": service, "pod": service}
        for what, container in named.items():
            assert f"container {container} did not start lazily: containerd pulled its layer {chain} whole at 2" in told(what), what
            assert f", for {name} (unavailable: " in told(what), what
        assert f"container {sandbox} did not start lazily: its layers were unpacked" in told(sandbox)
        assert "neither a mount" in told("nobody") and "neither a mount" in told(long[:12] + "f")
        engine.kill_snapshotter()
        assert f"for {name} (unavailable: " in told("first"), "without the snapshotter, too"
        engine.start_snapshotter()
        client.remove(service, sandbox)
        for container in ("first", long):
            engine.ctr("containers", "rm", container)
        engine.collect()
        machine.wait_until(lambda: "neither a mount" in told("first"), "the end of its snapshot", 120)


def test_ends_beside_a_daemon_that_hangs(work):
    """SIGTERM ends the snapshotter while it asks an imgfsd, which has greeted, what that holds; it would ask for 30 s."""
    command = [SNAPSHOTTER, "--address", work / "s.sock", "--root", work / "layers", "--daemon-socket", work / "imgfsd.sock"]
    with open(work / "log", "wb") as log, Hung(work / "imgfsd.sock") as hung, subprocess.Popen(list(map(str, command)), stderr=log) as snapshotter:
        assert hung.wait() == {"call": "list"}
        snapshotter.send_signal(signal.SIGTERM)
        assert snapshotter.wait(15) == 0
    assert "was not asked what it holds" in (work / "log").read_text()


def pod_mounts(engine):
    """What CRI and runc mounted for pods, and the roots of their containers."""
    return [point for point in machine.mount_points(engine.root) if Path(point).is_relative_to(engine.root / "state")]


def why(engine, name, **options):
    return machine.imgfs("why", "--json", "--root", engine.root / "snapshotter", "--containerd-socket", engine.socket, name, **options)


def check_names(engine, container, work):
    """Whose reads these are is told by the names of Kubernetes, of nerdctl and by the id, and not by others' names."""
    reads = json.loads(why(engine, container).stdout)["reads"]
    assert reads
    for name in ("default/pod/service", "pod/service", "default/pod", "pod", "service"):
        assert json.loads(why(engine, name).stdout)["reads"] == reads, name
    for name in ("default/pod/other", "other/pod/service", "default/service", "a/b/c/d", 'pod"'):
        done = why(engine, name, check=False)
        assert done.returncode == 3 and "neither a mount of imgfs here" in done.stderr, name
    (work / "other").mkdir()
    engine.ctr("containers", "create", "--rootfs", "--label", "nerdctl/name=web", "--label", "io.kubernetes.pod.name=pod",
               "--label", "io.kubernetes.pod.namespace=away", "--label", "io.kubernetes.container.name=service", work / "other", "other")
    done = why(engine, "pod", check=False)
    assert done.returncode and "several containers are called pod" in done.stderr
    assert "default/pod/service" in done.stderr and "away/pod/service" in done.stderr
    assert json.loads(why(engine, "default/pod").stdout)["reads"] == reads
    done = why(engine, "web", check=False)
    assert done.returncode and "web is the container other, which has read nothing" in done.stderr
    engine.ctr("containers", "rm", "other")
    ids = {"service": "0123456789abcdef" * 4, "nobody": "fedcba9876543210" * 4}
    with docker.Names(work / "docker.sock", ids) as environment:
        done = why(engine, "service", check=False, env=environment)
        assert done.returncode == 1 and "several containers are called service" in done.stderr
        assert ids["service"] in done.stderr and container in done.stderr
        for name in (container, "pod/service"):
            assert json.loads(why(engine, name, env=environment).stdout)["reads"] == reads
        assert why(engine, "nobody", check=False, env=environment).returncode == 3


def test_cri_pod(host, driver, work):
    """As a kubelet runs a pod, by CRI alone: its image is lazy, its files are the image's, and nothing is left of it."""
    with cri_engine(()) as (node, engine):
        client, name = cri.Client(driver, engine.socket, work), f"{host.host}/{ONE}"
        engine.import_images([(image(host_tree("/bin/sleep"), command="/bin/sleep 1000000"), PAUSE)])
        client.pull(name)
        assert metric(engine, "lazy") == 3
        pod = cri.sandbox_config(work / "logs")
        sandbox = client.run_sandbox(pod)
        command = "cat /etc/one /etc/two; echo; exec sleep 1000000"
        container = client.start_container(sandbox, cri.container_config(name, "/bin/sh", "-c", command), pod)
        log = work / "logs/service.log"
        machine.wait_until(lambda: " stdout F onetwo\n" in log.read_text(), "the container's log", 120)
        for path in ("/bin/cat", "/bin/sleep", "/bin/sh"):
            assert client.execute(container, "/bin/cat", path) == Path(path).read_bytes()
        assert b"gone" not in client.execute(container, "/bin/ls", "/").split()
        assert client.execute(container, "/bin/sh", "-c", "echo new >/etc/one; cat /etc/one") == b"new\n"
        tasks = {line.split()[0]: line.split()[1] for line in engine.ctr("tasks", "ls").stdout.splitlines()[1:]}
        assert set(tasks) == {sandbox, container}
        roots = [line.split() for line in Path(f"/proc/{tasks[container]}/mountinfo").read_text().splitlines()]
        lowers = next(words for words in roots if words[4] == "/")[-1].split("lowerdir=")[1].split(",")[0]
        assert lowers.startswith(str(node.root / "run/fs")) and ":" not in lowers, "the root is the lazy view and a layer to write to"
        assert pod_mounts(engine)
        check_names(engine, container, work)
        status = {one["directory"]: one for one in json.loads(machine.imgfs("status", "--json").stdout)}[lowers]
        assert 0 < status["presentBytes"] <= status["neededBytes"] and status["reference"] == name
        client.remove(container, sandbox)
        assert engine.ctr("tasks", "ls", "-q").stdout == engine.ctr("containers", "ls", "-q").stdout == ""
        client.call("ImageService/RemoveImage", (1, [(1, name)]))
        remove_all(engine, node)
        assert not pod_mounts(engine)
