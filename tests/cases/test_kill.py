"""The server of a mount is killed again and again while programs read: none of them notices."""
import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import pytest

import machine

READER = Path(__file__).with_name("reader.py")
READERS = 3
KILLS = 50


def start_readers(programs, reference, mounted):
    readers = [programs(sys.executable, READER, reference, mounted, seed) for seed in range(READERS)]
    for reader in readers:
        assert machine.read_line(reader.stdout, "a reader", 120) == "ready"
    return readers


def stop_readers(readers):
    """Ends the readers and returns what each says it did."""
    for reader in readers:
        reader.stdin.close()
    return [json.loads(machine.read_line(reader.stdout, "a reader that was told to stop", 120)) for reader in readers]


def kill_servers(mounted, seed):
    """Kills each server at a moment of its own, from its very start on to well at work."""
    moment = random.Random(seed)
    server = None
    for _ in range(KILLS):
        server = mounted.server(other_than=server)
        time.sleep(moment.choice([0, 0.002, 0.02, moment.uniform(0, 0.2)]))
        os.kill(server, signal.SIGKILL)
    mounted.server(other_than=server)


@pytest.mark.parametrize("source", ["store", "http"])
def test_readers_do_not_notice(source, store, serve, mount, mount_http, unpacked, programs):
    name = store.add("inv-v1")
    mounted = mount("--store", store.path, name) if source == "store" else mount_http(serve().host, name)
    readers = start_readers(programs, unpacked("inv-v1"), mounted.directory)
    kill_servers(mounted, seed=1)
    for report in stop_readers(readers):
        assert report["faults"] == []
        assert report["reads"] > 0
    mounted.unmount()
