"""Dockerfile text to nodes and instructions: scenarios, and errors with their line."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cri_runtime.build.errors import DockerfileError
from cri_runtime.build.instructions import (
    Arg,
    Command,
    Copy,
    Env,
    Expose,
    From,
    Healthcheck,
    Instruction,
    Label,
    OnBuild,
    Run,
    Shell,
    Volume,
    read,
)
from cri_runtime.build.parser import parse


def only(text: str) -> Instruction:
    """The one instruction after a FROM."""
    return read(parse(f"FROM scratch\n{text}".encode()))[1]


def lines(text: str) -> list[tuple[str, str, int]]:
    """Keyword, arguments and line of each node."""
    return [(n.keyword, n.text, n.line) for n in parse(text.encode()).nodes]


@pytest.mark.parametrize(
    ("text", "nodes"),
    [
        ("from a", [("FROM", "a", 1)]),
        ("\ufeffFROM a", [("FROM", "a", 1)]),
        ("FROM a\r\nCMD b\r\n", [("FROM", "a", 1), ("CMD", "b", 2)]),
        ("# c\n\nFROM a # not a comment", [("FROM", "a # not a comment", 3)]),
        ("FROM a\nRUN x \\\n  y", [("FROM", "a", 1), ("RUN", "x   y", 2)]),
        (
            "FROM a\nRUN x \\\n# comment\n\n  y \\  \n  z\nCMD q",
            [("FROM", "a", 1), ("RUN", "x   y   z", 2), ("CMD", "q", 7)],
        ),
        ("# escape=`\nFROM a\nRUN c:\\ `\n d", [("FROM", "a", 2), ("RUN", "c:\\  d", 3)]),
        ("# syntax=docker/dockerfile:1\n# escape=\\\nFROM a", [("FROM", "a", 3)]),
        ("# hello\n# escape=`\nFROM a", [("FROM", "a", 3)]),
        ("FROM a\nRUN x\\", [("FROM", "a", 1), ("RUN", "x", 2)]),
        ("FROM a\nWORK\\\nDIR /x", [("FROM", "a", 1), ("WORKDIR", "/x", 2)]),
    ],
)
def test_lines_become_nodes(text: str, nodes: list[tuple[str, str, int]]) -> None:
    assert lines(text) == nodes


def test_heredocs() -> None:
    copy = only("COPY --chmod=0755 <<EOF <<-'RAW' /x/\na $b\nEOF\n\tc $d\nRAW")
    assert isinstance(copy, Copy)
    assert [(d.name, d.content, d.expand) for d in copy.documents] == [
        ("EOF", "a $b\n", True),
        ("RAW", "c $d\n", False),
    ]
    assert (copy.sources, copy.target, copy.chmod) == ((), "/x/", "0755")
    with pytest.raises(DockerfileError, match=r"Dockerfile:2: .*no end"):
        only("RUN <<EOF\necho")


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("FROM a\nCOPPY a b", 2, "unknown instruction COPPY; did you mean COPY?"),
        ("FROM a\n\n\nXYZZY", 4, "unknown instruction XYZZY; there are ADD, ARG"),
        ("FROM", 1, "FROM needs an argument"),
        ("FROM a b", 1, "is written FROM image or FROM image AS name"),
        ("FROM a AS 1x", 1, "cannot name a stage"),
        ("RUN x\nFROM a", 1, "only ARG may stand before the first FROM"),
        ("ARG x", 1, "there is no FROM"),
        ("FROM a\nCOPY x", 2, "at least one source and a target"),
        ("FROM a\nCOPY --chwon=1 x y", 2, "does not know the flag --chwon"),
        ("FROM a\nCOPY --from=a --from=b x y", 2, "takes --from once"),
        ("FROM a\nADD --from=a x y", 2, "does not know the flag --from"),
        ("FROM a\nENV x", 2, "needs a value"),
        ("FROM a\nENV a=b c", 2, "takes name=value pairs"),
        ('FROM a\nENV a="b', 2, "not closed"),
        ("FROM a\nARG 1=2", 2, "cannot name a variable"),
        ("FROM a\nSHELL sh -c", 2, "JSON form"),
        ("FROM a\nHEALTHCHECK x", 2, "HEALTHCHECK NONE or"),
        ("FROM a\nHEALTHCHECK --interval=5 CMD x", 2, "a duration such as 30s"),
        ("FROM a\nONBUILD FROM b", 2, "cannot trigger FROM"),
        ("# escape=x\nFROM a", 1, "escape character"),
        ("# escape=`\n# escape=`\nFROM a", 2, "given twice"),
    ],
)
def test_mistakes_are_named_with_their_line(text: str, line: int, says: str) -> None:
    with pytest.raises(DockerfileError) as caught:
        read(parse(text.encode()))
    assert caught.value.line == line
    assert says in str(caught.value)
    assert str(caught.value).startswith(f"Dockerfile:{line}: ")


@pytest.mark.parametrize("data", [b"", b"\n\n# only comments\n"])
def test_an_empty_file_is_refused(data: bytes) -> None:
    with pytest.raises(DockerfileError, match="empty"):
        parse(data)


def test_bytes_that_are_no_text_are_refused_with_their_line() -> None:
    with pytest.raises(DockerfileError, match=r"Dockerfile:2: .*UTF-8"):
        parse(b"FROM a\nRUN \xff")


@given(st.text(alphabet="FROM RUN\\\n\t#=<EOF`'\"$[]{}-", max_size=60))
def test_no_text_makes_the_parser_fail_otherwise(text: str) -> None:
    try:
        read(parse(text.encode()))
    except DockerfileError as err:
        assert str(err)


def test_forms() -> None:
    assert only('CMD ["a", "b c"]') == Command(2, 'CMD ["a", "b c"]', "CMD", ("a", "b c"))
    assert only("ENTRYPOINT a b") == Command(2, "ENTRYPOINT a b", "ENTRYPOINT", "a b")
    assert only("CMD [not json") == Command(2, "CMD [not json", "CMD", "[not json")
    assert only("RUN a && b") == Run(2, "RUN a && b", "a && b")
    assert only('SHELL ["/bin/bash", "-c"]') == Shell(2, 'SHELL ["/bin/bash", "-c"]', ("/bin/bash", "-c"))
    assert only("ENV a b c") == Env(2, "ENV a b c", (("a", "b c"),))
    assert only('ENV a=b c="d e"') == Env(2, 'ENV a=b c="d e"', (("a", "b"), ("c", '"d e"')))
    assert only('LABEL "x y"=z') == Label(2, 'LABEL "x y"=z', (('"x y"', "z"),))
    assert only("ARG a b=c") == Arg(2, "ARG a b=c", (("a", None), ("b", "c")))
    assert only("EXPOSE 80 90/udp") == Expose(2, "EXPOSE 80 90/udp", ("80", "90/udp"))
    assert only('VOLUME ["/a b"]') == Volume(2, 'VOLUME ["/a b"]', ("/a b",))
    assert only("ONBUILD COPY --from=x a b") == OnBuild(2, "ONBUILD COPY --from=x a b", "COPY --from=x a b")
    assert only("HEALTHCHECK --interval=1m30s --retries=2 CMD x y") == Healthcheck(
        2,
        "HEALTHCHECK --interval=1m30s --retries=2 CMD x y",
        {"Test": ["CMD-SHELL", "x y"], "Interval": 90_000_000_000, "Retries": 2},
    )
    copy = only('COPY ["a b", "c", "d/"]')
    assert isinstance(copy, Copy)
    assert (copy.sources, copy.target) == (("a b", "c"), "d/")
    begin = read(parse(b"FROM --platform=linux/arm64 a AS Build"))[0]
    assert isinstance(begin, From)
    assert (begin.name, begin.platform) == ("build", "linux/arm64")
