"""TLS, users and trust: what `imgfs serve --tls-auto` shows, `imgfs trust` installs, and imgfs, docker and containerd then believe."""
import hashlib
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import warnings

import pytest

import machine
from endpoint import NAME, TAG, accepts, chain_id, need, reference, run, serving, started
from endpoint import make_image, make_place  # noqa: F401 # pylint: disable=unused-import # fixtures
from machine import IMGFS

KINDS = ("imgfs", "docker", "containerd")
ELSEWHERE = "10.123.45.67"
# Of the password "secret", made by crypt(3).
ANN = "ann:$2b$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW\n"


@pytest.fixture(name="server", scope="module")
def make_server(place, image):  # pylint: disable=unused-argument # the image fills the store
    with serving(place / "store", place / "tls.log", "--listen", "127.0.0.1:0", "--tls-auto") as server:
        yield server


@pytest.fixture(name="trusted", scope="module")
def make_trusted(place, server):
    """A root that the line which the server printed was run in."""
    root = place / "root"
    run(IMGFS, *server.trust, "--root", root)
    return root


def installed(root):
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def expected(host):
    return sorted([f"etc/{kind}/certs.d/{host}/ca.crt" for kind in KINDS] + [f"etc/containerd/certs.d/{host}/hosts.toml"])


def fails(*command, status):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stderr


def fingerprint(pem):
    return "sha256:" + hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest()


def test_trust_installs_what_was_printed(place, server, trusted):
    ca = (place / "store/tls/ca.crt").read_text()
    assert server.trust == ["trust", server.address, "--fingerprint", fingerprint(ca)]
    assert installed(trusted) == expected(server.address)
    for kind in KINDS:
        assert (trusted / f"etc/{kind}/certs.d/{server.address}/ca.crt").read_text() == ca
    assert (place / "store/tls/ca.key").stat().st_mode & 0o777 == 0o600
    assert (place / "store/tls").stat().st_mode & 0o777 == 0o700


def test_openssl_believes_the_certificate(place, server):
    """An implementation that is neither the one that made it nor the one that shows it."""
    context = ssl.create_default_context(cafile=place / "store/tls/ca.crt")
    with socket.create_connection((server.host, server.port)) as plain:
        with context.wrap_socket(plain, server_hostname="127.0.0.1") as secure:
            assert secure.version() == "TLSv1.3"
    old = ssl.create_default_context(cafile=place / "store/tls/ca.crt")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        old.maximum_version = ssl.TLSVersion.TLSv1_1
    old.set_ciphers("ALL:@SECLEVEL=0")
    with socket.create_connection((server.host, server.port)) as plain, pytest.raises(OSError):
        old.wrap_socket(plain, server_hostname="127.0.0.1")


def test_wrong_fingerprint_installs_nothing(place, server):
    root = place / "wrong"
    said = fails(IMGFS, "trust", server.address, "--fingerprint", "sha256:" + "0" * 64, "--root", root, status=4)
    assert server.address in said and "Nothing was installed" in said
    assert not root.exists()


def test_wrong_name_installs_nothing(place, server):
    """The certificate is not for this name, so a node that used it would fail later."""
    root = place / "name"
    said = fails(IMGFS, "trust", f"127.0.0.9:{server.port}", *server.trust[2:], "--root", root, status=1)
    assert "127.0.0.9" in said
    assert not root.exists()


def test_trust_wants_a_fingerprint_and_a_host(place, server):
    assert "--fingerprint" in fails(IMGFS, "trust", server.address, "--root", place / "none", status=2)
    for host in ("../../etc", "a/b", ".", "build:port", ""):
        fails(IMGFS, "trust", host, *server.trust[2:], "--root", place / "none", status=2)
    assert not (place / "none").exists()


def test_trust_from_a_file(place, server):
    root, ca = place / "offline", place / "store/tls/ca.crt"
    said = fails(IMGFS, "trust", "build:8500", "--from", place / "store/tls/server.crt", "--root", root, status=4)
    assert "authority" in said
    fails(IMGFS, "trust", "build:8500", "--from", ca, "--fingerprint", "sha256:" + "1" * 64, "--root", root, status=4)
    fails(IMGFS, "trust", "build:8500", "--from", place / "store/imgfs-store", "--root", root, status=4)
    assert not root.exists()
    run(IMGFS, "trust", "build:8500", "--from", ca, *server.trust[2:], "--root", root)
    assert installed(root) == expected("build:8500")


def test_trust_removed(place):
    root, ca = place / "removed", place / "store/tls/ca.crt"
    for host in ("build:8500", "other:1"):
        run(IMGFS, "trust", host, "--from", ca, "--root", root)
    key = root / "etc/imgfs/certs.d/build:8500/client.key"
    key.write_text("mine")
    run(IMGFS, "trust", "--remove", "build:8500", "--root", root)
    assert installed(root) == sorted([*expected("other:1"), str(key.relative_to(root))])
    assert not (root / "etc/docker/certs.d/build:8500").exists()
    assert "build:8500" in fails(IMGFS, "trust", "--remove", "build:8500", "--root", root, status=3)


def test_foreign_hosts_file_is_kept(place):
    root, ca = place / "foreign", place / "store/tls/ca.crt"
    hosts = root / "etc/containerd/certs.d/build:8500/hosts.toml"
    hosts.parent.mkdir(parents=True)
    hosts.write_text('server = "https://mirror"\n')
    assert str(hosts) in fails(IMGFS, "trust", "build:8500", "--from", ca, "--root", root, status=1)
    fails(IMGFS, "trust", "--remove", "build:8500", "--root", root, status=1)
    assert installed(root) == [str(hosts.relative_to(root))]
    assert hosts.read_text() == 'server = "https://mirror"\n'


def test_authority_outlives_the_server(place, server):
    with serving(place / "store", place / "again.log", "--listen", "127.0.0.1:0", "--tls-auto") as again:
        assert again.trust[2:] == server.trust[2:]


def test_name_for_the_certificate(place, image):  # pylint: disable=unused-argument
    options = ("--listen", "127.0.0.1:0", "--tls-auto", "--tls-dir", place / "named", "--tls-name", "build.example")
    with serving(place / "store", place / "named.log", *options) as server:
        assert server.trust[1] == f"build.example:{server.port}"
        context = ssl.create_default_context(cafile=place / "named/ca.crt")
        with socket.create_connection((server.host, server.port)) as plain:
            context.wrap_socket(plain, server_hostname="build.example").close()


def test_tls_lets_other_machines_in(place, image):  # pylint: disable=unused-argument
    with serving(place / "store", place / "any.log", "--listen", "0.0.0.0:0", "--tls-auto", "--tls-dir", place / "any") as server:
        assert server.tls and "0.0.0.0" not in server.trust[1]


def mounted(mount, trusted, place, host, *options):
    certs = trusted / "etc/imgfs/certs.d"
    return mount("--certs-dir", certs, "--cache", place / "cache", *options, f"{host}/{NAME}:{TAG}")


def check_content(directory, image):
    for name, data in image.files.items():
        assert (directory / name).read_bytes() == data
    assert not (directory / "usr/small-001").exists()


def test_mount(server, place, trusted, mount, image):
    need("fusermount3")
    one = mounted(mount, trusted, place, server.address)
    check_content(one.directory, image)
    one.unmount()


def test_mount_goes_on_with_another_certificate(place, mount, image):
    """The server comes back with a new certificate of its authority: reads that were never made before succeed."""
    need("fusermount3")
    directory, port = place / "renewing", 0
    root = place / "renewing-root"
    options = ("--tls-auto", "--tls-dir", directory)
    with serving(place / "store", place / "renew-1.log", "--listen", "127.0.0.1:0", *options) as server:
        run(IMGFS, *server.trust, "--root", root)
        one = mount("--certs-dir", root / "etc/imgfs/certs.d", "--cache", place / "cache-renewing", reference(server))
        port = server.port
    (directory / "server.crt").unlink()
    with serving(place / "store", place / "renew-2.log", "--listen", f"127.0.0.1:{port}", *options):
        check_content(one.directory, image)
    one.unmount()


def refused(place, *words, prefix=()):
    point = place / "refused"
    point.mkdir(exist_ok=True)
    done = subprocess.run([*prefix, IMGFS, "mount", "--cache", place / "cache-refused", *words, point], capture_output=True,
                          text=True, timeout=60, check=False)
    assert done.returncode != 0
    return done.stderr


def test_mount_without_trust_says_the_way(place, server, image):  # pylint: disable=unused-argument
    need("fusermount3")
    for host in (server.address, f"localhost:{server.port}"):
        said = refused(place, "--certs-dir", place / "nothing", f"{host}/{NAME}:{TAG}")
        assert f"imgfs trust {host} --fingerprint" in said
    other = place / "other-root"
    run(IMGFS, "trust", server.address, "--from", make_authority(place, "stranger"), "--root", other)
    said = refused(place, "--certs-dir", other / "etc/imgfs/certs.d", reference(server))
    assert f"imgfs trust {server.address} --fingerprint" in said


def make_authority(place, name):
    path = place / f"{name}.crt"
    run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-keyout",
        place / f"{name}.key", "-out", path, "-subj", f"/CN={name}")
    return path


def make_client(place, authority, name):
    run("openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", place / f"{name}.key",
        "-out", place / f"{name}.csr", "-subj", f"/CN={name}")
    run("openssl", "x509", "-req", "-in", place / f"{name}.csr", "-CA", authority, "-CAkey", authority.with_suffix(".key"),
        "-CAcreateserial", "-days", "2", "-out", place / f"{name}.crt")


def test_client_certificates(place, image, mount):
    need("fusermount3", "openssl")
    authority, root = make_authority(place, "clients"), place / "client-root"
    make_client(place, authority, "node")
    options = ("--listen", "127.0.0.1:0", "--tls-auto", "--client-ca", authority)
    with serving(place / "store", place / "client.log", *options) as server:
        run(IMGFS, *server.trust, "--root", root)
        certs = root / "etc/imgfs/certs.d"
        said = refused(place, "--certs-dir", certs, reference(server))
        assert server.address in said and "client.cert" in said
        shutil.copy(place / "node.crt", certs / server.address / "client.cert")
        # Without a terminal, where nobody can be asked for the pass phrase.
        for form in (["pkcs8", "-topk8", "-v2", "aes-128-cbc"], ["ec", "-aes128"]):
            run("openssl", *form, "-passout", "pass:secret", "-in", place / "node.key", "-out", certs / server.address / "client.key")
            said = refused(place, "--certs-dir", certs, reference(server), prefix=["setsid", "--wait"])
            assert "client.key is encrypted" in said and "openssl pkey" in said
        shutil.copy(place / "node.key", certs / server.address / "client.key")
        (certs / server.address / "client.key").chmod(0o600)
        one = mount("--certs-dir", certs, "--cache", place / "cache-client", reference(server))
        check_content(one.directory, image)
        one.unmount()
        assert server.ask("/v2/")[0].status == 403
        assert server.ask("/healthz")[0].status == 200


def in_root(root):
    """A command that sees what was installed below the root in its own /etc, as others see a real one."""
    script = 'mount -t overlay -o "lowerdir=/etc,upperdir=$1/etc,workdir=$1/work" overlay /etc && shift && exec "$@"'
    for name in ("etc", "work"):
        (root / name).mkdir(parents=True, exist_ok=True)
    return ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh", root]


@pytest.fixture(name="elsewhere")
def make_elsewhere():
    """A network of its own with an address that is not loopback, which engines believe without TLS: the command that enters it."""
    need("ip", "nsenter", "unshare")
    name = f"imgfs-tls-{os.getpid()}"
    run("ip", "netns", "add", name)
    enter = ["nsenter", f"--net=/run/netns/{name}"]
    try:
        run(*enter, "ip", "link", "set", "lo", "up")
        run(*enter, "ip", "address", "add", f"{ELSEWHERE}/32", "dev", "lo")
        yield enter
    finally:
        run("ip", "netns", "delete", name)


def test_docker_pull(place, image, elsewhere):
    """With a certificate where `imgfs trust` puts it and a password, the engine gets the original image; so does imgfs with docker's login."""
    need("dockerd", "docker", "containerd")
    home, root, users = place / "docker", place / "docker-root", place / "users"
    home.mkdir()
    users.write_text(ANN)
    options = ("--listen", f"{ELSEWHERE}:0", "--tls-auto", "--htpasswd", users)
    with serving(place / "store", place / "docker-serve.log", *options, prefix=elsewhere) as server:
        dockerd = [*elsewhere, *in_root(root), "dockerd", "--data-root", home / "data", "--exec-root", home / "exec", "-H",
                   f"unix://{home}/socket", "--pidfile", home / "pid", "--bridge=none", "--iptables=false", "--ip6tables=false",
                   "--storage-driver", "vfs"]
        docker = ["docker", "--config", home / "config", "-H", f"unix://{home}/socket"]
        with started(dockerd, lambda: accepts(home / "socket"), place / "dockerd-tls.log"):
            assert "certificate signed by unknown authority" in fails(*docker, "pull", reference(server), status=1)
            # The engine looks whenever it asks a registry: nothing is restarted.
            run(*elsewhere, "nsenter", f"--mount=/proc/{(home / 'pid').read_text()}/ns/mnt", IMGFS, *server.trust)
            assert "no basic auth credentials" in fails(*docker, "pull", reference(server), status=1)
            run(*docker, "login", "--username", "ann", "--password-stdin", server.address, input="secret\n")
            run(*docker, "pull", reference(server))
            found = json.loads(run(*docker, "image", "inspect", reference(server)))[0]
        check_mount_with_login(place, server, root, home / "config/config.json", image, elsewhere)
    assert found["Id"] == image.id
    assert found["RootFS"]["Layers"] == image.diff_ids


def check_mount_with_login(place, server, root, login, image, prefix):
    certs = root / "etc/imgfs/certs.d"
    empty = place / "no-login.json"
    empty.write_text("{}")
    said = refused(place, "--certs-dir", certs, "--login", empty, reference(server), prefix=prefix)
    assert server.address in said and "docker login" in said
    one = machine.Mount(place / "login", place / "login.log", "--certs-dir", certs, "--login", login, "--cache",
                        place / "cache-login", reference(server), prefix=prefix)
    try:
        check_content(one.directory, image)
    finally:
        one.clear()


def test_containerd_pull(place, image, elsewhere):
    need("containerd", "ctr")
    home, root = place / "containerd", place / "containerd-root"
    home.mkdir()
    (home / "config.toml").write_text(
        f'version = 2\nroot = "{home}/root"\nstate = "{home}/state"\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n'
        f'[grpc]\naddress = "{home}/socket"\n'
    )
    ctr = [*elsewhere, "ctr", "--address", home / "socket"]
    options = ("--listen", f"{ELSEWHERE}:0", "--tls-auto")
    with serving(place / "store", place / "containerd-serve.log", *options, prefix=elsewhere) as server, \
            started(["containerd", "--config", home / "config.toml"], lambda: accepts(home / "socket"), place / "containerd-tls.log"):
        pull = [*ctr, "images", "pull", "--snapshotter", "native", "--hosts-dir", root / "etc/containerd/certs.d", reference(server)]
        assert "certificate signed by unknown authority" in fails(*pull, status=1)
        run(*elsewhere, IMGFS, *server.trust, "--root", root)
        run(*pull)
        snapshots = run(*ctr, "snapshots", "--snapshotter", "native", "ls")
    assert chain_id(image.diff_ids) in snapshots


def test_skopeo(place, server, trusted, image):
    need("skopeo")
    certs = trusted / "etc/docker/certs.d" / server.address
    run("skopeo", "copy", "--src-cert-dir", certs, f"docker://{reference(server)}", f"dir:{place}/skopeo")
    manifest = json.loads((place / "skopeo/manifest.json").read_text())
    assert manifest["config"]["digest"] == image.id


def test_users(place, image):
    users = place / "users-only"
    users.write_text(ANN)
    with serving(place / "store", place / "users.log", "--listen", "127.0.0.1:0", "--htpasswd", users) as server:
        path = f"/imgfs/blobs/{image.diff_ids[1]}"
        reply, body = server.ask(path)
        assert (reply.status, reply.headers["WWW-Authenticate"]) == (401, 'Basic realm="imgfs", charset="UTF-8"')
        assert json.loads(body)["errors"][0]["code"] == "UNAUTHORIZED"
        wrong_user = server.ask(path, Authorization="Basic ZXZlOnNlY3JldA==")
        wrong_password = server.ask(path, Authorization="Basic YW5uOndyb25n")
        for reply, body in (wrong_user, wrong_password):
            headers = {key: value for key, value in reply.getheaders() if key != "Date"}
            assert (reply.status, body, headers) == (401, wrong_user[1], {
                key: value for key, value in wrong_user[0].getheaders() if key != "Date"})
        assert server.ask(path, Authorization="Basic YW5uOnNlY3JldA==")[1] == image.layers[1]
        assert server.ask("/metrics")[0].status == 401
        users.write_text("")
        server.process.send_signal(signal.SIGHUP)
        machine.wait_until(lambda: "users stay what they were" in (place / "users.log").read_text(), "the reload that fails")
        assert server.ask("/v2/", Authorization="Basic YW5uOnNlY3JldA==")[0].status == 200
        users.write_text(ANN.replace("ann", "bob"))
        server.process.send_signal(signal.SIGHUP)
        machine.wait_until(lambda: "users were read again" in (place / "users.log").read_text(), "the reload")
        assert server.ask("/v2/", Authorization="Basic YW5uOnNlY3JldA==")[0].status == 401
        assert server.ask("/v2/", Authorization="Basic Ym9iOnNlY3JldA==")[0].status == 200


def certificate_of(server):
    return ssl.get_server_certificate((server.host, server.port))


def test_reload_drops_nobody(place, image):
    """New connections get the new certificate; a transfer that is under way ends well, on its old one."""
    need("openssl")
    for name in ("first", "second"):
        make_authority(place, name)
    certificate, key, log = place / "reloaded.crt", place / "reloaded.key", place / "reload.log"
    access = place / "reload-access.log"

    def put(name):
        shutil.copy(place / f"{name}.crt", certificate)
        shutil.copy(place / f"{name}.key", key)

    put("first")
    options = ("--listen", "127.0.0.1:0", "--tls-cert", certificate, "--tls-key", key, "--access-log", access)
    with serving(place / "store", log, *options) as server:
        assert certificate_of(server) == (place / "first.crt").read_text()
        slow = server.connect()
        slow.request("GET", f"/imgfs/blobs/{image.diff_ids[0]}")
        reply = slow.getresponse()
        got = reply.read(1000)
        put("second")
        access.rename(place / "rotated.log")
        server.process.send_signal(signal.SIGHUP)
        machine.wait_until(lambda: "certificates were read again" in log.read_text(), "the reload")
        assert certificate_of(server) == (place / "second.crt").read_text()
        assert got + reply.read() == image.layers[0]
        slow.request("GET", "/healthz")
        assert slow.getresponse().read() == b"ok\n"
        slow.close()
        certificate.write_text("rubbish")
        server.process.send_signal(signal.SIGHUP)
        machine.wait_until(lambda: "certificates stay what they were" in log.read_text(), "the reload that fails")
        assert certificate_of(server) == (place / "second.crt").read_text()
        machine.wait_until(lambda: access.exists() and "/healthz" in access.read_text(), "the line in the new access log")
        server.process.terminate()
        assert server.process.wait(60) == 0


def test_options_that_do_not_go_together(place):
    store = place / "store"
    for options in (("--tls-cert", "x"), ("--tls-key", "x"), ("--tls-auto", "--tls-cert", "x", "--tls-key", "y"),
                    ("--tls-dir", "x"), ("--tls-name", "x"), ("--client-ca", "x"), ("--connections-per-address", "0")):
        fails(IMGFS, "serve", "--store", store, "--listen", "127.0.0.1:0", *options, status=2)
    for options in (("--tls-cert", "/nowhere", "--tls-key", "/nowhere"), ("--htpasswd", "/nowhere")):
        assert "/nowhere" in fails(IMGFS, "serve", "--store", store, "--listen", "127.0.0.1:0", *options, status=3)


def test_signal_ends_it(place, image):
    with serving(place / "store", place / "end.log", "--listen", "127.0.0.1:0", "--tls-auto") as server:
        idle = socket.create_connection((server.host, server.port))
        busy = server.connect()
        busy.request("GET", f"/imgfs/blobs/{image.diff_ids[0]}")
        server.process.terminate()
        assert server.process.wait(60) == 0
        idle.close()
        busy.close()
