"""Layout, settings, certificates and component flags, without starting anything."""

import stat
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ctl.lab import components as parts
from ctl.lab.errors import LabError
from ctl.lab.layout import Layout
from ctl.lab.pki import ensure_pki, identities
from ctl.lab.settings import Settings, check, free_network, node_name_of, read_settings, write_settings

SETTINGS = Settings(node_name="node-1", node_ip="192.0.2.7")


def certificate(directory: Path, name: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate((directory / f"{name}.crt").read_bytes())


def attribute(cert: x509.Certificate, oid: x509.ObjectIdentifier) -> list[str | bytes]:
    return [each.value for each in cert.subject.get_attributes_for_oid(oid)]


# --- layout and settings -------------------------------------------------------------------------------------------


def test_the_default_cluster_keeps_its_sockets_in_run() -> None:
    assert Layout(Path("/var/lib/knarr")).runtime_endpoint == "unix:///run/knarr/cri.sock"


def test_any_other_cluster_lives_below_its_directory() -> None:
    layout = Layout(Path("/tmp/x"))
    assert layout.runtime_endpoint == "unix:///tmp/x/run/cri.sock"
    assert layout.log("store") == Path("/tmp/x/logs/store.log")


def test_settings_come_back_as_they_were_written(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    write_settings(layout, SETTINGS)
    assert read_settings(layout) == SETTINGS


def test_damaged_settings_are_told(tmp_path: Path) -> None:
    (tmp_path / "up.json").write_text("{")
    with pytest.raises(LabError, match="damaged"):
        read_settings(Layout(tmp_path))


def test_a_cluster_that_was_never_up_is_told(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="ctl up"):
        read_settings(Layout(tmp_path))


def test_the_offset_shifts_every_port() -> None:
    shifted = replace(SETTINGS, port_offset=1000)
    assert shifted.address("apiserver") == "127.0.0.1:8443"
    assert shifted.address("kubelet") == "192.0.2.7:11250"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"node_name": "Node_1"}, "not an RFC 1123 name"),
        ({"port_offset": 60000}, "puts the apiserver on port 67443"),
        ({"port_offset": -5000}, "puts the store on port -2621"),
        ({"network": 10}, "out of range: 0 to 9"),
    ],
)
def test_settings_that_cannot_work_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(LabError) as caught:
        check(replace(SETTINGS, **changes))  # type: ignore[arg-type]
    assert message in str(caught.value)


def test_clusters_beside_each_other_have_networks_of_their_own() -> None:
    everyone = [replace(SETTINGS, network=number) for number in range(10)]
    for what in ("bridge", "pod_cidr", "service_cidr", "load_balancer_cidr"):
        assert len({getattr(each, what) for each in everyone}) == 10


def test_the_first_free_network_is_taken() -> None:
    assert free_network({"knarr0", "knarr1"}.__contains__) == 2
    with pytest.raises(LabError, match="all 10 networks are taken"):
        free_network(lambda bridge: True)


@pytest.mark.parametrize(
    ("host", "node"), [("Host.Example", "host.example"), ("my_pc", "my-pc"), ("___", "node"), ("a.", "a")]
)
def test_a_host_name_becomes_a_node_name(host: str, node: str) -> None:
    assert node_name_of(host) == node


# --- certificates --------------------------------------------------------------------------------------------------


def test_every_component_gets_the_identity_kubernetes_gives_it(tmp_path: Path) -> None:
    ensure_pki(tmp_path, SETTINGS)
    ca = certificate(tmp_path, "ca")
    for identity in identities(SETTINGS):
        cert = certificate(tmp_path, identity.name)
        cert.verify_directly_issued_by(ca)
        assert attribute(cert, NameOID.COMMON_NAME) == [identity.user]
        assert attribute(cert, NameOID.ORGANIZATION_NAME) == ([identity.group] if identity.group else [])
    assert attribute(certificate(tmp_path, "kubelet"), NameOID.COMMON_NAME) == ["system:node:node-1"]
    assert attribute(certificate(tmp_path, "kubelet"), NameOID.ORGANIZATION_NAME) == ["system:nodes"]
    assert attribute(certificate(tmp_path, "admin"), NameOID.ORGANIZATION_NAME) == ["system:masters"]


def test_servers_answer_to_their_names_and_clients_cannot_serve(tmp_path: Path) -> None:
    ensure_pki(tmp_path, SETTINGS)
    names = certificate(tmp_path, "kubelet").extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert {str(ip) for ip in names.get_values_for_type(x509.IPAddress)} == {"192.0.2.7", "127.0.0.1"}
    uses = certificate(tmp_path, "admin").extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(uses) == [ExtendedKeyUsageOID.CLIENT_AUTH]


def test_keys_are_for_their_owner_only(tmp_path: Path) -> None:
    ensure_pki(tmp_path / "pki", SETTINGS)
    assert stat.S_IMODE((tmp_path / "pki").stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "pki").iterdir()} == {0o600}


def test_what_is_still_right_is_kept(tmp_path: Path) -> None:
    ensure_pki(tmp_path, SETTINGS)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    ensure_pki(tmp_path, SETTINGS)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_new_node_address_renews_only_who_answers_to_it(tmp_path: Path) -> None:
    ensure_pki(tmp_path, SETTINGS)
    before = {path.stem: path.read_bytes() for path in tmp_path.glob("*.crt")}
    ensure_pki(tmp_path, replace(SETTINGS, node_ip="192.0.2.8"))
    after = {path.stem: path.read_bytes() for path in tmp_path.glob("*.crt")}
    assert {name for name in after if after[name] != before[name]} == {"kubelet", "apiserver", "store"}


def test_certificates_are_renewed_before_they_expire(tmp_path: Path) -> None:
    ensure_pki(tmp_path, SETTINGS)
    before = certificate(tmp_path, "proxy")
    ensure_pki(tmp_path, SETTINGS, now=datetime.now(UTC) + timedelta(days=340))
    assert certificate(tmp_path, "proxy") != before
    assert certificate(tmp_path, "ca").not_valid_after_utc > datetime.now(UTC) + timedelta(days=3000)


@pytest.mark.parametrize("damage", [b"", b"not a certificate"])
def test_a_damaged_pair_is_made_anew(tmp_path: Path, damage: bytes) -> None:
    ensure_pki(tmp_path, SETTINGS)
    (tmp_path / "store.crt").write_bytes(damage)
    ensure_pki(tmp_path, SETTINGS)
    certificate(tmp_path, "store").verify_directly_issued_by(certificate(tmp_path, "ca"))


# --- components ----------------------------------------------------------------------------------------------------


def test_components_need_only_what_is_started_before_them() -> None:
    started: set[str] = set()
    for component in parts.components(Layout(Path("/x")), SETTINGS):
        assert set(component.needs) <= started
        started.add(component.name)


def test_no_two_components_listen_on_one_address() -> None:
    listens = [a for component in parts.components(Layout(Path("/x")), SETTINGS) for a in component.listens]
    assert len(set(listens)) == len(listens) == 8
