"""Start-up profiles: recorded by one node, kept in the store, fetched and replayed by the next, carried to the next version, handed in.

Every case has a store of its own: a profile left in a shared one would change what other cases count.
"""
import base64
import contextlib
import json
import os
import random
import signal
import struct
import subprocess
import time

import pytest

import front as fake
import machine
import registries
from endpoint import NAME, TAG, Image, digest_of, member, need, serving, tar_of
from namespace import alone

HEADER = struct.Struct("<8sII32sIIQ")


def export(source, store, *options):
    return json.loads(machine.imgfs("export", "--json", "--store", store, *options, source).stdout)


def decode(data):
    """docs/format.md section 7, read by the test itself: the manifest's digest, flags, ranges."""
    magic, version, count, manifest, _, flags, zero = HEADER.unpack_from(data)
    assert (magic, version, zero) == (b"imgfsprf", 1, 0) and len(data) == 64 + 12 * count + 8
    return "sha256:" + manifest.hex(), flags, [struct.unpack_from("<III", data, 64 + 12 * number) for number in range(count)]


@pytest.fixture(name="image")
def make_image(work):
    image = Image(work / "image.tar")
    image.store = work / "store"
    image.exported = export(f"docker-archive:{image.path}", image.store)
    return image


@pytest.fixture(name="server")
def make_server(image, work):
    with serving(image.store, work / "serve.log", "--listen", "127.0.0.1:0") as server:
        yield server


@pytest.fixture(name="front")
def make_front(server):
    with fake.Front(server.address) as front:
        yield front


READS = ("usr/small-200", "usr/text", "usr/small-017")


def status_of(mounted):
    """What status says of that mount, others of this machine left out."""
    rows = json.loads(machine.imgfs("status", "--json").stdout)
    return next(row for row in rows if row["directory"] == str(mounted.directory))


def record(mounted, profile, image, reads=READS):
    """What a start does: reads some files, in that order; then its profile is taken."""
    for path in reads:
        assert (mounted.directory / path).read_bytes() == image.files[path]
    size = sum(len(image.files[path]) for path in reads)

    machine.wait_until(lambda: status_of(mounted)["record"]["readBytes"] >= size, "the reads in the record")
    machine.imgfs("profile", "record", mounted.directory, profile)
    return decode(profile.read_bytes())


def blobs(front, since=0):
    return [entry for entry in front.log[since:] if "/blobs/" in entry[1]]


def spans_of(requests):
    """What each request asked for: lists of (first, last)."""
    return [[tuple(map(int, span.split("-"))) for span in entry[2]["Range"].removeprefix("bytes=").split(",")] for entry in requests]


def asked_bytes(requests):
    return sum(last - first + 1 for spans in spans_of(requests) for first, last in spans)


def wait_present(mounted):
    """Until the replay has brought something and then nothing more: the bytes on the node."""
    def settled():
        first = status_of(mounted)["presentBytes"]
        time.sleep(0.5)
        return first if first > 0 and status_of(mounted)["presentBytes"] == first else 0

    return machine.wait_until(settled, "the replay")


def test_recorded_shown_and_replayed(front, image, work, mount):
    reference = f"{front.host}/{NAME}:{TAG}"
    first = mount("--cache", work / "one", reference)
    asked = [entry for entry in front.log if entry[1].startswith("/imgfs/profiles/")]
    assert len(asked) == 1 and asked[0][1] == f"/imgfs/profiles/{image.exported['manifest']}"
    manifest, flags, ranges = record(first, work / "profile", image)
    assert manifest == image.exported["manifest"] and flags == 0 and ranges
    first.unmount()

    machine.imgfs("profile", "import", "--store", image.store, f"{NAME}:{TAG}", work / "profile")
    assert (image.store / "profiles" / manifest.removeprefix("sha256:")).read_bytes() == (work / "profile").read_bytes()
    shown = json.loads(machine.imgfs("profile", "show", "--json", "--store", image.store, f"{NAME}:{TAG}").stdout)
    assert shown["manifest"] == manifest and not shown["carried"] and shown["ranges"] == [list(one) for one in ranges]
    assert {f"/{path}" for path in READS} <= set(shown["files"]) and "/usr/noise" not in shown["files"]
    text = machine.imgfs("profile", "show", "--store", image.store, work / "profile").stdout
    assert "recorded with this image" in text and "/usr/text" in text

    # The next node has it all before anybody reads, with no request beside those of the profile, and then asks for nothing.
    before = len(front.log)
    second = mount("--cache", work / "two", reference)
    present = wait_present(second)
    fetched = [entry for entry in blobs(front, before) if "Range" in entry[2]][len(image.layers):]
    assert shown["bytes"] <= present <= asked_bytes(fetched) and len(fetched) <= len(ranges)
    for path in READS:
        assert (second.directory / path).read_bytes() == image.files[path]
    assert [entry for entry in blobs(front, before) if "Range" in entry[2]][len(image.layers):] == fetched
    assert (second.directory / "usr/noise").read_bytes() == image.files["usr/noise"]
    assert len(blobs(front, before)) > len(fetched)

    # A node that has the indexes does not ask for the profile again, and uses the one it has.
    second.unmount()
    before = len(front.log)
    third = mount("--cache", work / "two", reference)
    assert not [entry for entry in front.log[before:] if "profiles" in entry[1]]
    third.unmount()
    machine.run(*alone(), machine.IMGFS, "cache", "prune", "--all", "--cache", work / "two")
    assert not list((work / "two/profiles").iterdir())


def test_replayed_through_a_dying_server(front, image, work, mount):
    reference = f"{front.host}/{NAME}:{TAG}"
    record(mount("--cache", work / "one", reference), work / "profile", image)
    machine.imgfs("profile", "import", "--store", image.store, f"{NAME}:{TAG}", work / "profile")
    mounted = mount("--cache", work / "three", reference)
    for _ in range(3):
        server = mounted.server()
        os.kill(server, signal.SIGKILL)
        mounted.server(other_than=server)
    assert wait_present(mounted) > 0
    for path in READS:
        assert (mounted.directory / path).read_bytes() == image.files[path]


@pytest.mark.parametrize("fault", ["missing", "garbage", "foreign", "long", "stalls", "refuses"])
def test_a_source_without_a_good_profile(fault, front, image, work, mount):
    """Whatever comes instead of a profile, the mount is as it would be without one."""
    directory = image.store / "profiles"
    path = directory / image.exported["manifest"].removeprefix("sha256:")
    directory.mkdir(exist_ok=True)
    if fault == "garbage":
        path.write_bytes(os.urandom(1000))
    elif fault == "foreign":
        body = HEADER.pack(b"imgfsprf", 1, 0, bytes(32), 0, 0, 0)
        path.write_bytes(body + xxh64(body))
    elif fault == "long":
        path.write_bytes(bytes(1 << 20))
    elif fault in ("stalls", "refuses"):
        hand_on = front.answer

        def answer(request):
            if "/profiles/" not in request.path:
                hand_on(request)
            elif fault == "stalls":
                front.stall(request)
            else:
                fake.reply(request, 503)

        front.answer = answer
    begin = time.monotonic()
    mounted = mount("--cache", work / "cache", f"{front.host}/{NAME}:{TAG}")
    assert time.monotonic() - begin < 30
    asked = [entry for entry in front.log if "/profiles/" in entry[1]]
    assert len(asked) == 1
    assert not list((work / "cache/profiles").iterdir())
    for name, content in image.files.items():
        assert (mounted.directory / name).read_bytes() == content


def xxh64(data):
    """The checksum of a profile, by the tool of the library's authors."""
    need("xxhsum")
    done = subprocess.run(["xxhsum", "-H64", "-"], input=data, capture_output=True, check=True)
    return int(done.stdout.split()[0], 16).to_bytes(8, "little")


def make_profile(path, manifest, ranges, flags=0):
    body = HEADER.pack(b"imgfsprf", 1, len(ranges), bytes.fromhex(manifest.removeprefix("sha256:")), 0, flags, 0)
    body += b"".join(struct.pack("<III", *one) for one in ranges)
    path.write_bytes(body + xxh64(body))


def test_a_hostile_profile_wastes_little(front, image, work, mount):
    """Layers and chunks that are not there, everything a thousand times: no byte is fetched twice, and reads are right."""
    ranges = [(layer, chunk, 0xfffffffe - chunk) for chunk in range(0, 200, 7) for layer in (0, 1, 2, 1023)] * 20
    directory = image.store / "profiles"
    directory.mkdir()
    make_profile(directory / image.exported["manifest"].removeprefix("sha256:"), image.exported["manifest"], ranges)
    mounted = mount("--cache", work / "cache", f"{front.host}/{NAME}:{TAG}")
    present = wait_present(mounted)
    requests = [entry for entry in blobs(front) if "Range" in entry[2]][len(image.layers):]
    assert present == asked_bytes(requests) <= 64 << 20
    for name, content in image.files.items():
        assert (mounted.directory / name).read_bytes() == content
    assert asked_bytes([entry for entry in blobs(front) if "Range" in entry[2]][len(image.layers):]) == present


def test_carried_to_the_next_version(work, mount):
    """Of a version with another base, a file that grew and one that moved: what both have in common is fetched first."""
    noise = random.Random(5)
    same, grown, moved, other = (noise.randbytes(400_000) for _ in range(4))
    small = [member(f"etc/{number:03}", noise.randbytes(500)) for number in range(200)]

    def image_of(path, layers):
        image = Image.__new__(Image)
        image.path, image.layers = path, layers
        fill(image)
        return image

    base = [member("etc", kind=b"5"), *small]
    first = image_of(work / "v1.tar", [tar_of(base), tar_of([member("a", same), member("b", grown), member("c", moved), member("d", other)])])
    changed = grown[:200_000] + noise.randbytes(1000) + grown[200_000:]
    second = image_of(work / "v2.tar", [
        tar_of(base[:150]), tar_of([member("new", noise.randbytes(10))]),
        tar_of([member("a", same), member("b", changed), member("sub", kind=b"5"), member("sub/c", moved), member("d", other)]),
    ])
    store = work / "store"
    old = export(f"docker-archive:{first.path}", store, "--tag", "app:v1")
    assert not old["profileCarried"]
    with serving(store, work / "serve.log", "--listen", "127.0.0.1:0") as server, fake.Front(server.address) as front:
        mounted = mount("--cache", work / "one", f"{front.host}/app:v1")
        for name in ("b", "a", "c", "etc/003"):
            (mounted.directory / name).read_bytes()
        machine.wait_until(lambda: status_of(mounted)["record"]["reads"] >= 4, "reads")
        machine.imgfs("profile", "record", mounted.directory, work / "profile")
        machine.imgfs("profile", "import", "--store", store, "app:v1", work / "profile")
        new = export(f"docker-archive:{second.path}", store, "--tag", "app:v2")
        assert new["profileCarried"]
        shown = json.loads(machine.imgfs("profile", "show", "--json", "--store", store, "app:v2").stdout)
        assert shown["carried"] and shown["manifest"] == new["manifest"]
        assert {"/a", "/b", "/sub/c", "/etc/003"} <= set(shown["files"]) and not {"/d", "/new"} & set(shown["files"])
        # The same again is another export of the same image: nothing is carried twice.
        assert not export(f"docker-archive:{second.path}", store, "--tag", "app:v3")["profileCarried"]
        mounted = mount("--cache", work / "two", f"{front.host}/app:v2")
        wait_present(mounted)
        before = len(blobs(front))
        assert (mounted.directory / "b").read_bytes() == changed and (mounted.directory / "sub/c").read_bytes() == moved
        assert len(blobs(front)) == before
        # The old one's file is taken for the new one too, by hand.
        (store / "profiles" / new["manifest"].removeprefix("sha256:")).unlink()
        machine.imgfs("profile", "import", "--store", store, "app:v2", work / "profile")
        assert json.loads(machine.imgfs("profile", "show", "--json", "--store", store, "app:v2").stdout)["carried"]
    machine.imgfs("rm", "--store", store, "app:v1")
    machine.imgfs("gc", "--store", store)
    assert [path.name for path in (store / "profiles").iterdir()] == [new["manifest"].removeprefix("sha256:")]


def fill(image, word="x", **process):
    """Makes a docker archive of layers, as Image does of its own."""
    image.diff_ids = [digest_of(layer) for layer in image.layers]
    image.config = json.dumps({
        "architecture": "amd64", "os": "linux", "created": "2023-11-14T22:13:20Z", "config": process,
        "rootfs": {"type": "layers", "diff_ids": image.diff_ids}, "history": [{"created_by": word}] * len(image.layers),
    }).encode()
    names = [f"{number}/layer.tar" for number in range(len(image.layers))]
    name = digest_of(image.config).removeprefix("sha256:") + ".json"
    listing = [{"Config": name, "RepoTags": ["app:x"], "Layers": names}]
    image.path.write_bytes(tar_of(
        [member(name, image.config)] + [member(*pair) for pair in zip(names, image.layers)]
        + [member("manifest.json", json.dumps(listing).encode())]
    ))


def test_names_of_others(work, mount):
    """Names of files are the image's maker's: none steers a terminal, and those that are not UTF-8 cost no report."""
    escape, odd = "evil\x1b]0;x\x07\x9b", os.fsdecode(b"odd-\xff")
    data = random.Random(6).randbytes(300_000)
    image = Image.__new__(Image)
    image.path, image.layers = work / "odd.tar", [tar_of([member(escape, data), member(odd, data[1:])])]
    fill(image, escape, Cmd=[escape])
    store, safe, named = work / "store", r"evil\x1b]0;x\x07\xc2\x9b", {f"/{escape}", r"/odd-\xff"}
    export(f"docker-archive:{image.path}", store, "--tag", "odd:v1")
    shown = machine.imgfs("inspect", "--store", store, "odd:v1").stdout
    assert shown.count(safe) == 2 and "\x1b" not in shown
    mounted = mount("--store", store, "--cache", work / "cache", "odd:v1")
    for name in (escape, odd):
        assert len((mounted.directory / name).read_bytes()) >= 299_999
    machine.wait_until(lambda: status_of(mounted)["record"]["readBytes"] >= 599_999, "the reads in the record")
    files = json.loads(machine.imgfs("why", "--json", mounted.directory).stdout)["files"]
    assert {file["path"] for file in files} == named
    text = machine.imgfs("why", mounted.directory, errors="surrogateescape").stdout
    assert f"/{safe}" in text and "\x1b" not in text
    machine.imgfs("profile", "record", mounted.directory, work / "profile")
    show = ("profile", "show", "--store", store, work / "profile")
    assert set(json.loads(machine.imgfs(*show, "--json").stdout)["files"]) == named
    assert f"/{safe}" in (text := machine.imgfs(*show).stdout) and "\x1b" not in text
    done = machine.imgfs("export", "--store", store, f"docker-archive:{image.path}:no\x1bne", check=False)
    assert done.returncode == 3 and r"no\x1bne" in done.stderr and "\x1b" not in done.stderr


def test_handed_in(image, work, mount):
    """Only where that is switched on, by who is known, once for an image, and nothing else."""
    need("xxhsum")
    users = work / "users"
    users_hash = machine.run("openssl", "passwd", "-6", "bar").stdout.strip()
    users.write_text(f"node:{users_hash}\n")
    done = machine.imgfs("serve", "--store", image.store, "--accept-profiles", check=False)
    assert done.returncode == 2 and "clients who are known" in done.stderr
    path = f"/imgfs/profiles/{image.exported['manifest']}"
    good = work / "good"
    make_profile(good, image.exported["manifest"], [(0, 0, 1)])

    def put(server, body, login="node:bar", to=path):
        connection = server.connect()
        headers = {"Authorization": "Basic " + base64.b64encode(login.encode()).decode()} if login else {}
        connection.request("PUT", to, body=body, headers=headers)
        answer = connection.getresponse()
        answer.read()
        connection.close()
        return answer.status

    with serving(image.store, work / "off.log", "--listen", "127.0.0.1:0", "--htpasswd", users) as server:
        assert put(server, good.read_bytes()) == 405
        refused = machine.imgfs("profile", "push", "--user", "node:bar", good, server.address, check=False)
        assert refused.returncode == 1 and "the server does not take that" in refused.stderr
    with serving(image.store, work / "on.log", "--listen", "127.0.0.1:0", "--htpasswd", users, "--accept-profiles") as server:
        assert put(server, good.read_bytes(), login=None) == 401 and put(server, good.read_bytes(), login="node:foo") == 401
        assert put(server, b"nonsense") == 400 and put(server, bytes(500_000)) == 413
        make_profile(work / "foreign", "sha256:" + "0" * 64, [(0, 0, 1)])
        assert put(server, (work / "foreign").read_bytes()) == 400
        assert put(server, (work / "foreign").read_bytes(), to="/imgfs/profiles/sha256:" + "0" * 64) == 404
        assert put(server, good.read_bytes(), to=f"/v2/{NAME}/blobs/{image.exported['manifest']}") == 405
        assert not (image.store / "profiles").exists()

        mounted = mount("--cache", work / "cache", "--user", "node:bar", f"{server.address}/{NAME}:{TAG}")
        recorded = record(mounted, work / "profile", image)
        said = machine.imgfs("profile", "push", "--user", "node:bar", mounted.directory)
        assert said.returncode == 0
        kept = image.store / "profiles" / image.exported["manifest"].removeprefix("sha256:")
        assert decode(kept.read_bytes())[2] == recorded[2]
        # The first stays; one that was carried over gives way.
        refused = machine.imgfs("profile", "push", "--user", "node:bar", good, server.address, check=False)
        assert refused.returncode == 1 and "another one already (status 409)" in refused.stderr and decode(kept.read_bytes())[2] == recorded[2]
        make_profile(kept, image.exported["manifest"], [(1, 0, 1)], flags=1)
        machine.imgfs("profile", "push", "--user", "node:bar", good, server.address)
        assert kept.read_bytes() == good.read_bytes()


def test_behind_nginx(image, work, mount):
    """The configuration for nginx gives profiles, too."""
    directory = image.store / "profiles"
    directory.mkdir()
    path = directory / image.exported["manifest"].removeprefix("sha256:")
    make_profile(path, image.exported["manifest"], [(0, 0, 2)])
    with registries.nginx(image.store, work) as address:
        mounted = mount("--cache", work / "cache", f"{address}/{NAME}:{TAG}")
        assert (work / "cache/profiles" / path.name).read_bytes() == path.read_bytes()
        assert wait_present(mounted) > 0
        mounted.unmount()


def scattered(work):
    """An image of one layer with many chunks, and a profile of every fifth."""
    noise = random.Random(9)
    image = Image.__new__(Image)
    image.contents = {f"{number:03}": noise.randbytes(300_000) for number in range(60)}
    image.path, image.layers = work / "image.tar", [tar_of([member(*pair) for pair in image.contents.items()])]
    fill(image)
    image.store = work / "store"
    image.exported = export(f"docker-archive:{image.path}", image.store, "--tag", f"{NAME}:{TAG}")
    ranges = [(0, chunk, 1) for chunk in range(0, 120, 5)]
    path = work / "profile"
    make_profile(path, image.exported["manifest"], ranges)
    machine.imgfs("profile", "import", "--store", image.store, f"{NAME}:{TAG}", path)
    image.profile = json.loads(machine.imgfs("profile", "show", "--json", "--store", image.store, f"{NAME}:{TAG}").stdout)
    assert image.profile["chunks"] == len(ranges)
    return image


def start_with_profile(front, image, work, mount):
    """Mounts; the ranges that were asked for after the index, once the profile is here. All is read then."""
    front.profile = (work / "profile").read_bytes()
    mounted = mount("--cache", work / "cache", f"{front.host}/{NAME}:{TAG}")
    present = wait_present(mounted)
    requests = spans_of([entry for entry in blobs(front) if "Range" in entry[2]][len(image.layers):])
    assert present == sum(last - first + 1 for spans in requests for first, last in spans) - sum(front.wasted)
    for name, content in image.contents.items():
        assert (mounted.directory / name).read_bytes() == content
    mounted.unmount()
    return present, requests, mounted


@pytest.mark.parametrize("kind", ["imgfs", "nginx"])
def test_several_ranges_at_once(kind, work, mount):
    """Where the server gives them, a profile is few requests, and not a byte that is not in it."""
    image = scattered(work)
    hands_out = registries.nginx(image.store, work) if kind == "nginx" else serving(image.store, work / "serve.log", "--listen", "127.0.0.1:0")
    with hands_out as server, fake.Front(getattr(server, "address", server)) as front:
        present, requests, _ = start_with_profile(front, image, work, mount)
    assert present == image.profile["bytes"] and len(requests) <= 5 and max(map(len, requests)) >= 8


@pytest.mark.parametrize("several", ["first", "416", "whole"])
def test_several_ranges_refused(several, work, mount):
    """Where it does not, it is asked once, and then for one after the other; no word of it, and all bytes are right."""
    image = scattered(work)
    with serving(image.store, work / "serve.log", "--listen", "127.0.0.1:0") as server, fake.Front(server.address) as front:
        front.several = several
        present, requests, mounted = start_with_profile(front, image, work, mount)
    assert present >= image.profile["bytes"] and len([spans for spans in requests if len(spans) > 1]) == 1
    assert len(requests) > 20 and "several" not in mounted.log.read_text()


@pytest.mark.parametrize("arguments", [(), ("record", "/"), ("show",), ("import", "x"), ("push",), ("nothing",)])
def test_usage(arguments):
    assert machine.imgfs("profile", *arguments, check=False).returncode == 2


def test_what_is_not_there(work, image):
    done = machine.imgfs("profile", "record", work, work / "x", check=False)
    assert done.returncode == 3 and "no image of imgfs is mounted" in done.stderr
    done = machine.imgfs("profile", "show", "--store", image.store, f"{NAME}:{TAG}", check=False)
    assert done.returncode == 3 and "profile import" in done.stderr
    done = machine.imgfs("profile", "show", "--store", image.store, work / "none", check=False)
    assert done.returncode == 3 and f"{work}/none is neither a file here nor a name" in done.stderr
    (work / "bad").write_bytes(b"imgfsprf" + bytes(100))
    done = machine.imgfs("profile", "show", work / "bad", check=False)
    assert done.returncode in (1, 4) and str(work / "bad") in done.stderr
