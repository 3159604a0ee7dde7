"""As whom imgfs asks a registry: users, tokens, helpers and client certificates, and who never gets to see them."""
import base64
import contextlib
import json
import os
import pty
import random
import signal
import subprocess
import termios
import time
from pathlib import Path

import pytest

import front as fake
import machine
from endpoint import NAME, TAG
from endpoint import make_backend, make_image, make_place  # noqa: F401 # pylint: disable=unused-import # fixtures

SECRET = "Geheim-5f3a"
USER = f"ann:{SECRET}"
NOISE = 3_000_000


@pytest.fixture(name="front")
def make_front(backend):
    with fake.Front(backend) as front:
        yield front


@pytest.fixture(name="tls", scope="module")
def make_tls(place):
    """An authority, and a certificate of it for servers."""
    return fake.make_authority(place / "tls", "server")


@pytest.fixture(name="client", scope="module")
def make_client(place):
    """An authority of clients, and a certificate of it."""
    return fake.make_authority(place / "tls", "client")


@pytest.fixture(name="nobody", autouse=True)
def make_nobody(monkeypatch, work):
    """No login that this machine may have counts."""
    monkeypatch.setenv("DOCKER_CONFIG", str(work / "docker"))
    (work / "docker").mkdir()
    return work / "docker"


@pytest.fixture(name="attach")
def make_attach(mount, work):
    def attach(front, *options):
        return mount("--cache", work / "cache", "--certs-dir", work / "certs.d", "--deadline", "10", *options, f"{front.host}/{NAME}:{TAG}")

    return attach


def refused(front, work, *options, status=1, **more):
    """Mounting fails; returns what it says."""
    (work / "mount").mkdir(exist_ok=True)
    done = machine.run(machine.IMGFS, "mount", "--cache", work / "cache", "--deadline", "5", *options, f"{front.host}/{NAME}:{TAG}",
                       work / "mount", check=False, **more)
    assert done.returncode == status, done.stdout + done.stderr
    assert SECRET not in done.stdout + done.stderr
    return done.stderr


def read_all(mounted, image):
    for path, content in image.files.items():
        assert (mounted.directory / path).read_bytes() == content, path


def write_config(directory, host, **login):
    if "user" in login:
        login["auth"] = base64.b64encode(login.pop("user").encode()).decode()
    (directory / "config.json").write_text(json.dumps({"auths": {host: login}}))
    return directory / "config.json"


def write_helper(directory, name, script):
    path = directory / f"docker-credential-{name}"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def by_option(front, work):  # pylint: disable=unused-argument
    return "--user", USER


def by_file(front, work):  # pylint: disable=unused-argument
    (work / "password").write_text(SECRET + "\nnot this\n")
    return "--user", "ann", "--password-file", work / "password"


def by_login(front, work):
    (work / "login").mkdir()
    return "--login", write_config(work / "login", front.host, user=USER)


def by_docker(front, work):
    write_config(work / "docker", f"https://{front.host}/v1/", user=USER)
    return ()


WAYS = {"option": by_option, "file": by_file, "login": by_login, "docker": by_docker}


@pytest.mark.parametrize("kind", ["basic", "token"])
@pytest.mark.parametrize("way", sorted(WAYS))
def test_user(way, kind, front, image, attach, work):
    """However the user is given, a registry of either kind takes it, also from a server that comes after a kill."""
    with fake.Tokens(user=USER) as tokens:
        if kind == "basic":
            front.user = USER
        else:
            front.tokens = tokens
        mounted = attach(front, *WAYS[way](front, work))
        os.kill(mounted.server(), signal.SIGKILL)
        read_all(mounted, image)
        assert tokens.given == (2 if kind == "token" else 0)
        check_hidden(mounted, SECRET, *tokens.valid)
        mounted.unmount()


def check_hidden(mounted, *secrets):
    """Nothing secret in the log, in the table of mounts, or where other users look at processes."""
    texts = [mounted.log.read_text(), Path("/proc/self/mountinfo").read_text()]
    for pid in (mounted.keeper, mounted.server()):
        texts += [Path(f"/proc/{pid}/{name}").read_bytes().decode(errors="replace") for name in ("cmdline", "environ")]
    for secret in secrets:
        assert not any(secret in text for text in texts)


def helper_script(host, user, secret):
    return (f'read host; [ "$1" = get ] || exit 9; [ "$host" = "{host}" ] || {{ echo credentials not found in native keychain; exit 1; }}\n'
            f"""printf '{{"ServerURL":"%s","Username":"{user}","Secret":"{secret}"}}' "$host" """)


@pytest.mark.parametrize("kind", ["credHelpers", "credsStore", "identity"])
def test_helper(kind, front, image, attach, work, monkeypatch):
    monkeypatch.setenv("PATH", f"{work}:{os.environ['PATH']}")
    with fake.Tokens(user=USER, identity="refresh-me") as tokens:
        if kind == "identity":
            front.tokens = tokens
            write_helper(work, "vault", helper_script(front.host, "<token>", "refresh-me"))
        else:
            front.user = USER
            write_helper(work, "vault", helper_script(front.host, "ann", SECRET))
        config = {"credHelpers": {front.host: "vault"}} if kind == "credHelpers" else {"credsStore": "vault"}
        (work / "docker/config.json").write_text(json.dumps(config))
        mounted = attach(front)
        read_all(mounted, image)
        check_hidden(mounted, SECRET, "refresh-me")
        mounted.unmount()


def test_helper_that_does_not_help(front, work, monkeypatch):
    """The registry wants no login here; what the helper lacks shows where it matters."""
    monkeypatch.setenv("PATH", f"{work}:{os.environ['PATH']}")
    config = work / "docker/config.json"
    config.write_text(json.dumps({"credHelpers": {front.host: "vault"}}))
    assert "docker-credential-vault cannot be run" in refused(front, work)
    write_helper(work, "vault", "echo the vault is locked; exit 1")
    assert "docker-credential-vault fails: the vault is locked" in refused(front, work)
    write_helper(work, "vault", "echo '{}'")
    assert "docker-credential-vault prints no login" in refused(front, work)
    write_helper(work, "vault", "kill -9 $$")
    assert "signal 9" in refused(front, work)
    # Of all hosts: as if there were none. A registry that wants a login says how to give one.
    config.write_text(json.dumps({"credsStore": "absent"}))
    front.user = USER
    assert "--user" in refused(front, work)
    config.write_text(json.dumps({"credHelpers": {front.host: "../vault"}}))
    assert "no name of a credential helper" in refused(front, work)
    config.write_text("{")
    assert "is not JSON" in refused(front, work, status=1)


def test_tokens_for_nobody_and_by_identity(front, image, attach, work):
    with fake.Tokens() as tokens:
        front.tokens = tokens
        mounted = attach(front)
        read_all(mounted, image)
        mounted.unmount()
    with fake.Tokens(identity="refresh-me") as tokens:
        front.tokens = tokens
        write_config(work / "docker", front.host, auth="YW5uOg==", identitytoken="refresh-me")
        mounted = attach(front)
        (work / "cache").rename(work / "old")
        mounted.unmount()
        mounted = attach(front)
        read_all(mounted, image)
        mounted.unmount()
        assert all(method == "POST" for method, *_ in tokens.log)
        # A token of the user's own, used as it is.
        tokens.valid["own-token"] = time.monotonic() + 1000
        before = tokens.given
        write_config(work / "docker", front.host, registrytoken="own-token")
        mounted = attach(front)
        mounted.unmount()
        assert tokens.given == before


def test_tokens_refused(front, work, tls):
    with fake.Tokens(user=USER) as tokens:
        front.tokens = tokens
        said = refused(front, work, "--user", "ann:wrong")
        assert "no token of" in said and "user and password are not known" in said
        tokens.faults = [500]
        assert "status 500" in refused(front, work, "--user", USER)
        tokens.kill()
        assert "no token of" in refused(front, work, "--user", USER)
    # A registry whose word is protected by TLS must not be able to send the password in the clear.
    with fake.Tokens(user=USER) as tokens, fake.Front(front.backend, tls=fake.server_context(*tls[1:])) as secure:
        secure.tokens = tokens
        assert "has to name an https realm" in refused(secure, work, "--user", USER, "--ca", tls[0])
        assert not tokens.log


def random_reads(mounted, image, seconds, pause=0.1):
    """Compares pieces of the largest file, past the page cache, for so long."""
    content, dice, end = image.files["usr/noise"], random.Random(7), time.monotonic() + seconds
    with open(mounted.directory / "usr/noise", "rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        while time.monotonic() < end:
            at = dice.randrange(NOISE - 4096)
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            assert os.pread(file.fileno(), 4096, at) == content[at:at + 4096]
            time.sleep(pause)


def forget(work):
    """Makes the server fetch again what it has: the bits of the chunks are read at its start alone, so their frames are spoilt."""
    for path in (work / "cache/blobs").rglob("*"):
        if path.is_file() and path.stat().st_size > 100_000:
            with open(path, "r+b") as file:
                file.truncate(0)
                file.truncate(4_000_000)


@pytest.mark.parametrize("seconds", [1, 2])
def test_renewed_in_mid_read(seconds, front, image, attach, work):
    """Tokens that live so short a while, from a server that fails now and then: readers notice nothing."""
    with fake.Tokens(user=USER, seconds=seconds) as tokens:
        front.tokens = tokens
        mounted = attach(front, "--user", USER)
        for turn in range(12):
            # A turn that begins just before a token's end needs no other one.
            if turn >= 4 and tokens.given >= 4:
                break
            forget(work)
            machine.drop_caches()
            tokens.faults = [503] if turn % 2 else []
            random_reads(mounted, image, 2)
        read_all(mounted, image)
        assert tokens.given >= 4
        used = {headers.get("Authorization") for _, path, headers, _ in front.log if "/blobs/" in path}
        assert len(used) >= 4
        mounted.unmount()


def test_identity_that_is_not_taken(front, image, attach):
    """A token comes with an identity token, which then does not count: the password does."""
    with fake.Tokens(user=USER, seconds=1) as tokens:
        tokens.more = {"refresh_token": "of-no-use"}
        front.tokens = tokens
        mounted = attach(front, "--user", USER, "--deadline", "2")
        with open(mounted.directory / "usr/noise", "rb", buffering=0) as file:
            for turn in range(4):
                assert os.pread(file.fileno(), 4096, turn * NOISE // 4) == image.files["usr/noise"][turn * NOISE // 4:][:4096]
                time.sleep(1.1)
        assert tokens.given >= 4 and any(method == "POST" for method, *_ in tokens.log)
        assert "no token of" not in mounted.log.read_text()
        mounted.unmount()


def test_token_server_gone(front, image, attach, work):
    """Reads of what is there go on, others end by the deadline with a line in the log, and all is well when it is back."""
    with fake.Tokens(user=USER, seconds=1) as tokens:
        front.tokens = tokens
        mounted = attach(front, "--user", USER, "--deadline", "2")
        content = image.files["usr/noise"]
        with open(mounted.directory / "usr/noise", "rb", buffering=0) as file:
            assert os.pread(file.fileno(), 4096, 0) == content[:4096]
            tokens.kill()
            time.sleep(1.1)
            assert os.pread(file.fileno(), 4096, 0) == content[:4096]
            with pytest.raises(OSError):
                os.pread(file.fileno(), 4096, NOISE // 2)
            assert f"no token of {tokens.url}" in mounted.log.read_text()
            tokens.revive()
            read_all(mounted, image)
        assert "works again" in mounted.log.read_text()
        assert SECRET not in mounted.log.read_text()
        mounted.unmount()


@pytest.mark.parametrize("kind", ["basic", "token", "certificate"])
def test_another_host_gets_nothing(kind, backend, image, attach, tls, client):
    """Blobs are redirected to another host, of the same authority: it sees no user, no token, no certificate."""
    context = [fake.server_context(*tls[1:], client[0]) for _ in range(3)]
    with (
        fake.Front(backend, tls=context[0]) as front, fake.Front(backend, tls=context[1]) as other,
        fake.Tokens(user=USER, tls=context[2]) as tokens,
    ):
        front.elsewhere = f"https://localhost:{other.port}"
        options = ["--ca", tls[0], "--user", USER]
        if kind == "basic":
            front.user = USER
        elif kind == "token":
            front.tokens = tokens
        else:
            options += ["--cert", client[1], "--key", client[2]]
        mounted = attach(front, *options)
        read_all(mounted, image)
        mounted.unmount()
        assert other.log
        assert not any("Authorization" in headers or certificate for _, _, headers, certificate in other.log)
        secured = [entry for entry in front.log if "Authorization" in entry[2] or entry[3]]
        assert secured and (kind != "certificate" or all(entry[3] for entry in front.log))
        # Nor does who gives the tokens see the certificate.
        assert not any(certificate for _, _, _, certificate in tokens.log)


def test_not_without_tls(backend, work):
    """A host that is not this one gets no password in the clear, nor does a realm that it names."""
    # It is the name that says whether a host is loopback.
    (work / "hosts").write_text("127.0.0.1 registry.test\n")
    prefix = ["unshare", "--mount", "--propagation", "private", "sh", "-c", 'mount --bind "$0" /etc/hosts && exec "$@"', work / "hosts"]
    with fake.Front(backend) as front, fake.Tokens(user=USER) as tokens:
        (work / "mount").mkdir()
        command = [*prefix, machine.IMGFS, "mount", "--cache", work / "cache", "--plain-http", "--user", USER,
                   f"registry.test:{front.port}/{NAME}:{TAG}", work / "mount"]
        front.user = USER
        done = machine.run(*command, check=False)
        assert done.returncode == 1 and "status 401" in done.stderr, done.stderr
        front.user, front.tokens = None, tokens
        done = machine.run(*command, check=False)
        assert done.returncode == 1 and "no token of" in done.stderr, done.stderr
        assert front.log and tokens.log
        assert not any("Authorization" in headers for _, _, headers, _ in front.log + tokens.log)


@pytest.mark.parametrize("helper", [False, True], ids=["imgfs", "mount.imgfs"])
def test_not_in_the_list_of_processes(helper, front, work):
    """The password of --user is gone from the command line before anything that takes time."""
    front.user, front.fault = USER, "stall-accept"
    (work / "mount").mkdir()
    command = [machine.IMGFS, "mount", "--cache", work / "cache", "--deadline", "5", "--user", USER, f"{front.host}/{NAME}:{TAG}", work / "mount"]
    if helper:
        (work / "mount.imgfs").symlink_to(machine.IMGFS)
        command = [work / "mount.imgfs", f"{front.host}/{NAME}:{TAG}", work / "mount", "-o", f"deadline=5,username={USER},cache={work}/cache"]
    with subprocess.Popen([str(word) for word in command], stderr=subprocess.PIPE) as process:
        machine.wait_until(lambda: front.met, "a request for an index")
        line = Path(f"/proc/{process.pid}/cmdline").read_bytes()
        assert b"ann:xxx" in line and SECRET.encode() not in line
        assert b"no answer within 5000 ms" in process.communicate(timeout=30)[1]


def test_asks_on_the_terminal(front, image, work):
    front.user = USER
    (work / "mount").mkdir()
    command = [machine.IMGFS, "mount", "--cache", work / "cache", "--user", "ann", f"{front.host}/{NAME}:{TAG}", work / "mount"]
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(command[0], [str(word) for word in command])
    try:
        said = b""
        while b"Password of ann: " not in said:
            said += os.read(terminal, 1000)
        assert not termios.tcgetattr(terminal)[3] & termios.ECHO
        os.write(terminal, SECRET.encode() + b"\n")
        with contextlib.suppress(OSError):
            while more := os.read(terminal, 1000):
                said += more
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, said
        assert SECRET.encode() not in said
        assert (work / "mount/usr/text").read_bytes() == image.files["usr/text"]
    finally:
        os.close(terminal)
        machine.run("umount", "--lazy", work / "mount", check=False)


def test_wrong_options(front, work, tls):
    assert "--password-file is for the user" in refused(front, work, "--password-file", "x", status=2)
    assert "go together" in refused(front, work, "--cert", tls[1], status=2)
    assert "cannot be read from" in refused(front, work, "--user", "ann", "--password-file", work / "absent", status=3)
    assert "has a password already" in refused(front, work, "--user", USER, "--password-file", work / "x")
    assert "no terminal" in refused(front, work, "--user", "ann", stdin=subprocess.DEVNULL, start_new_session=True)
    assert "is not there" in refused(front, work, "--ca", work / "absent", status=3)
    (work / "not.pem").write_text("x")
    assert "is not PEM" in refused(front, work, "--ca", work / "not.pem")
    assert "one line" in refused(front, work, "--user", "ann:a\nb")
