"""Our parser against dockerfile-parse of PyPI, where it is installed: which instructions are there, from which line.

An empty line does not end a continued instruction for docker nor for us, but does for it: no case has one.
"""

import io

import pytest

from cri_runtime.build.parser import parse

peer = pytest.importorskip("dockerfile_parse", reason="dockerfile-parse is not installed")

CORPUS = [
    "FROM a\nRUN b\n",
    "# comment\n\nFROM a AS b\n  # indented\n\tRUN c\n",
    "FROM a\nRUN b \\\n  c \\\n  d\nCMD e\n",
    "FROM a\nRUN b \\\n# within\n  && c\nLABEL d=e\n",
    'from a\nenv A=1 B="2 3"\ncopy --chown=1:2 x y /z/\nENTRYPOINT ["a", "b"]\n',
    "ARG V=1\nFROM a:$V\nONBUILD RUN b\nHEALTHCHECK --interval=5s CMD c\n",
    "# escape=`\nFROM a\nRUN b `\n  c\nUSER d\n",
    "FROM a\r\nRUN b \\\r\n c\r\nWORKDIR /d\r\n",
    "FROM a\nRUN b # no comment\nRUN 'c \\\\ d'\n",
]


@pytest.mark.parametrize("text", CORPUS)
def test_the_same_instructions_from_the_same_lines(text: str) -> None:
    theirs = peer.DockerfileParser(fileobj=io.BytesIO(text.encode())).structure
    expected = [(e["instruction"], e["startline"] + 1) for e in theirs if e["instruction"] != "COMMENT"]
    assert [(node.keyword, node.line) for node in parse(text.encode()).nodes] == expected
