"""Debian's etcdctl does its work on our store and notices nothing."""

import json
import re
import subprocess
import threading
from collections.abc import Callable
from typing import Any

import pytest

Etcdctl = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(autouse=True)
def clean(etcdctl: Etcdctl) -> None:
    etcdctl("del", "", "--from-key")


def ok(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stderr
    return done.stdout


def revision(etcdctl: Etcdctl) -> int:
    return json.loads(ok(etcdctl("get", "none", "-w", "json")))["header"]["revision"]


def test_put_get_and_del(etcdctl: Etcdctl) -> None:
    assert ok(etcdctl("put", "a", "1")) == "OK\n"
    assert ok(etcdctl("put", "a", "2", "--prev-kv")) == "OK\na\n1\n"
    assert ok(etcdctl("get", "a")) == "a\n2\n"
    assert ok(etcdctl("put", "ab", "3")) == "OK\n"
    assert ok(etcdctl("get", "a", "--prefix", "--print-value-only")) == "2\n3\n"
    assert ok(etcdctl("get", "a", "--prefix", "--order", "DESCEND", "--sort-by", "MODIFY", "--limit", "1")) == "ab\n3\n"
    assert ok(etcdctl("get", "", "--from-key", "--keys-only")).split() == ["a", "ab"]
    assert ok(etcdctl("del", "a", "--prev-kv")) == "1\na\n2\n"
    assert ok(etcdctl("get", "a")) == ""


def test_old_revisions_are_readable_until_compacted(etcdctl: Etcdctl) -> None:
    ok(etcdctl("put", "a", "1"))
    old = revision(etcdctl)
    ok(etcdctl("put", "a", "2"))
    assert ok(etcdctl("get", "a", f"--rev={old}")) == "a\n1\n"
    assert ok(etcdctl("compaction", str(old + 1))) == f"compacted revision {old + 1}\n"
    refused = etcdctl("get", "a", f"--rev={old}")
    assert refused.returncode == 1
    assert "etcdserver: mvcc: required revision has been compacted" in refused.stderr
    assert "future revision" in etcdctl("get", "a", "--rev=1000000").stderr


def test_txn_takes_the_branch_its_compares_choose(etcdctl: Etcdctl) -> None:
    ok(etcdctl("put", "a", "1"))
    script = 'value("a") = "{}"\n\nput a changed\nget a\n\ndel a\n\n'
    assert ok(etcdctl("txn", stdin=script.format("1"))) == "SUCCESS\n\nOK\n\na\nchanged\n"
    assert ok(etcdctl("txn", stdin=script.format("1"))) == "FAILURE\n\n1\n"


def test_watch_follows_and_replays(etcdctl: Etcdctl) -> None:
    start = revision(etcdctl) + 1
    lines: list[str] = []

    def watch(started: Any) -> None:
        with started as process:
            for line in process.stdout:
                lines.append(line.strip())
                if line.strip() == "last":
                    break
            process.kill()

    ok(etcdctl("put", "a", "1"))
    process = subprocess.Popen(
        [*_base(etcdctl), "watch", "a", "--prefix", "--prev-kv", "--rev", str(start)],
        stdout=subprocess.PIPE,
        text=True,
        env={"ETCDCTL_API": "3"},
    )
    follower = threading.Thread(target=watch, args=(process,))
    follower.start()
    ok(etcdctl("put", "a", "2"))
    ok(etcdctl("del", "a"))
    ok(etcdctl("put", "ab", "last"))
    follower.join(timeout=20)
    assert [line for line in lines if line] == [
        "PUT",
        "a",
        "1",
        "PUT",
        "a",
        "1",
        "a",
        "2",
        "DELETE",
        "a",
        "2",
        "a",
        "PUT",
        "ab",
        "last",
    ]


def _base(etcdctl: Etcdctl) -> list[str]:
    return ok(etcdctl("version")) and etcdctl("version").args[:-1]


def test_watch_of_compacted_history_says_so(etcdctl: Etcdctl) -> None:
    for value in "123":
        ok(etcdctl("put", "a", value))
    ok(etcdctl("compaction", str(revision(etcdctl))))
    refused = etcdctl("watch", "a", "--rev", "2")
    assert refused.returncode != 0
    assert "watch was canceled (etcdserver: mvcc: required revision has been compacted)" in refused.stderr


def test_lease_holds_and_revokes_its_keys(etcdctl: Etcdctl) -> None:
    granted = ok(etcdctl("lease", "grant", "100"))
    lease = re.fullmatch(r"lease (\w+) granted with TTL\(100s\)\n", granted)
    assert lease
    ok(etcdctl("put", "a", "1", f"--lease={lease[1]}"))
    assert lease[1] in ok(etcdctl("lease", "list"))
    assert re.search(
        r"granted with TTL\(100s\), remaining\(\d+s\), attached keys\(\[a\]\)",
        ok(etcdctl("lease", "timetolive", lease[1], "--keys")),
    )
    assert "keepalived with TTL(100)" in ok(etcdctl("lease", "keep-alive", "--once", lease[1]))
    assert ok(etcdctl("lease", "revoke", lease[1])) == f"lease {lease[1]} revoked\n"
    assert ok(etcdctl("get", "a")) == ""
    assert "already expired" in ok(etcdctl("lease", "timetolive", lease[1]))
    assert "etcdserver: requested lease not found" in etcdctl("put", "a", "1", f"--lease={lease[1]}").stderr


def test_lock_and_election_work_by_keys_and_leases(etcdctl: Etcdctl) -> None:
    assert ok(etcdctl("lock", "l", "echo", "held")) == "held\n"


def test_endpoint_and_member_commands(etcdctl: Etcdctl) -> None:
    assert "is healthy" in (done := etcdctl("endpoint", "health")).stdout + done.stderr
    status = json.loads(ok(etcdctl("endpoint", "status", "-w", "json")))[0]["Status"]
    assert status["leader"] == status["header"]["member_id"]
    assert status["dbSize"] > 0
    member = json.loads(ok(etcdctl("member", "list", "-w", "json")))["members"][0]
    assert member["ID"] == status["leader"]
    assert "hash" in ok(etcdctl("endpoint", "hashkv", "-w", "json")).lower()
    assert "Finished defragmenting" in ok(etcdctl("defrag"))
    assert ok(etcdctl("alarm", "list")) == ""


def test_what_is_not_built_is_refused_by_name(etcdctl: Etcdctl) -> None:
    refused = etcdctl("member", "add", "m2", "--peer-urls", "http://127.0.0.1:1")
    assert "Cluster.MemberAdd is not implemented" in refused.stderr


@pytest.mark.parametrize(
    ("words", "refusal"),
    [
        (["put", "", "x"], "etcdserver: key is not provided"),
        (["put", "a", "x" * 1_600_000], "etcdserver: request is too large"),
        (["compaction", "100000000"], "etcdserver: mvcc: required revision is a future revision"),
        (["lease", "revoke", "1234"], "etcdserver: requested lease not found"),
        (["lease", "grant", "9000000001"], "etcdserver: too large lease TTL"),
    ],
    ids=["empty key", "too large", "future", "no lease", "ttl"],
)
def test_bad_requests_are_refused_in_etcds_words(words: list[str], refusal: str, etcdctl: Etcdctl) -> None:
    if words[1:2] == ["a"] and words[0] == "put":
        done = etcdctl("put", "a", stdin=words[2])
    else:
        done = etcdctl(*words)
    assert done.returncode != 0
    assert refusal in done.stderr
