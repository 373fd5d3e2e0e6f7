"""``--output`` and ``--secret`` as they are written."""

from pathlib import Path

import pytest

from ctl.errors import CtlError
from ctl.image.build import read_secret
from ctl.image.output import Output, parse_output


@pytest.mark.parametrize(
    ("text", "output"),
    [
        ("out", Output("local", "out")),
        ("-", Output("tar", "-")),
        ("type=local,dest=d", Output("local", "d")),
        ("type=oci,dest=a.tar", Output("oci", "a.tar")),
        ("type=docker", Output("docker", "-")),
        ("type=image", Output("image", "")),
    ],
)
def test_outputs(text: str, output: Output) -> None:
    assert parse_output(text) == output


@pytest.mark.parametrize("text", ["type=zip,dest=x", "type=local", "dest=x", "type=tar,dest=x,mode=1"])
def test_wrong_outputs_are_told(text: str) -> None:
    with pytest.raises(CtlError, match="--output"):
        parse_output(text)


def test_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "s"
    file.write_bytes(b"\0secret")
    monkeypatch.setenv("TOKEN", "t")
    assert read_secret(f"id=a,src={file}") == ("a", b"\0secret")
    assert read_secret("id=a,env=TOKEN") == ("a", b"t")
    assert read_secret("id=TOKEN") == ("TOKEN", b"t")
    for wrong in ("src=x", f"id=a,src={tmp_path}/none", "id=a,env=NOT_SET", "id=a,src=x,mode=1"):
        with pytest.raises(CtlError, match="--secret"):
            read_secret(wrong)
