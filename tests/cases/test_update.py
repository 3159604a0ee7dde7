"""A new version of an image, on a node that has the one before: only what changed moves."""
import pytest

import tree

# Bytes of 357 MB that move after inv-v1, the index included. inv-v2r is inv-v2 with all its files' times changed: of the chunks of small
# files few are the same, but most files are. Gaps that ranges go over are included.
MOVED_MAX = {"inv-v2": 1_200_000, "inv-v2r": 1_400_000}


class Counted:
    """A running server and the bytes of bodies that it sent."""

    def __init__(self, serve, work):
        self.log = work / "access.log"
        self.server = serve(options=("--access-log", self.log))
        self.host = self.server.host

    def bytes(self):
        """The sixth word of a line is the length of the answer."""
        return sum(int(line.split()[5]) for line in self.log.read_text().splitlines())


@pytest.mark.parametrize("tag", sorted(MOVED_MAX))
def test_only_what_changed_moves(tag, store, serve, mount_http, work, unpacked_scan):
    old, new = store.add("inv-v1"), store.add(tag)
    counted = Counted(serve, work)
    first = mount_http(counted.host, old)
    assert not tree.compare(unpacked_scan("inv-v1"), tree.scan_apart(first.directory))
    first.unmount()
    before = counted.bytes()
    assert before > 300_000_000, "the log says what is sent"

    # The application's jars were rebuilt with one class changed; the layers below are the same blobs.
    second = mount_http(counted.host, new)
    assert not tree.compare(unpacked_scan(tag), tree.scan_apart(second.directory))
    moved = counted.bytes() - before
    print(f"{tag}: {moved} bytes moved")
    assert moved < MOVED_MAX[tag]

    # Both at once over one cache, and the old one comes back.
    third = mount_http(counted.host, old)
    assert not tree.compare(unpacked_scan("inv-v1"), tree.scan_apart(third.directory))
    assert counted.bytes() - before - moved < 10_000
    third.unmount()
    second.unmount()
