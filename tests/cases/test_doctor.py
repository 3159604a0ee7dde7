"""`imgfs doctor`: what is wrong with a machine is found, told with a way out, and mended where that is safe."""
import datetime
import http.server
import json
import os
import signal
import socket
import subprocess
import threading

import pytest

import machine
from endpoint import NAME, TAG, serving
from endpoint import make_backend, make_image, make_place  # noqa: F401 # pylint: disable=unused-import # fixtures
from namespace import alone


@pytest.fixture(name="doctor")
def make_doctor(work):
    """Runs it on directories of the test's own, and gives its findings by check; `status` is what it has to exit with."""
    # What another run on this machine has mounted is none of this test's business, least of all to be mended.
    def doctor(*arguments, status=None, prefix=tuple(alone(work))):
        done = machine.run(*prefix, machine.IMGFS, "doctor", "--json", "--cache", work / "cache", "--certs-dir", work / "certs", "--runtime",
                           work / "run", *arguments, check=False)
        assert status is None or done.returncode == status, done.stdout + done.stderr
        answer = json.loads(done.stdout)
        assert answer["healthy"] == (done.returncode == 0)
        findings = {}
        for finding in answer["findings"]:
            findings.setdefault(finding["check"], []).append((finding["level"], finding["text"]))
            assert finding["level"] not in ("bad", "warning") or finding["do"] or finding["check"] == "imgfsd"
        return findings

    return doctor


def levels(findings, check):
    return {level for level, _ in findings.get(check, [])}


def texts(findings, check):
    return "\n".join(f"{level} {text}" for level, text in findings.get(check, []))


def test_a_machine_that_is_well(doctor, backend, mount, work):
    mounted = mount("--cache", work / "cache", f"{backend}/{NAME}:{TAG}")
    findings = doctor(status=0)
    assert f"good {mounted.directory} answers" in texts(findings, "mounts")
    assert "good kernel" in texts(findings, "kernel") and levels(findings, "fuse") == {"good"}
    assert "left" in texts(findings, "cache")
    # The host whose image was seen is asked by itself.
    assert f"http://{backend}/v2/ answers" in texts(findings, "servers") and "is healthy" in texts(findings, "servers")
    text = machine.imgfs("doctor", "--runtime", work / "run", "--cache", work / "cache", "--certs-dir", work / "certs", backend, check=False).stdout
    assert "good     kernel: kernel" in text and text.splitlines()[-1].endswith("fixed")
    mounted.unmount()


def test_dead_mount(doctor, backend, mount, work):
    mounted = mount("--cache", work / "cache", f"{backend}/{NAME}:{TAG}")
    os.kill(mounted.keeper, signal.SIGKILL)
    machine.wait_until(lambda: mounted.keeper not in machine.processes_of(machine.KEEPER), "the keeper's end")
    assert f"bad {mounted.directory} is dead" in texts(doctor(backend, status=1), "mounts")
    assert f"fixed {mounted.directory} was dead" in texts(doctor("--fix", backend), "mounts")


def test_files(doctor, backend, work):
    """Sockets that somebody has left, directories and keys that are open to others, pins of what is gone, and a cache that is none."""
    (work / "run").mkdir()
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(work / "run/imgfsd.sock"))
    left.close()
    (work / "certs/host:1").mkdir(parents=True)
    (work / "certs/host:1/client.key").write_text("secret")
    (work / "certs/host:1/client.key").chmod(0o644)
    machine.imgfs("pull", "--quiet", "--cache", work / "cache", f"{backend}/{NAME}:{TAG}")
    machine.imgfs("cache", "--quiet", "--cache", work / "cache", "pin", f"{backend}/{NAME}:{TAG}")
    next((work / "cache/manifests").iterdir()).unlink()
    (work / "cache").chmod(0o755)
    findings = doctor(backend, status=1)
    assert "was left by imgfsd" in texts(findings, "imgfsd")
    assert "bad the cache is open" in texts(findings, "cache") and "its manifest is gone" in texts(findings, "pins")
    assert "can be read by other users" in texts(findings, "certificates")
    findings = doctor("--fix", backend, status=0)
    for check in ("imgfsd", "cache", "certificates"):
        assert "fixed" in levels(findings, check), check
    assert (work / "cache").stat().st_mode & 0o777 == 0o700
    assert (work / "certs/host:1/client.key").stat().st_mode & 0o777 == 0o600 and not (work / "run/imgfsd.sock").exists()
    assert "fixed" not in {level for check in doctor(backend, status=0).values() for level, _ in check}
    (work / "other").mkdir()
    (work / "other/file").write_text("x")
    assert "not an imgfs cache" in texts(doctor("--cache", work / "other", backend, status=1), "cache")


def make_certificate(path, *days):
    """One that is valid between two days from now."""
    key = path.parent / "key.pem"
    first, last = (datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=day) for day in days)
    subprocess.run(["openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=x", "-keyout", key, "-out",
                    path.parent / "csr"], check=True, capture_output=True)
    (path.parent / "index.txt").write_text("")
    (path.parent / "ca.cnf").write_text(
        f"[ca]\ndefault_ca=x\n[x]\ndatabase={path.parent}/index.txt\nnew_certs_dir={path.parent}\nrand_serial=yes\ndefault_md=sha256\npolicy=p\n[p]\nCN=supplied\n")
    subprocess.run(["openssl", "ca", "-batch", "-selfsign", "-config", path.parent / "ca.cnf", "-keyfile", key, "-in", path.parent / "csr", "-out", path,
                    "-notext", "-startdate", f"{first:%Y%m%d%H%M%SZ}", "-enddate", f"{last:%Y%m%d%H%M%SZ}"], check=True, capture_output=True)


def test_certificates(doctor, place, image, work):  # pylint: disable=unused-argument # the image fills the store
    for name, days in (("old:1", (-10, -1)), ("soon:1", (-10, 4.5)), ("fine:1", (-10, 100))):
        (work / f"certs/{name}").mkdir(parents=True)
        make_certificate(work / f"certs/{name}/ca.crt", *days)
        (work / f"certs/{name}/key.pem").unlink()
    with serving(place / "store", work / "tls.log", "--listen", "127.0.0.1:0", "--tls-auto", "--tls-dir", work / "tls") as server:
        (work / f"certs/{server.address}").mkdir()
        # Nothing is trusted for it yet: then its authority is.
        (work / f"certs/{server.address}/ca.crt").write_bytes((work / "certs/fine:1/ca.crt").read_bytes())
        assert "bad 127.0.0.1" in texts(doctor(server.address, status=1), "servers")
        (work / f"certs/{server.address}/ca.crt").write_bytes((work / "tls/ca.crt").read_bytes())
        findings = doctor(server.address, status=1)
        assert f"https://{server.address}/v2/ answers" in texts(findings, "servers") and "valid for " in texts(findings, "servers")
    told = texts(findings, "certificates")
    assert "old:1/ca.crt has expired" in told and "soon:1/ca.crt expires in 4 days" in told and "fine:1/ca.crt is valid" in told


def test_clock_and_strange_servers(doctor):
    class Handler(http.server.BaseHTTPRequestHandler):
        ahead, status = 3600, 200

        def do_HEAD(self):
            self.send_response(Handler.status)
            self.end_headers()

        def date_time_string(self, timestamp=None):
            return super().date_time_string((timestamp or datetime.datetime.now().timestamp()) + Handler.ahead)

        def log_message(self, *_arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        host = f"127.0.0.1:{server.server_address[1]}"
        assert "seconds ahead of that of this machine" in texts(doctor(host, status=0), "servers")
        Handler.status, Handler.ahead = 500, -7200
        told = texts(doctor(host, status=1), "servers")
        assert "answers with status 500" in told and "behind" in told
        server.shutdown()
    assert "bad" in levels(doctor(host, status=1), "servers")


def test_without_fuse(doctor, backend, work):
    """In a namespace of its own the device is missing, and is made."""
    (work / "dev").mkdir()
    script = f"umount --all --lazy --types fuse.imgfs; mount -t tmpfs none /dev && mknod -m 666 /dev/null c 1 3 && cd {work} && exec \"$@\""
    prefix = ("unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh")
    findings = doctor(backend, status=1, prefix=prefix)
    assert "bad" in levels(findings, "fuse") and "warning" in levels(findings, "mount namespace")
    assert "fixed" in levels(doctor("--fix", backend, prefix=prefix), "fuse")


def test_wrong_usage():
    assert machine.imgfs("doctor", "--colour", check=False).returncode == 2
