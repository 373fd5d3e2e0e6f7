"""The registries file, and what needs none."""

from pathlib import Path

import pytest

from cri_runtime.images.hosts import Auth, Registries, RegistriesFileError, is_loopback, load_registries


def load(tmp_path: Path, text: str) -> Registries:
    """Load a file of this text."""
    (tmp_path / "registries.toml").write_text(text)
    return load_registries(tmp_path / "registries.toml")


@pytest.mark.parametrize(
    ("registry", "url"),
    [
        ("localhost:5000", "http://localhost:5000"),
        ("127.0.0.1:5000", "http://127.0.0.1:5000"),
        ("127.1.2.3", "http://127.1.2.3"),
        ("[::1]:5000", "http://[::1]:5000"),
        ("ghcr.io", "https://ghcr.io"),
        ("10.0.0.1:5000", "https://10.0.0.1:5000"),
        ("localhost.example.com", "https://localhost.example.com"),
        ("docker.io", "https://registry-1.docker.io"),
    ],
)
def test_loopback_is_plain_http_and_all_else_is_not(registry: str, url: str) -> None:
    assert Registries().url(registry) == url
    assert is_loopback(registry) == url.startswith("http:")


def test_mirrors_come_first_and_get_no_login(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("s3cret\n")
    hosts = load(
        tmp_path,
        '["registry.k8s.io"]\nmirrors = ["http://127.0.0.1:5000/"]\nusername = "robot"\npassword_file = "secret"\n'
        '["10.0.0.1:5000"]\ninsecure = true\n',
    )
    mirror, own = hosts.endpoints("registry.k8s.io")
    assert (mirror.url, mirror.is_mirror, mirror.auth) == ("http://127.0.0.1:5000", True, Auth())
    assert (own.url, own.auth) == ("https://registry.k8s.io", Auth("robot", "s3cret"))
    assert hosts.endpoints("registry.k8s.io", Auth("me", "x"))[1].auth == Auth("me", "x")
    assert hosts.url("10.0.0.1:5000") == "http://10.0.0.1:5000"
    assert "s3cret" not in repr(own)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[", "cannot read"),
        ("a = 1", '"a".* is not a table'),
        ('["a"]\nmirorrs = []', "unknown key mirorrs"),
        ('["a"]\nmirrors = ["localhost:5000"]', "http:// or https://"),
        ('["a"]\nmirrors = "http://x"', "mirrors is a list"),
        ('["a"]\ninsecure = "yes"', "true or false"),
        ('["a"]\npassword_file = "nosuch"', "password_file"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(RegistriesFileError, match=says):
        load(tmp_path, text)


def test_a_missing_ca_is_named(tmp_path: Path) -> None:
    hosts = load(tmp_path, '["a.example"]\nca = "nosuch.pem"')
    with pytest.raises(RegistriesFileError, match=r"CA file .*nosuch\.pem"):
        hosts.endpoints("a.example")
