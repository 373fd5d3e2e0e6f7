"""docker's config.json and credential helpers."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from ctl.errors import CtlError
from ctl.image.credentials import Login, find_login


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """``config({...})`` is docker's config.json."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    return lambda body: (tmp_path / "config.json").write_text(json.dumps(body) if isinstance(body, dict) else body)


def auth(text: str) -> dict[str, str]:
    """An entry."""
    return {"auth": base64.b64encode(text.encode()).decode()}


@pytest.mark.parametrize(
    ("name", "login"),
    [
        ("localhost:5000/a:v1", Login("bob", "p:w")),
        ("registry.example/a/b", Login("old", "url")),
        ("busybox", Login("hub", "x")),
        ("docker.io/library/busybox", Login("hub", "x")),
        ("luksa/kubia", Login("hub", "x")),
        ("token.example/a", Login("", "", "tok")),
        ("other.example/a", None),
    ],
)
def test_entries(config: Any, name: str, login: Login | None) -> None:
    auths = {
        "localhost:5000": auth("bob:p:w"),
        "https://registry.example/v2/": auth("old:url"),
        "https://index.docker.io/v1/": auth("hub:x"),
        "token.example": {"identitytoken": "tok"},
    }
    config({"auths": auths})
    assert find_login(name) == login


def test_no_config(config: Any) -> None:
    assert find_login("a") is None


@pytest.mark.parametrize("body", ["{", "[]", {"auths": {"a.b": {"auth": "%"}}}, {"credsStore": "none-such"}])
def test_what_is_broken_is_told(config: Any, body: Any) -> None:
    config(body)
    with pytest.raises(CtlError, match=r"config\.json"):
        find_login("a.b/c")


def test_helpers(config: Any, tmp_path: Path) -> None:
    helper = tmp_path / "docker-credential-mine"
    helper.write_text('#!/bin/sh\nread -r r; [ "$r" = a.b ] || exit 1\necho \'{"Username":"<token>","Secret":"s"}\'\n')
    helper.chmod(0o755)
    config({"credHelpers": {"a.b": "mine", "c.d": "mine"}})
    assert find_login("a.b/x") == Login(identity_token="s")
    assert find_login("c.d/x") is None
