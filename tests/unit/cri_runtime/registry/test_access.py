"""Who may use the registry, and over what."""

import ssl
import subprocess
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from cri_runtime.registry.serve import CertificateError, Options, running
from cri_runtime.registry.users import UsersFileError, crypt, load_users


def users_file(tmp_path: Path) -> Path:
    """bob, whose password is secret."""
    path = tmp_path / "users"
    path.write_text(f"# people\n\nbob:{crypt('secret', '$6$rounds=1000$salt')}\n")
    return path


@pytest.mark.parametrize(
    ("login", "status"),
    [(("bob", "secret"), 200), (("bob", "wrong"), 401), (("eve", "secret"), 401), (None, 401), (("bob", "a\0"), 401)],
)
async def test_only_users_of_the_file_are_served(
    tmp_path: Path, pushes: Any, login: tuple[str, str] | None, status: int
) -> None:
    async with running(tmp_path / "root", "127.0.0.1:0", Options(users=users_file(tmp_path))) as address:
        for _ in range(2):  # the second time it is remembered
            headers = {"Authorization": aiohttp.encode_basic_auth(*login)} if login else {}
            assert await pushes.status("GET", f"http://{address}/v2/", headers=headers) == status
        async with pushes.http.get(f"http://{address}/v2/r/blobs/x") as refused:
            assert refused.headers["WWW-Authenticate"].startswith("Basic ")
            assert (await refused.json())["errors"][0]["code"] == "UNAUTHORIZED"


@pytest.mark.parametrize("text", ["bob", "bob:", "bob:plain", ":$6$a$b"])
def test_a_wrong_users_file_names_its_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "users"
    path.write_text(f"# first\n{text}\n")
    with pytest.raises(UsersFileError, match=":2: "):
        load_users(path)


def test_bcrypt_is_understood() -> None:
    known = "$2y$05$abcdefghijklmnopqrstuuSM8dtyEqRLBn7w4i3iVX3lOVMRkx9nu"
    assert crypt("x", known)[:29] == known[:29]


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """A certificate for this machine, and its key."""
    certificate, key = tmp_path / "c.pem", tmp_path / "k.pem"
    command = (
        "openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=localhost -addext subjectAltName=IP:127.0.0.1"
    )
    subprocess.run([*command.split(), "-keyout", key, "-out", certificate], check=True, capture_output=True)
    return certificate, key


async def test_tls(tmp_path: Path, pushes: Any, pair: tuple[Path, Path]) -> None:
    certificate, key = pair
    trusting = ssl.create_default_context(cafile=str(certificate))
    async with running(tmp_path / "root", "127.0.0.1:0", Options(certificate, key)) as address:
        assert await pushes.status("GET", f"https://{address}/v2/", ssl=trusting) == 200
    with pytest.raises(CertificateError, match=r"k\.pem"):
        async with running(tmp_path / "root", "127.0.0.1:0", Options(key, certificate)):
            pass
