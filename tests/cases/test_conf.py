"""The configuration file: what it says counts before the command line, and what is wrong in it is said with its line."""
import json
import os

import pytest

import endpoint
import machine


def imgfs(work, text, *words, how="option"):
    path = work / "imgfs.conf"
    path.write_text(text)
    if how == "option":
        return machine.imgfs("--config", path, *words, check=False)
    return machine.imgfs(*words, check=False, env={**os.environ, "IMGFS_CONFIG": str(path)})


@pytest.mark.parametrize("how", ["option", "environment"])
def test_options_of_a_verb(how, work, store):
    name = store.add("inv-v1")
    done = imgfs(work, f"# the store\n[ls]\nstore = {store.path}\njson = yes\n", "ls", how=how)
    assert done.returncode == 0 and name.partition(":")[0] in done.stdout and done.stdout.startswith(("{", "["))
    done = imgfs(work, f"[ls]\nstore = {store.path}\njson = no\n[serve]\nlisten = nonsense\n", "ls", how=how)
    assert done.returncode == 0 and not done.stdout.startswith(("{", "["))


def test_the_command_line_wins(work, store):
    done = imgfs(work, "[ls]\nstore = /nonexistent\n", "ls", "--store", store.path)
    assert done.returncode == 0, done.stderr
    done = imgfs(work, "[ls]\nstore = /nonexistent\n", "ls")
    assert done.returncode == 3 and "/nonexistent" in done.stderr


def test_the_cache_of_all_verbs(work, store):
    """What is said of the cache once makes no mirror of a server of the store, and nothing that `imgfs attach` refuses."""
    name, _, tag = store.add("inv-v1").partition(":")
    conf = work / "imgfs.conf"
    conf.write_text(f"[cache]\ncache = {work}/cache\nquota = 20G\n\n[serve]\nstore = {store.path}\n")
    with endpoint.serving("127.0.0.1:0", work / "serve.log", prefix=["env", f"IMGFS_CONFIG={conf}"], what="--listen") as server:
        reply, body = server.ask(f"/v2/{name}/tags/list")
        assert reply.status == 200 and json.loads(body)["tags"] == [tag]
    done = machine.imgfs("--config", conf, "attach", "--socket", work / "nothing", "localhost:1/a:b", check=False)
    assert done.returncode == 3 and "imgfsd does not answer" in done.stderr
    done = machine.imgfs("--config", conf, "cache", "ls", check=False)
    assert done.returncode == 3 and f"there is no cache {work}/cache;" in done.stderr


def test_the_cache_is_said_to_who_has_it(work):
    """imgfsd's own is no matter of `imgfs attach`, and a server of a cache that is not there is none."""
    for words in (["attach", "--cache", work / "cache", "h:1/a:b"], ["profile", "--cache", work / "cache", "show", "x"]):
        done = machine.imgfs(*words, check=False)
        assert done.returncode == 2 and "there is no option --cache" in done.stderr
    done = machine.imgfs("serve", "--listen", "127.0.0.1:0", "--cache", work / "cache", check=False)
    assert done.returncode == 3 and f"there is no cache {work}/cache;" in done.stderr and not (work / "cache").exists()


def test_a_plan_where_pulls_seal(work):
    """That all pulls are to seal is no wish of one that only plans; on the command line it is one."""
    text = "[pull]\nseal = yes\ndecoded = yes\n"
    done = imgfs(work, text, "pull", "--cache", work / "cache", "--plan", "localhost:1/a:b")
    assert done.returncode == 1 and "localhost:1" in done.stderr
    done = imgfs(work, text, "pull", "--cache", work / "cache", "--plan", "--seal", "localhost:1/a:b")
    assert done.returncode == 2 and "--plan fetches nothing" in done.stderr


@pytest.mark.parametrize("text, words, sentence, status", [
    ("[mount]\n\ndeadline = never\n", ["mount", "a", "b"], "imgfs.conf:3: --deadline never: give seconds", 2),
    ("[mount]\ncolour = red\n", ["ls"], 'imgfs.conf:2: there is no key "colour"', 1),
    ("[mounts]\n", ["ls"], 'imgfs.conf:1: there is no section "mounts"', 1),
    ("[ls]\njson = perhaps\n", ["ls"], 'imgfs.conf:2: neither yes nor no: "perhaps"', 1),
    ("store = x\n", ["ls"], "imgfs.conf:1: a key before the first [SECTION]", 1),
    ("[ls\n", ["ls"], "imgfs.conf:1: a section is written [NAME]", 1),
])
def test_what_is_wrong_names_its_line(text, words, sentence, status, work):
    done = imgfs(work, text, *words)
    assert done.returncode == status and sentence in done.stderr


def test_errors_of_the_command_line_are_its_own(work):
    done = imgfs(work, "[mount]\ndeadline = 5\n", "mount", "--deadline", "x", "a", "b")
    assert done.returncode == 2 and "--deadline x" in done.stderr and "imgfs.conf" not in done.stderr
    done = imgfs(work, "[mount]\ndeadline = 5\n", "mount", "-xq", "a", "b")
    assert done.returncode == 2 and "there is no option -x" in done.stderr and "imgfs.conf" not in done.stderr
    done = imgfs(work, "[mount]\ndeadline = 5\n", "mount")
    assert done.returncode == 2 and "imgfs.conf" not in done.stderr


def test_a_named_file_has_to_be_there(work):
    done = machine.imgfs("--config", check=False)
    assert done.returncode == 2 and "--config wants a file" in done.stderr
    done = machine.imgfs(f"--config={work}/none", "ls", check=False)
    assert done.returncode == 3 and f"the configuration {work}/none cannot be read" in done.stderr
    done = machine.imgfs("--config", work / "none", "ls", check=False)
    assert done.returncode == 3 and f"the configuration {work}/none cannot be read" in done.stderr
