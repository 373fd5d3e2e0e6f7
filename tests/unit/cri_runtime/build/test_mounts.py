"""``RUN --mount`` as it is written."""

import pytest

from cri_runtime.build.errors import DockerfileError
from cri_runtime.build.instructions import Run, read
from cri_runtime.build.mounts import RunMount, parse_mount
from cri_runtime.build.parser import parse


@pytest.mark.parametrize(
    ("text", "mount"),
    [
        ("target=/x", RunMount("bind", "/x", readonly=True)),
        ("type=bind,src=/a,dst=/x,from=b,rw", RunMount("bind", "/x", "/a", "b")),
        ("type=bind,target=/x,ro=false", RunMount("bind", "/x")),
        ("type=cache,target=/x,id=i,sharing=locked", RunMount("cache", "/x", id="i", sharing="locked")),
        ("type=cache,target=/x,mode=0700,uid=1,gid=2", RunMount("cache", "/x", mode=0o700, uid=1, gid=2)),
        ("type=tmpfs,target=/x,size=64m", RunMount("tmpfs", "/x", size_bytes=64 << 20)),
        ("type=tmpfs,target=/x,size=1kb", RunMount("tmpfs", "/x", size_bytes=1 << 10)),
        ("type=secret,id=s", RunMount("secret", "/run/secrets/s", id="s", mode=0o400)),
        ("type=secret,target=/a/b", RunMount("secret", "/a/b", id="b", mode=0o400)),
        ("type=secret,id=s,env=E,required", RunMount("secret", "", id="s", mode=0o400, env="E", required=True)),
    ],
)
def test_mounts(text: str, mount: RunMount) -> None:
    assert parse_mount(text) == mount


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--mount=type=ssh", "bind, cache, tmpfs, secret, not ssh"),
        ("--mount=type=cache", "needs a target"),
        ("--mount=type=secret", "needs a target"),
        ("--mount=target=/x,size=1", "does not know size"),
        ("--mount=type=cache,target=/x,sharing=some", "sharing is"),
        ("--mount=type=cache,target=/x,from=y", "cannot begin"),
        ("--mount=type=tmpfs,target=/x,size=many", "size is bytes"),
        ("--mount=type=cache,target=/x,mode=9", "mode is a number"),
        ("--network=some", "--network=default, none, host, not some"),
        ("--security=insecure", "does not know the flag --security"),
    ],
)
def test_a_wrong_flag_names_its_line(flag: str, message: str) -> None:
    with pytest.raises(DockerfileError, match=f"^Dockerfile:2: RUN .*{message}"):
        read(parse(f"FROM x\nRUN {flag} true".encode()))


def test_the_flags_of_a_run() -> None:
    (_, run) = read(parse(b"FROM x\nRUN --mount=target=/a --network=none --mount=type=tmpfs,target=/b true"))
    assert isinstance(run, Run)
    assert ([m.target for m in run.mounts], run.network, run.command) == (["/a", "/b"], "none", "true")
