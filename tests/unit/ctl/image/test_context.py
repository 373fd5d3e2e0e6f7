"""Contexts, arguments and progress of ``ctl image``."""

import io
import os
import tarfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from ctl.errors import CtlError
from ctl.image.build import _build_arg
from ctl.image.context import read_dockerfile, read_ignore, tar_directory
from ctl.image.group import familiar
from ctl.image.ignore import Ignore
from ctl.image.progress import Transfer


def names(data: bytes) -> list[str]:
    """The names in a tar."""
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert all(entry.uid == entry.gid == 0 for entry in tar)
        return tar.getnames()


def test_a_directory_becomes_a_tar_without_the_ignored(tmp_path: Path) -> None:
    for path in ("a/keep", "a/drop", "b/deep/x", ".git/config"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(path)
    (tmp_path / "link").symlink_to("a")
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / ("n" * 200)).write_text("long")
    ignore = Ignore([".git", "b", "!b/deep/x", "a/d*"])
    assert names(b"".join(tar_directory(tmp_path, ignore))) == ["link", "n" * 200, "a", "a/keep", "b/deep/x"]


def test_an_empty_directory_is_an_empty_tar(tmp_path: Path) -> None:
    assert names(b"".join(tar_directory(tmp_path, Ignore()))) == []


def test_a_missing_dockerfile_is_named(tmp_path: Path) -> None:
    with pytest.raises(CtlError, match=r"cannot read the Dockerfile .*/Dockerfile: No such file.*-f names another"):
        read_dockerfile(tmp_path, None)
    with pytest.raises(CtlError, match="is a directory"):
        read_dockerfile(tmp_path, str(tmp_path))


def test_the_dockerfile_is_found_below_the_context_too(tmp_path: Path) -> None:
    (tmp_path / "other").write_text("FROM a")
    assert read_dockerfile(tmp_path, "other") == b"FROM a"


def test_a_dockerfiles_own_ignore_file_wins(tmp_path: Path) -> None:
    (tmp_path / ".dockerignore").write_text("x")
    (tmp_path / "Dockerfile.dockerignore").write_text("y")
    assert read_ignore(tmp_path, None).excludes("y")
    assert not read_ignore(tmp_path, None).excludes("x")
    (tmp_path / "Dockerfile.dockerignore").unlink()
    assert read_ignore(tmp_path, None).excludes("x")


def test_build_arguments_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FROM_ENV", "1")
    assert (_build_arg("A=b=c"), _build_arg("FROM_ENV")) == (("A", "b=c"), ("FROM_ENV", "1"))
    with pytest.raises(CtlError, match="UNSET=VALUE"):
        _build_arg("UNSET")


@pytest.mark.parametrize(
    ("full", "short"),
    [
        ("docker.io/library/kubia:latest", "kubia:latest"),
        ("docker.io/luksa/kubia:v1", "luksa/kubia:v1"),
        ("localhost:5000/kubia:v1", "localhost:5000/kubia:v1"),
    ],
)
def test_names_are_shown_short(full: str, short: str) -> None:
    assert familiar(full) == short


class Terminal(io.StringIO):
    """A terminal that remembers."""

    def isatty(self) -> bool:
        """Yes."""
        return True


def progress(number: int, status: str, current: int = 0) -> SimpleNamespace:
    """A message."""
    return SimpleNamespace(id=f"sha256:{number:064x}", status=status, current_bytes=current, total_bytes=100)


def test_elsewhere_there_is_one_line_per_change() -> None:
    out = io.StringIO()
    shown = Transfer(out)
    for message in (progress(1, "downloading", 1), progress(1, "downloading", 50), progress(1, "done")):
        shown.show(message)
    assert out.getvalue() == "000000000000: Downloading\n000000000000: Complete\n"


def test_on_a_terminal_a_line_changes_where_it_stands() -> None:
    out = Terminal()
    shown = Transfer(out)
    for message in (progress(1, "downloading", 50), progress(16**63, "exists"), progress(1, "done")):
        shown.show(message)
    first, second, rewritten = out.getvalue().split("\n")
    assert first == "000000000000: Downloading [===============>               ] 50B/100B"
    assert second == "100000000000: Already exists"
    assert rewritten == "\x1b[2A\r\x1b[K000000000000: Complete\x1b[2B\r"
