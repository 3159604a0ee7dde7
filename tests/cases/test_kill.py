"""The server of a mount is killed again and again while programs read: none of them notices."""
import json
import sys

import pytest

import machine

KILL_READERS = machine.TOP / "tests/crash/kill-readers"
KILLS = 50


@pytest.mark.parametrize("source", ["store", "http"])
def test_readers_do_not_notice(source, store, serve, mount, mount_http, unpacked):
    name = store.add("inv-v1")
    mounted = mount("--store", store.path, name) if source == "store" else mount_http(serve().host, name)
    done = machine.run(
        sys.executable, KILL_READERS, "--json", "--readers", 4, "--seed", 1, mounted.directory, unpacked("inv-v1"), KILLS,
        check=False, timeout=300,
    )
    report = json.loads(done.stdout)
    faults = {kind: report[kind] for kind in ("errors", "short", "wrong", "hung", "broken")}
    assert not any(faults.values()), f"{faults}\n{done.stderr}"
    assert report["kills"] == KILLS
    assert report["operations"] > 0
    mounted.unmount()
