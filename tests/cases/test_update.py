"""A new version of an image, on a node that has the one before: only what changed moves."""
import pytest

import tree


@pytest.mark.parametrize("kept", ["all of it", "nothing"])
def test_only_what_changed_moves(kept, store, serve, tap, mount_http, unpacked_scan):
    old, new = store.add("inv-v1"), store.add("inv-v2")
    counted = tap(serve())
    first = mount_http(counted.host, old)
    if kept == "all of it":
        assert not tree.compare(unpacked_scan("inv-v1"), tree.scan_apart(first.directory))
    first.unmount()

    before = counted.bytes_down
    second = mount_http(counted.host, new)
    assert not tree.compare(unpacked_scan("inv-v2"), tree.scan_apart(second.directory))
    moved = counted.bytes_down - before
    # The application's jars were rebuilt with one class changed; the layers below are the same blobs.
    if kept == "all of it":
        assert moved < 4_000_000
    else:
        assert moved > 300_000_000
    second.unmount()


def test_old_version_still_mounted(store, serve, tap, mount_http, unpacked_scan):
    """Both at once over one cache, and the old one going on."""
    old, new = store.add("inv-v1"), store.add("inv-v2")
    counted = tap(serve())
    first = mount_http(counted.host, old)
    assert not tree.compare(unpacked_scan("inv-v1"), tree.scan_apart(first.directory))
    second = mount_http(counted.host, new)
    before = counted.bytes_down
    assert not tree.compare(unpacked_scan("inv-v2"), tree.scan_apart(second.directory))
    assert counted.bytes_down - before < 4_000_000
    assert not tree.compare(unpacked_scan("inv-v1"), tree.scan_apart(first.directory))
    second.unmount()
    first.unmount()
