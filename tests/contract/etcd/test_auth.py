"""Authentication: the same steps against our store and against real etcd, and etcdctl's commands."""

import os
import random
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from protos.etcd import auth_pb2, rpc_pb2_grpc
from protos.etcd import rpc_pb2 as pb

READ, WRITE, READWRITE = 0, 1, 2


class Server:
    """One store, and the tokens of those who logged in there."""

    def __init__(self, channel: grpc.Channel) -> None:
        self.auth = rpc_pb2_grpc.AuthStub(channel)
        self.kv = rpc_pb2_grpc.KVStub(channel)
        self.lease = rpc_pb2_grpc.LeaseStub(channel)
        self.watch = rpc_pb2_grpc.WatchStub(channel)
        self.maintenance = rpc_pb2_grpc.MaintenanceStub(channel)
        self.tokens: dict[str, str] = {}

    def call(self, method: Callable[..., Any], request: Any, user: str = "") -> Any:
        """The answer without ids, or code and text of the refusal."""
        metadata = [("token", self.tokens[user])] if user in self.tokens else []
        try:
            response = method(request, timeout=20, metadata=metadata)
        except grpc.RpcError as err:
            return err.code(), err.details()
        if not response.HasField("header"):
            return response
        header = response.header
        header.cluster_id = header.member_id = header.raft_term = 0
        return response

    def log_in(self, user: str, password: str) -> Any:
        response = self.call(self.auth.Authenticate, pb.AuthenticateRequest(name=user, password=password))
        if isinstance(response, tuple):
            return response
        self.tokens[user] = response.token
        return "in"


@pytest.fixture
def ours(start_knarr: Any) -> Iterator[Server]:
    with grpc.insecure_channel(start_knarr().address) as channel:
        yield Server(channel)


def enable(server: Server) -> None:
    server.call(server.auth.UserAdd, pb.AuthUserAddRequest(name="root", password="secret"))
    server.call(server.auth.RoleAdd, pb.AuthRoleAddRequest(name="root"))
    server.call(server.auth.UserGrantRole, pb.AuthUserGrantRoleRequest(user="root", role="root"))
    server.call(server.auth.AuthEnable, pb.AuthEnableRequest())
    assert server.log_in("root", "secret") == "in"


def disable(server: Server) -> None:
    server.log_in("root", "secret")
    server.call(server.auth.AuthDisable, pb.AuthDisableRequest(), "root")


def grant(name: str, key: bytes, end: bytes = b"", way: int = READWRITE) -> pb.AuthRoleGrantPermissionRequest:
    permission = auth_pb2.Permission(permType=way, key=key, range_end=end)
    return pb.AuthRoleGrantPermissionRequest(name=name, perm=permission)


NAMES = ["root", "ann", "ben", "", "ann"]
ROLES = ["root", "reader", "writer", ""]
RANGES = [(b"a", b""), (b"a", b"c"), (b"b", b"d"), (b"c", b"\0"), (b"", b""), (b"d", b"b"), (b"a", b"b")]

VALID_RANGES = [RANGES[0], RANGES[1], RANGES[2], RANGES[3], RANGES[6]]  # etcd 3.5.1 takes others too, later ones do not


def step(dice: random.Random) -> tuple[str, Any, str]:
    """A random request that tries or changes what users may do, and who makes it."""
    name, role = dice.choice(NAMES), dice.choice(ROLES)
    key, end = dice.choice(RANGES)
    put = pb.PutRequest(key=key, value=b"1", prev_kv=dice.random() < 0.3)
    delete = pb.DeleteRangeRequest(key=key, range_end=end, prev_kv=dice.random() < 0.3)
    get = pb.RangeRequest(key=key, range_end=end)
    compare = pb.Compare(key=key, range_end=end, target=pb.Compare.VERSION, result=pb.Compare.GREATER)
    ops = [
        pb.RequestOp(request_put=put),
        pb.RequestOp(request_range=get),
        pb.RequestOp(request_delete_range=pb.DeleteRangeRequest(key=b"z" + key)),
    ]
    choices: list[tuple[str, Any]] = [
        ("auth.UserAdd", pb.AuthUserAddRequest(name=name, password="secret")),
        ("auth.UserGet", pb.AuthUserGetRequest(name=name)),
        ("auth.UserList", pb.AuthUserListRequest()),
        ("auth.UserDelete", pb.AuthUserDeleteRequest(name=name)),
        ("auth.UserGrantRole", pb.AuthUserGrantRoleRequest(user=name, role=role)),
        ("auth.UserGrantRole", pb.AuthUserGrantRoleRequest(user="ann", role=role)),
        ("auth.UserRevokeRole", pb.AuthUserRevokeRoleRequest(name=name, role=role)),
        ("auth.RoleAdd", pb.AuthRoleAddRequest(name=role)),
        ("auth.RoleGet", pb.AuthRoleGetRequest(role=role.replace("root", "none"))),  # etcd 3.5.1 shows root none
        ("auth.RoleList", pb.AuthRoleListRequest()),
        ("auth.RoleDelete", pb.AuthRoleDeleteRequest(role=role)),
        ("auth.RoleGrantPermission", grant(role, *dice.choice(VALID_RANGES), dice.choice([READ, WRITE, READWRITE]))),
        ("auth.RoleGrantPermission", pb.AuthRoleGrantPermissionRequest(name=role)),
        ("auth.RoleRevokePermission", pb.AuthRoleRevokePermissionRequest(role=role, key=key, range_end=end)),
        ("kv.Put", put),
        ("kv.Range", get),
        ("kv.DeleteRange", delete),
        ("kv.Txn", pb.TxnRequest(compare=[compare], success=ops[:2], failure=dice.sample(ops, 2))),
    ]
    kind, request = dice.choice([*choices, *choices[-4:] * 2])
    if kind == "kv.Txn" and any(op.HasField("request_put") for op in request.failure) and not key:
        kind, request = "kv.Range", get
    if kind.startswith("auth.") and request.DESCRIPTOR.name != "AuthUserGetRequest":
        who = dice.choice(["root", "root", "root", "ann", ""])
    else:
        who = dice.choice(["root", "ann", "ann", "ben", ""])
    return kind, request, who


@pytest.mark.parametrize("seed", range(int(os.environ.get("KNARR_ETCD_SEEDS", "0")) or 3))
def test_every_answer_is_etcds(ours: Server, newest_etcd: Any, seed: int) -> None:
    dice = random.Random(seed)
    with grpc.insecure_channel(newest_etcd.address) as channel:
        theirs = Server(channel)
        for server in (ours, theirs):
            enable(server)
        for number in range(120):
            if number % 10 == 5:
                user = dice.choice(["ann", "ben", "root"])
                password = dice.choice(["secret", "secret", "wrong"])
                assert ours.log_in(user, password) == theirs.log_in(user, password)
            kind, request, who = step(dice)
            service, method = kind.split(".")
            answers = [
                server.call(getattr(getattr(server, service), method), request, who) for server in (ours, theirs)
            ]
            assert answers[0] == answers[1], f"seed {seed}, step {number}: {who}: {kind} {request}"


def test_what_each_call_needs(ours: Server) -> None:
    enable(ours)
    for user, role, permission in (
        ("ann", "r", grant("r", b"a", b"b", READ)),
        ("ben", "w", grant("w", b"a", b"b", WRITE)),
    ):
        ours.call(ours.auth.UserAdd, pb.AuthUserAddRequest(name=user, password="secret"), "root")
        ours.call(ours.auth.RoleAdd, pb.AuthRoleAddRequest(name=role), "root")
        ours.call(ours.auth.RoleGrantPermission, permission, "root")
        ours.call(ours.auth.UserGrantRole, pb.AuthUserGrantRoleRequest(user=user, role=role), "root")
        assert ours.log_in(user, "secret") == "in"
    ours.call(
        ours.kv.Put,
        pb.PutRequest(
            key=b"z", value=b"1", lease=ours.call(ours.lease.LeaseGrant, pb.LeaseGrantRequest(ID=7, TTL=60), "root").ID
        ),
        "root",
    )
    denied = (grpc.StatusCode.PERMISSION_DENIED, "etcdserver: permission denied")
    nobody = (grpc.StatusCode.INVALID_ARGUMENT, "etcdserver: user name is empty")
    compare = pb.Compare(key=b"a", target=pb.Compare.VERSION)
    leases = pb.LeaseLeasesRequest()
    cases: list[tuple[str, Any, Any, Any]] = [
        ("ann", ours.kv.Range, pb.RangeRequest(key=b"a"), None),
        ("ann", ours.kv.Range, pb.RangeRequest(key=b"a", range_end=b"c"), denied),
        ("", ours.kv.Range, pb.RangeRequest(key=b"a"), nobody),
        ("ben", ours.kv.Range, pb.RangeRequest(key=b"a"), denied),
        ("ben", ours.kv.Put, pb.PutRequest(key=b"a"), None),
        ("ben", ours.kv.Put, pb.PutRequest(key=b"a", prev_kv=True), denied),
        ("ben", ours.kv.Put, pb.PutRequest(key=b"a", lease=7), denied),
        ("ann", ours.kv.Put, pb.PutRequest(key=b"a"), denied),
        ("", ours.kv.Put, pb.PutRequest(key=b"a"), nobody),
        ("ben", ours.kv.Txn, pb.TxnRequest(compare=[compare]), denied),
        ("ann", ours.kv.Txn, pb.TxnRequest(compare=[compare]), None),
        ("ben", ours.kv.DeleteRange, pb.DeleteRangeRequest(key=b"a", range_end=b"b"), None),
        ("ben", ours.kv.Compact, pb.CompactionRequest(revision=2), denied),
        ("ben", ours.lease.LeaseGrant, pb.LeaseGrantRequest(TTL=60), None),
        ("", ours.lease.LeaseGrant, pb.LeaseGrantRequest(TTL=60), nobody),
        ("ben", ours.lease.LeaseRevoke, pb.LeaseRevokeRequest(ID=7), denied),
        ("ann", ours.lease.LeaseTimeToLive, pb.LeaseTimeToLiveRequest(ID=7), None),
        ("ann", ours.lease.LeaseTimeToLive, pb.LeaseTimeToLiveRequest(ID=7, keys=True), denied),
        ("", ours.lease.LeaseTimeToLive, pb.LeaseTimeToLiveRequest(ID=7), nobody),
        ("ann", ours.lease.LeaseLeases, leases, denied),
        ("root", ours.lease.LeaseLeases, leases, None),
        ("ann", ours.maintenance.Status, pb.StatusRequest(), None),
        ("", ours.maintenance.Status, pb.StatusRequest(), nobody),
        ("ann", ours.maintenance.HashKV, pb.HashKVRequest(), denied),
        ("ann", ours.maintenance.Defragment, pb.DefragmentRequest(), denied),
        ("ann", ours.maintenance.Alarm, pb.AlarmRequest(), None),
        ("ann", ours.maintenance.Alarm, pb.AlarmRequest(action=1, alarm=1), denied),
        ("ann", ours.auth.UserGet, pb.AuthUserGetRequest(name="ann"), None),
        ("ann", ours.auth.UserGet, pb.AuthUserGetRequest(name="ben"), denied),
        ("ann", ours.auth.RoleGet, pb.AuthRoleGetRequest(role="r"), None),
        ("ann", ours.auth.RoleGet, pb.AuthRoleGetRequest(role="w"), denied),
        ("ann", ours.auth.AuthDisable, pb.AuthDisableRequest(), denied),
    ]
    for user, method, request, refusal in cases:
        answer = ours.call(method, request, user)
        assert (answer if isinstance(answer, tuple) else None) == refusal, f"{user}: {request}"
    for user, reason in (
        ("", "InvalidArgument desc = etcdserver: user name is empty"),
        ("ben", "PermissionDenied desc = etcdserver: permission denied"),
    ):
        requests = iter([pb.WatchRequest(create_request=pb.WatchCreateRequest(key=b"a"))])
        metadata = [("token", ours.tokens[user])] if user else []
        response = next(iter(ours.watch.Watch(requests, metadata=metadata)))
        assert (response.created, response.canceled, response.watch_id) == (True, True, -1)
        assert response.cancel_reason == f"rpc error: code = {reason}"


def test_tokens_end_with_the_password_and_with_a_restart(start_knarr: Any) -> None:
    process = start_knarr()
    bad = (grpc.StatusCode.UNAUTHENTICATED, "etcdserver: invalid auth token")
    with grpc.insecure_channel(process.address) as channel:
        server = Server(channel)
        enable(server)
        get = pb.RangeRequest(key=b"a")
        assert not isinstance(server.call(server.kv.Range, get, "root"), tuple)
        server.call(
            server.auth.UserChangePassword, pb.AuthUserChangePasswordRequest(name="root", password="new"), "root"
        )
        assert server.call(server.kv.Range, get, "root") == bad
        assert server.log_in("root", "secret")[1] == "etcdserver: authentication failed, invalid user ID or password"
        assert server.log_in("root", "new") == "in"
        server.call(server.maintenance.Defragment, pb.DefragmentRequest(), "root")  # what the log knows is remembered
        process.kill()
        process.start()
        assert server.call(server.kv.Range, get, "root") == bad
        assert server.log_in("root", "new") == "in"
        assert not isinstance(server.call(server.kv.Range, get, "root"), tuple)


def test_jwt_outlives_a_restart_but_not_a_change_of_users(start_knarr: Any, tmp_path: Path) -> None:
    key = rsa.generate_private_key(65537, 2048)
    form = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (tmp_path / "key.pem").write_bytes(key.private_bytes(serialization.Encoding.PEM, *form))
    process = start_knarr("--auth-token", f"jwt,sign-method=RS256,priv-key={tmp_path}/key.pem,ttl=5m")
    with grpc.insecure_channel(process.address) as channel:
        server = Server(channel)
        enable(server)
        process.kill()
        process.start()
        assert not isinstance(server.call(server.kv.Put, pb.PutRequest(key=b"a"), "root"), tuple)
        server.call(server.auth.RoleAdd, pb.AuthRoleAddRequest(name="r"), "root")
        old = (grpc.StatusCode.INVALID_ARGUMENT, "etcdserver: revision of auth store is old")
        assert server.call(server.kv.Put, pb.PutRequest(key=b"a"), "root") == old
        server.tokens["root"] = server.tokens["root"][:-4] + "AAAA"
        assert server.call(server.kv.Put, pb.PutRequest(key=b"a"), "root")[1] == "etcdserver: invalid auth token"


def test_etcdctls_auth_user_and_role_commands(any_etcdctl: str, start_knarr: Any) -> None:
    address = start_knarr().address

    def run(*words: str, user: str = "") -> str:
        login = ["--user", user] if user else []
        command = [any_etcdctl, "--endpoints", address, *login, *words]
        done = subprocess.run(command, env={"ETCDCTL_API": "3"}, capture_output=True, text=True, timeout=20)
        return done.stdout + done.stderr

    root = "root:pw"
    assert "User root created" in run("user", "add", root)
    assert "User ann created" in run("user", "add", "ann:pw")
    assert "User cert created" in run("user", "add", "cert", "--no-password")
    assert "Role reader created" in run("role", "add", "reader")
    assert "Role reader updated" in run("role", "grant-permission", "reader", "read", "/a/", "--prefix")
    assert "Role reader updated" in run("role", "grant-permission", "reader", "readwrite", "b")
    assert "Role reader is granted to user ann" in run("user", "grant-role", "ann", "reader")
    assert "Authentication Enabled" in run("auth", "enable")
    assert "user name is empty" in run("get", "b")
    assert "OK" in run("put", "b", "1", user="ann:pw")
    assert run("get", "b", user="ann:pw") == "b\n1\n"
    assert "permission denied" in run("put", "/a/x", "1", user="ann:pw")
    assert "authentication failed, invalid user ID or password" in run("get", "b", user="ann:no")
    assert run("user", "list", user=root).split() == ["ann", "cert", "root"]
    assert "reader" in run("user", "get", "ann", user=root)
    assert "[/a/, /a0) (prefix /a/)" in run("role", "get", "reader", user="ann:pw")
    assert run("role", "list", user=root).split() == ["reader", "root"]
    assert "revoked from role reader" in run("role", "revoke-permission", "reader", "b", user=root)
    assert "permission denied" in run("get", "b", user="ann:pw")
    assert "is revoked from user ann" in run("user", "revoke-role", "ann", "reader", user=root)
    assert "Role reader deleted" in run("role", "delete", "reader", user=root)
    assert "User ann deleted" in run("user", "delete", "ann", user=root)
    assert "invalid auth management" in run("user", "delete", "root", user=root)
    if "distro" in any_etcdctl:
        assert "Authentication Status: true" in run("auth", "status", user=root)
    assert "Authentication Disabled" in run("auth", "disable", user=root)
    assert run("get", "b") == "b\n1\n"


async def test_the_name_in_a_client_certificate_logs_in(start_knarr_tls: Any) -> None:
    authority, url = start_knarr_tls("--client-cert-auth")

    def channel(name: str) -> grpc.aio.Channel:
        return grpc.aio.secure_channel(url.removeprefix("https://"), authority.issue(name).channel_credentials())

    async with channel("root") as root, channel("ann") as ann:
        auth = rpc_pb2_grpc.AuthStub(root)
        for user in ("root", "ann"):
            options = auth_pb2.UserAddOptions(no_password=True)
            await auth.UserAdd(pb.AuthUserAddRequest(name=user, options=options))
        await auth.RoleAdd(pb.AuthRoleAddRequest(name="r"))
        await auth.RoleGrantPermission(grant("r", b"a"))
        for user, role in (("root", "root"), ("ann", "r")):
            await auth.UserGrantRole(pb.AuthUserGrantRoleRequest(user=user, role=role))
        await auth.AuthEnable(pb.AuthEnableRequest())
        kv = rpc_pb2_grpc.KVStub(ann)
        await kv.Put(pb.PutRequest(key=b"a"))
        with pytest.raises(grpc.aio.AioRpcError, match="permission denied"):
            await kv.Put(pb.PutRequest(key=b"b"))
        await rpc_pb2_grpc.KVStub(root).Put(pb.PutRequest(key=b"b"))
        with pytest.raises(grpc.aio.AioRpcError, match="password was given for no password user"):
            await auth.Authenticate(pb.AuthenticateRequest(name="ann", password=""))
