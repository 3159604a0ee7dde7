"""`imgfs metrics`: numbers held against what the test's own forwarder counted, and the text against Prometheus's own checker."""
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import urllib.request

import pytest

import front as fake
import machine
from endpoint import NAME, TAG
from endpoint import make_backend, make_image, make_place  # noqa: F401 # pylint: disable=unused-import # fixtures


@pytest.fixture(name="front")
def make_front(backend):
    with fake.Front(backend) as front:
        yield front


SAMPLE = re.compile(r'^([a-z_:]+)(?:\{(.*)\})? ([-+.0-9eInf]+)$')
LABEL = re.compile(r'([a-z]+)="((?:[^"\\]|\\.)*)"')


def parse(text):
    """The samples of a text: {name: {labels: value}}; fails at a line that is none."""
    samples = {}
    for line in text.splitlines():
        if line.startswith("# "):
            continue
        match = SAMPLE.match(line)
        assert match, line
        name, labels, value = match.groups()
        key = tuple(sorted(LABEL.findall(labels or "")))
        assert key not in samples.setdefault(name, {}), f"twice: {line}"
        samples[name][key] = float(value)
    return samples


def metrics_of(mounted):
    """What is said of that mount and its server: {name: {other labels: value}}."""
    found = {}
    for name, values in parse(machine.imgfs("metrics").stdout).items():
        for labels, value in values.items():
            rest = dict(labels)
            if str(mounted.directory) in (rest.pop("mount", None), rest.pop("server", None)):
                found.setdefault(name, {})[tuple(sorted(rest.items()))] = value
    return found


def one(metrics, name, **labels):
    return metrics[name][tuple(sorted(labels.items()))]


def test_numbers(front, image, work, mount):
    reference = f"{front.host}/{NAME}:{TAG}"
    mounted = mount("--cache", work / "cache", reference)
    before = len(front.log)
    for path, content in image.files.items():
        assert (mounted.directory / path).read_bytes() == content
    size = sum(len(content) for content in image.files.values())

    def requests():
        return [entry for entry in front.log[before:] if "/blobs/" in entry[1]]

    def counted():
        """Once all is: a request ends a moment after its last chunk was given out."""
        said = metrics_of(mounted)
        ended = sum(value for labels, value in said["imgfs_fetches_total"].items() if ("result", "ok") in labels)
        return one(said, "imgfs_read_bytes_total") >= size and ended == len(requests()) and said

    done = machine.wait_until(counted, "reads and requests in the metrics")
    assert one(done, "imgfs_fetches_total", **{"class": "demand", "result": "ok"}) > 0
    assert sum(done["imgfs_fetch_seconds_count"].values()) == len(requests())
    fetched = sum(1 + int(last) - int(first) for first, last in (entry[2]["Range"].removeprefix("bytes=").split("-") for entry in requests()))
    assert one(done, "imgfs_fetched_bytes_total") == fetched
    assert one(done, "imgfs_present_bytes") <= fetched and one(done, "imgfs_needed_bytes") >= one(done, "imgfs_present_bytes")
    reads = one(done, "imgfs_reads_total")
    assert reads == one(done, "imgfs_read_seconds_count", waited="no") + one(done, "imgfs_read_seconds_count", waited="yes")
    assert one(done, "imgfs_read_seconds_bucket", waited="no", le="+Inf") == one(done, "imgfs_read_seconds_count", waited="no")
    assert one(done, "imgfs_chunks_total", tier="network") > 0 and one(done, "imgfs_chunks_total", tier="donor") == 0
    assert one(done, "imgfs_takeovers_total") == 0 and one(done, "imgfs_stalled_reads") == 0

    # A wrong byte, a server that dies: counted, and what was counted stays.
    server = mounted.server()
    os.kill(server, signal.SIGKILL)
    mounted.server(other_than=server)
    after = machine.wait_until(lambda: (m := metrics_of(mounted)) and one(m, "imgfs_takeovers_total") == 1 and m, "the takeover")
    for name, values in done.items():
        if name.endswith("_total"):
            assert all(after[name][labels] >= value for labels, value in values.items()), name


def test_faults_are_counted(front, image, work, mount):
    mounted = mount("--cache", work / "cache", "--deadline", "2", f"{front.host}/{NAME}:{TAG}")
    front.fault = "corrupt"
    with pytest.raises(OSError):
        (mounted.directory / "usr/noise").read_bytes()
    corrupt = machine.wait_until(lambda: (m := metrics_of(mounted)) and one(m, "imgfs_read_failures_total") and m, "the failure")
    assert one(corrupt, "imgfs_verify_failures_total") > 0 and one(corrupt, "imgfs_retries_total") > 0
    front.fault = "503"
    with pytest.raises(OSError):
        (mounted.directory / "usr/text").read_bytes()
    machine.wait_until(lambda: one(metrics_of(mounted), "imgfs_fetches_total", **{"class": "demand", "result": "failed"}) > 0, "failures")
    assert image.files


def test_text_and_file(front, image, work, mount):
    """A name that wants escapes; the collector's file, whole and replaced; promtool has nothing to say."""
    directory = work / 'a "quoted\\ one'
    mounted = mount("--cache", work / "cache", f"{front.host}/{NAME}:{TAG}")
    directory.mkdir()
    other = machine.imgfs("mount", "--no-fill", "--cache", work / "cache", f"{front.host}/{NAME}:{TAG}", directory)
    try:
        assert other.returncode == 0
        target = work / "imgfs.prom"
        target.write_text("old")
        machine.imgfs("metrics", "--output", target)
        text = target.read_text()
        samples = parse(text)
        shown = {dict(labels)["mount"] for labels in samples["imgfs_mount_info"]}
        assert {str(mounted.directory), str(directory).replace("\\", "\\\\").replace('"', '\\"')} <= shown
        assert (target.stat().st_mode & 0o777, [path.name for path in work.glob(".tmp-*")]) == (0o644, [])
    finally:
        machine.imgfs("umount", directory)
    if shutil.which("promtool"):
        done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    assert image.files


def listening(work, where):
    """A running `imgfs metrics --listen`, and the line that it printed."""
    with open(work / "listen.log", "ab") as errors:
        process = subprocess.Popen(
            [machine.IMGFS, "metrics", "--listen", where], bufsize=0, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors,
        )
    try:
        return process, machine.read_line(process.stdout, "imgfs metrics")
    except AssertionError:
        machine.end(process)
        raise


def ask(connection, path="/metrics", method="GET"):
    connection.request(method, path)
    answer = connection.getresponse()
    return answer.status, answer.getheader("Content-Type"), answer.read().decode()


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost", timeout=30)
        self.path = str(path)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self.path)


def test_by_http(front, image, work, mount):
    """On a loopback address and on a socket, that alone; the numbers are those of the command."""
    mounted = mount("--cache", work / "cache", f"{front.host}/{NAME}:{TAG}")
    (mounted.directory / "usr/text").read_bytes()
    process, line = listening(work, "127.0.0.1:0")
    try:
        host = line.rpartition("//")[2]
        status, kind, text = ask(http.client.HTTPConnection(host, timeout=30))
        assert status == 200 and kind == "text/plain; version=0.0.4" and str(mounted.directory) in text
        assert set(parse(text)) == set(parse(machine.imgfs("metrics").stdout))
        assert ask(http.client.HTTPConnection(host, timeout=30), "/")[0] == 404
        assert ask(http.client.HTTPConnection(host, timeout=30), method="DELETE")[0] == 405
    finally:
        assert machine.end(process) == 0
        process.stdout.close()
    path = work / "metrics.sock"
    for _ in range(2):  # the second time over the socket of one that was killed
        process, _ = listening(work, f"unix:{path}")
        status, _, text = ask(UnixConnection(path))
        assert status == 200 and str(mounted.directory) in text
        process.kill()
        process.wait(60)
        process.stdout.close()
    (work / "file").write_text("x")
    for where in ("0.0.0.0:0", "nowhere", "unix:", f"unix:{work}/{'x' * 200}"):
        done = machine.imgfs("metrics", "--listen", where, check=False)
        assert done.returncode == 2, where
    done = machine.imgfs("metrics", "--listen", f"unix:{work}/file", check=False)
    assert done.returncode == 1 and (work / "file").read_text() == "x"
    assert image.files


DEPLOY = machine.TOP / "tools/deploy/prometheus"
NOT_OURS = {"node_textfile_mtime_seconds"}


def expressions():
    """Every PromQL expression of the dashboard and the alerts, with where it stands."""
    dashboard = json.loads((DEPLOY / "dashboard.json").read_text())
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            yield f"dashboard: {panel['title']}", target["expr"]
    yield "dashboard: variables", dashboard["templating"]["list"][1]["query"]["query"]
    text = (DEPLOY / "alerts.yml").read_text()
    for match in re.finditer(r"^ +expr: (\|\n(?: {10,}.*\n)+|[^|\n].*)", text, re.MULTILINE):
        yield "alerts", match.group(1)


def names_in(expression):
    plain = re.sub(r'"[^"]*"', '""', expression)
    return set(re.findall(r"\b(?:imgfs|node)_[a-z_]+", plain))


def labels_of(expression):
    """(metric, label) pairs that an expression selects by or groups by."""
    for name, selector in re.findall(r"\b(imgfs_[a-z_]+)\{([^}]*)\}", expression):
        for label in re.findall(r'([a-z_]+)\s*=~?', selector):
            yield name, label


def test_dashboard_and_alerts_ask_for_what_there_is(front, image, work, mount):
    """Each metric and label in dashboard and alerts is one that a mount or a server really has; no metric is called for in vain."""
    mounted = mount("--cache", work / "cache", f"{front.host}/{NAME}:{TAG}")
    (mounted.directory / "usr/text").read_bytes()
    samples = parse(machine.imgfs("metrics").stdout)
    from_serve, _ = urllib.request.urlretrieve(f"http://{front.backend}/metrics", work / "serve.txt")
    for name, values in parse(open(from_serve, encoding="utf-8").read()).items():
        samples.setdefault(name, {}).update(values)
    # What only a server with TLS has.
    samples["imgfs_serve_tls_not_after_seconds"] = {(): 0.0}
    used = set()
    for where, expression in expressions():
        assert names_in(expression), f"{where}: {expression}"
        names = names_in(expression) - NOT_OURS
        for name in names:
            assert name in samples, f"{where}: there is no {name}"
        used |= names
        for name, label in labels_of(expression):
            known = {key for labels in samples[name] for key, _ in labels} | {"instance", "le"}
            assert label in known, f"{where}: {name} has no label {label}"
    assert len(used) > 25
    # Nothing that a mount counts is left out of the dashboard but what is told otherwise there.
    families = {re.sub(r"_(bucket|sum|count)$", "", name) for name in samples if name.startswith("imgfs_") and not name.startswith("imgfs_serve_")}
    seen = {re.sub(r"_(bucket|sum|count)$", "", name) for name in used}
    assert families - seen <= {"imgfs_mounted_time_seconds", "imgfs_fetched_chunks_total"}, families - seen
    assert image.files


def test_rules():
    """Prometheus itself reads the alerts, and they go off for the faults they are for, and for nothing else."""
    if not shutil.which("promtool"):
        pytest.skip("not installed: promtool")
    for words in (("check", "rules", "alerts.yml"), ("test", "rules", "alerts-test.yml")):
        done = subprocess.run(["promtool", *words], cwd=DEPLOY, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
