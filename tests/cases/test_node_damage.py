"""The node daemon's own files are damaged, one at a time: it starts, says what it has lost, and loses nothing else.

IMGFS_FLIPS sets how many more bits are flipped, anywhere in these files (a few by default), IMGFS_FLIPS_SEED the seed.
"""
import hashlib
import os
import random
import shutil
from pathlib import Path

import pytest

from daemon import Daemon
from endpoint import NAME, TAG
from endpoint import make_backend, make_image, make_place  # noqa: F401 # pylint: disable=unused-import # fixtures
from test_daemon import layers_of, mounts_at

FLIPS = int(os.environ.get("IMGFS_FLIPS", "8"))
SEED = int(os.environ.get("IMGFS_FLIPS_SEED", "1"))


def flip(path, at, mask):
    data = bytearray(path.read_bytes())
    data[at % len(data)] ^= mask
    path.write_bytes(data)


DAMAGES = {
    "flipped in front": lambda path: flip(path, 0, 0x10),
    "flipped in the middle": lambda path: flip(path, path.stat().st_size // 2, 0x01),
    "flipped at the end": lambda path: flip(path, path.stat().st_size - 2, 0x04),
    "cut": lambda path: os.truncate(path, path.stat().st_size * 2 // 3 + 5),
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "emptied": lambda path: os.truncate(path, 0),
    "removed": os.unlink,
}


class Node:
    """A daemon with holders of two images: one is mounted, one is attached twice."""

    def __init__(self, work, backend, place, image):
        self.work, self.image = work, image
        self.reference, self.layers, self.source = f"{backend}/{NAME}:{TAG}", layers_of(place), f"{backend}/{NAME}"
        self.daemon = Daemon(work).start()
        # A slot that nobody has any more, so that the file of slots has a last line that no record knows.
        self.attach("lower", "mounted", "whole", "gone")
        self.daemon.call(call="detach", owner="gone")
        self.entries = self.daemon.list()
        self.kept = work / "kept"
        self.save()

    def attach(self, *owners):
        (self.work / "a").mkdir(exist_ok=True)
        for owner in owners:
            request = {
                "mounted": {"owner": str(self.work / "a"), "reference": self.reference, "directory": str(self.work / "a"), "no_fill": True},
                "lower": {"owner": "lower", "layers": self.layers[:1], "reference": self.source, "no_fill": True},
                "whole": {"owner": "whole", "reference": self.reference, "no_fill": True},
                "gone": {"owner": "gone", "layers": self.layers[1:], "reference": self.source, "no_fill": True},
            }[owner]
            answer = self.daemon.call(call="attach", **request)
            assert "ok" in answer, answer

    def save(self):
        shutil.rmtree(self.kept, ignore_errors=True)
        shutil.copytree(self.daemon.state, self.kept)

    def files(self):
        return sorted(path.relative_to(self.kept) for path in self.kept.rglob("*") if path.is_file())

    def owner_of(self, name):
        """Whose record it is; None for other files."""
        return next((owner for owner in self.entries if name.name == hashlib.sha256(owner.encode()).hexdigest() + ".json"), None)

    def end(self, reboot):
        if reboot:
            self.daemon.reboot()
        else:
            self.daemon.kill()

    def put_back(self):
        """As it was, with a daemon that runs."""
        self.daemon.kill()
        for name in self.files():
            shutil.copy2(self.kept / name, self.daemon.state / name)
        self.daemon.start()
        self.check(None)

    def check(self, lost, stays=False):
        """All but one holder have what they had; what was mounted for that one `stays` while the keeper lives."""
        entries = self.daemon.list()
        assert set(entries) == set(self.entries) - {lost}
        for owner, entry in entries.items():
            before = self.entries[owner]
            assert entry["state"] == "attached" and {key: entry.get(key) for key in before if key != "time"} == {
                key: value for key, value in before.items() if key != "time"}, owner
            for path in ("usr/small-007", "usr/small-299"):
                assert (Path(entry["path"]) / path).read_bytes() == self.image.files[path]
        mounted = str(self.work / "a")
        assert len(mounts_at(mounted)) == (1 if lost != mounted or stays else 0)

    def damage(self, name, how, reboot):
        """One file is damaged while no manager runs."""
        said = self.daemon.log.stat().st_size
        self.end(reboot)
        how(self.daemon.state / name)
        self.daemon.start()
        words = self.daemon.log.read_bytes()[said:].decode()
        owner = self.owner_of(name)
        lost = None
        if owner and owner not in self.daemon.list():
            lost = owner
            # One that was not mounted and is gone without a trace is a holder that there never was.
            traceless = not (self.daemon.state / name).exists() and (reboot or not lost.startswith("/"))
            assert traceless or f"attached/{name.name}" in words, words
        self.check(lost, stays=not reboot)
        if name.name == "slots":
            # A number that the kernel may know is never another image's.
            self.attach("gone")
            assert self.daemon.list()["gone"]["slot"] > 3 or reboot, words
            self.daemon.call(call="detach", owner="gone")
        if lost:
            if mounts_at(lost):
                assert (Path(lost) / "usr/small-007").read_bytes() == self.image.files["usr/small-007"]
                self.daemon.imgfs("umount", lost)
            self.attach("mounted" if lost.startswith("/") else lost)
            assert set(self.daemon.list()) == set(self.entries)
        self.put_back()
        return lost, words


@pytest.fixture(name="node")
def make_node(work, backend, place, image):
    one = Node(work, backend, place, image)
    yield one
    one.daemon.close()


@pytest.mark.parametrize("reboot", [False, True], ids=["restart", "reboot"])
@pytest.mark.parametrize("damage", sorted(DAMAGES))
def test_damaged(node, damage, reboot):
    names = node.files()
    assert sum(name.suffix == ".json" for name in names) == 3 and Path("slots") in names
    for name in names:
        if (node.kept / name).stat().st_size == 0 and damage not in ("removed",):
            continue
        lost, words = node.damage(name, DAMAGES[damage], reboot)
        if name.suffix == ".json":
            assert lost == node.owner_of(name), f"{name} is used as if nothing were wrong with it: {words}"
        if name.name == "slots" and damage in ("flipped in front", "zeros"):  # the digests in it are for people
            assert "slots" in words, words


def test_flips(node):
    dice = random.Random(SEED)
    names = [name for name in node.files() if (node.kept / name).stat().st_size]
    lost = 0
    for _ in range(FLIPS):
        name, at, mask = dice.choice(names), dice.randrange(1 << 20), 1 << dice.randrange(8)
        print(name, at % (node.kept / name).stat().st_size, mask)
        lost += node.damage(name, lambda path, at=at, mask=mask: flip(path, at, mask), dice.random() < 0.2)[0] is not None
    assert lost > 0
