"""Key ranges, passwords, tokens, and what a user may do."""

from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given
from hypothesis import strategies as st

from protos.etcd.auth_pb2 import Permission
from raftstore.auth import jwt, passwords
from raftstore.auth.identity import ANONYMOUS, Identity
from raftstore.auth.ranges import Ranges, interval
from raftstore.auth.store import AuthStore
from raftstore.auth.tokens import SimpleTokens
from raftstore.errors import CannotSign, InvalidAuthManagement, OldAuthRevision, PermissionDenied, UserEmpty
from raftstore.mvcc.backend import Backend

KEYS = st.binary(min_size=1, max_size=1).map(lambda key: bytes([key[0] % 8]))
INTERVALS = st.tuples(KEYS, st.one_of(st.none(), KEYS))


@given(st.lists(INTERVALS, max_size=6), INTERVALS)
def test_a_union_covers_what_its_keys_cover(intervals: list[tuple[bytes, bytes | None]], wanted: tuple) -> None:
    def keys(start: bytes, end: bytes | None) -> set[int]:
        return {key for key in range(8) if start[0] <= key and (end is None or key < end[0])}

    union = set().union(*(keys(*each) for each in intervals))
    endless = any(end is None and start[0] <= 7 for start, end in intervals)
    expected = bool(keys(*wanted)) and keys(*wanted) <= union and (wanted[1] is not None or endless)
    assert Ranges(intervals).cover(wanted) == expected


@pytest.mark.parametrize(
    ("key", "range_end", "expected"),
    [
        (b"a", b"", (b"a", b"a\0")),
        (b"a", b"\0", (b"a", None)),
        (b"\0", b"\0", (b"\0", None)),
        (b"a", b"b", (b"a", b"b")),
    ],
)
def test_intervals_follow_etcds_conventions(key: bytes, range_end: bytes, expected: tuple) -> None:
    assert interval(key, range_end) == expected


def test_a_password_matches_only_its_own_hash() -> None:
    hashed = passwords.hash_password("secret")
    assert passwords.matches("secret", hashed)
    assert not passwords.matches("other", hashed)
    assert passwords.hash_password("secret") != hashed
    for broken in (b"", b"scrypt$1", b"\xff", b"md5$1$1$1$AA==$AA=="):
        assert not passwords.matches("secret", broken)


def test_simple_tokens_live_while_they_are_used() -> None:
    now = 0.0
    tokens = SimpleTokens(lambda: now, ttl_s=10)
    token = tokens.register("ann", "x" * 16, 7)
    assert token == "x" * 16 + ".7"
    now = 9.0
    assert tokens.recognise(token, 3) == Identity("ann", 3)
    now = 18.0
    assert tokens.recognise(token, 3) is not None
    now = 28.0
    assert tokens.recognise(token, 3) is None
    other = tokens.register("ben", "y" * 16, 8)
    tokens.forget_user("ben")
    assert tokens.recognise(other, 3) is None


def pem(directory: Path, key: object) -> tuple[Path, Path]:
    private = key.private_bytes(  # type: ignore[attr-defined]
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(  # type: ignore[attr-defined]
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    (directory / "private").write_bytes(private)
    (directory / "public").write_bytes(public)
    return directory / "public", directory / "private"


RSA = rsa.generate_private_key(65537, 2048)


@pytest.mark.parametrize(
    ("method", "key"),
    [
        ("RS256", RSA),
        ("RS512", RSA),
        ("PS384", RSA),
        ("ES256", ec.generate_private_key(ec.SECP256R1())),
        ("ES384", ec.generate_private_key(ec.SECP384R1())),
        ("EdDSA", ed25519.Ed25519PrivateKey.generate()),
    ],
)
def test_a_jwt_proves_itself_until_it_expires(method: str, key: object, tmp_path: Path) -> None:
    public, private = pem(tmp_path, key)
    now = 1000.0
    tokens = jwt.JWTTokens(jwt.read_signer(method, None, private), lambda: now, ttl_s=60)
    token = tokens.issue("ann", 5)
    assert token is not None
    verifier = jwt.JWTTokens(jwt.read_signer(method, public, None), lambda: now)
    assert verifier.recognise(token, 9) == Identity("ann", 5)
    with pytest.raises(CannotSign):
        verifier.issue("ann", 5)
    head, claims, signature = token.split(".")
    forged = jwt._encode(b'{"username":"root","revision":5,"exp":9999999999}')
    for bad in (f"{head}.{forged}.{signature}", f"{head}.{claims}.", f"{head}.{claims}", "", "a.b.c", "\xff.b.c"):
        assert verifier.recognise(bad, 9) is None
    none = jwt._encode(b'{"alg":"none","typ":"JWT"}')
    assert verifier.recognise(f"{none}.{claims}.", 9) is None
    now = 1061.0
    assert verifier.recognise(token, 9) is None


def test_a_jwt_of_a_shared_secret(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"s" * 32)
    tokens = jwt.JWTTokens(jwt.read_signer("HS256", None, tmp_path / "secret"), lambda: 0.0)
    assert tokens.recognise(tokens.issue("ann", 1) or "", 1) == Identity("ann", 1)


def test_signing_options_that_cannot_work_are_named(tmp_path: Path) -> None:
    public, private = pem(tmp_path, RSA)
    for method, files, said in (
        ("none", (public, private), "sign-method=none"),
        ("ES256", (public, private), "not of the kind"),
        ("RS256", (None, None), "priv-key"),
        ("RS256", (tmp_path / "absent", None), "absent"),
    ):
        with pytest.raises(ValueError, match=said):
            jwt.read_signer(method, *files)


@pytest.fixture
def auth(tmp_path: Path) -> AuthStore:
    auth = AuthStore(Backend(tmp_path, 64 << 20))
    auth.add_user("root", b"", True)
    auth.grant_role("root", "root")
    auth.add_user("ann", b"", True)
    auth.add_role("r")
    auth.grant_role("ann", "r")
    auth.enable()
    return auth


def test_permissions_are_ranges_and_change_at_once(auth: AuthStore) -> None:
    ann = Identity("ann", auth.revision)
    with pytest.raises(PermissionDenied):
        auth.check_read(ann, b"a")
    auth.grant_permission("r", Permission(permType=Permission.READ, key=b"a", range_end=b"c"))
    auth.grant_permission("r", Permission(permType=Permission.READ, key=b"c", range_end=b"\0"))
    with pytest.raises(OldAuthRevision):
        auth.check_read(ann, b"a")
    ann = Identity("ann", auth.revision)
    auth.check_read(ann, b"a", b"d")
    auth.check_read(ann, b"a", b"\0")
    with pytest.raises(PermissionDenied):
        auth.check_write(ann, b"a")
    with pytest.raises(UserEmpty):
        auth.check_read(ANONYMOUS, b"a")
    auth.check_write(Identity("root", auth.revision), b"", b"\0")


def test_root_cannot_lock_itself_out(auth: AuthStore) -> None:
    for change in (
        lambda: auth.delete_user("root"),
        lambda: auth.revoke_role("root", "root"),
        lambda: auth.delete_role("root"),
    ):
        with pytest.raises(InvalidAuthManagement):
            change()
    before = auth.revision
    auth.disable()
    assert auth.revision == before + 1
    auth.delete_user("root")


def test_users_and_roles_outlive_a_restart(tmp_path: Path) -> None:
    backend = Backend(tmp_path, 64 << 20)
    auth = AuthStore(backend)
    auth.add_user("n" * 4000, b"hash", False)  # longer than a database key may be
    auth.add_role("r")
    auth.grant_role("n" * 4000, "r")
    auth.grant_permission("r", Permission(permType=Permission.WRITE, key=b"k"))
    backend.write(backend.take_checkpoint())
    backend.close()
    again = AuthStore(Backend(tmp_path, 64 << 20))
    assert (again.users, again.roles, again.revision) == (auth.users, auth.roles, 5)
