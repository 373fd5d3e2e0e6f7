"""The config file: what it says, and what is wrong with it."""

from pathlib import Path

import pytest

from control.client.config import ConfigError, read_target

CONFIG = """
apiVersion: v1
kind: Config
current-context: knarr
clusters:
- name: knarr
  cluster: {server: "127.0.0.1:7443", certificate-authority: pki/ca.crt}
users:
- name: admin
  user: {client-certificate: pki/admin.crt, client-key: /abs/admin.key}
contexts:
- name: knarr
  context: {cluster: knarr, user: admin, namespace: blue}
- name: broken
  context: {cluster: nowhere}
"""


def test_a_context_names_server_files_and_namespace(tmp_path: Path) -> None:
    path = tmp_path / "config"
    path.write_text(CONFIG)
    target = read_target(path)
    assert (target.server, target.namespace) == ("127.0.0.1:7443", "blue")
    assert (
        target.tls is not None and target.tls.ca == tmp_path / "pki/ca.crt" and target.tls.key == Path("/abs/admin.key")
    )


@pytest.mark.parametrize(
    ("text", "context", "told"),
    [
        (CONFIG, "other", "contexts has no entry named 'other'"),
        (CONFIG, "broken", "clusters has no entry named 'nowhere'"),
        ("a: b", None, "no current-context"),
        ("[]", None, "is not a config"),
        (CONFIG.replace(", certificate-authority: pki/ca.crt", ""), None, "mutual TLS needs"),
    ],
)
def test_a_bad_config_is_told_with_its_file(tmp_path: Path, text: str, context: str | None, told: str) -> None:
    path = tmp_path / "config"
    path.write_text(text)
    with pytest.raises(ConfigError, match=told) as caught:
        read_target(path, context)
    assert str(path) in str(caught.value)
