"""Users, roles and whether authentication is on: replicated state, changed only by applied log entries.

Rules (etcd's): the auth revision begins at 1 and grows with every change of a user, a role or a permission. The user
``root`` with the role ``root`` may do everything, and cannot lose that while authentication is on.
"""

import hashlib
from collections.abc import Iterable

from protos.etcd.auth_pb2 import Permission, Role, User
from raftstore.auth.identity import Identity
from raftstore.auth.ranges import Interval, Ranges, interval
from raftstore.errors import (
    AuthNotEnabled,
    InvalidAuthManagement,
    OldAuthRevision,
    PermissionDenied,
    PermissionNotGiven,
    PermissionNotGranted,
    RoleEmpty,
    RoleExists,
    RoleNotFound,
    RoleNotGranted,
    RootRoleMissing,
    RootUserMissing,
    UserEmpty,
    UserExists,
    UserNotFound,
)
from raftstore.mvcc.backend import Backend

ROOT = "root"
"""The name of the user and of the role that may do everything."""

_FACT = b"auth/"
_FACT_ENABLED = _FACT + b"enabled"
_FACT_REVISION = _FACT + b"revision"
_FACT_USER = _FACT + b"user/"
_FACT_ROLE = _FACT + b"role/"

_EVERYTHING = Permission(permType=Permission.READWRITE, key=b"", range_end=b"\0")


class AuthStore:
    """Users and roles by name. Changes raise what refuses them and then change nothing."""

    def __init__(self, backend: Backend) -> None:
        """Load the state of the last checkpoint."""
        self._backend = backend
        facts = backend.stored_facts(_FACT)
        self.enabled = _FACT_ENABLED in facts
        self.revision = int(facts.get(_FACT_REVISION, b"1"))
        users = [User.FromString(value) for name, value in facts.items() if name.startswith(_FACT_USER)]
        roles = [Role.FromString(value) for name, value in facts.items() if name.startswith(_FACT_ROLE)]
        self.users: dict[str, User] = {user.name.decode(): user for user in users}
        self.roles: dict[str, Role] = {role.name.decode(): role for role in roles}
        # What each user may read and write; forgotten on every change.
        self._allowed: dict[str, tuple[Ranges, Ranges]] = {}

    # -- on and off ----------------------------------------------------------------------------------------------

    def enable(self) -> None:
        """Ask everybody for a name from now on. Raises RootUserMissing or RootRoleMissing."""
        if self.enabled:
            return
        if ROOT not in self.users:
            raise RootUserMissing("create the user root first")
        if not self._is_root(ROOT):
            raise RootRoleMissing("grant the role root to the user root first")
        self.enabled = True
        self._backend.set_fact(_FACT_ENABLED, b"1")

    def disable(self) -> None:
        """Let everybody in."""
        if self.enabled:
            self.enabled = False
            self._backend.set_fact(_FACT_ENABLED, b"")
            self._changed()

    # -- users ---------------------------------------------------------------------------------------------------

    def add_user(self, name: str, password: bytes, no_password: bool) -> None:
        """Add a user with a password hash, or one that only a certificate can prove. Raises UserEmpty, UserExists."""
        if not name:
            raise UserEmpty("a user needs a name")
        if name in self.users:
            raise UserExists(f"the user {name} exists")
        user = User(name=name.encode(), password=b"" if no_password else password)
        user.options.no_password = no_password
        self._save_user(user)

    def delete_user(self, name: str) -> None:
        """Raises InvalidAuthManagement for root while authentication is on, UserNotFound."""
        if self.enabled and name == ROOT:
            raise InvalidAuthManagement("root cannot be deleted while authentication is on")
        self.user(name)
        del self.users[name]
        self._backend.set_fact(_user_fact(name), b"")
        self._changed()

    def change_password(self, name: str, password: bytes) -> None:
        """Set a password hash; a user without password keeps having none. Raises UserNotFound."""
        user = self._copy_of(name)
        if not user.options.no_password:
            user.password = password
        self._save_user(user)

    def grant_role(self, name: str, role: str) -> None:
        """Give a role; granting it again changes nothing. Raises UserNotFound, RoleNotFound."""
        user = self._copy_of(name)
        if role != ROOT:
            self.role(role)
        if role not in user.roles:
            user.roles[:] = sorted([*user.roles, role])
            self._save_user(user)

    def revoke_role(self, name: str, role: str) -> None:
        """Take a role away. Raises InvalidAuthManagement, UserNotFound, RoleNotGranted."""
        if self.enabled and name == role == ROOT:
            raise InvalidAuthManagement("root cannot lose its role while authentication is on")
        user = self._copy_of(name)
        if role not in user.roles:
            raise RoleNotGranted(f"the user {name} does not have the role {role}")
        user.roles.remove(role)
        self._save_user(user)

    def user(self, name: str) -> User:
        """The user. Raises UserNotFound."""
        if name not in self.users:
            raise UserNotFound(f"there is no user {name}")
        return self.users[name]

    def _copy_of(self, name: str) -> User:
        user = User()
        user.CopyFrom(self.user(name))
        return user

    def _save_user(self, user: User) -> None:
        name = user.name.decode()
        self.users[name] = user
        self._backend.set_fact(_user_fact(name), user.SerializeToString())
        self._changed()

    # -- roles ---------------------------------------------------------------------------------------------------

    def add_role(self, name: str) -> None:
        """Add a role without permissions. Raises RoleEmpty, RoleExists."""
        if not name:
            raise RoleEmpty("a role needs a name")
        if name in self.roles:
            raise RoleExists(f"the role {name} exists")
        self._save_role(Role(name=name.encode()))

    def delete_role(self, name: str) -> None:
        """Remove a role, from its users too. Raises InvalidAuthManagement, RoleNotFound."""
        if self.enabled and name == ROOT:
            raise InvalidAuthManagement("the role root cannot be deleted while authentication is on")
        self.role(name)
        del self.roles[name]
        self._backend.set_fact(_role_fact(name), b"")
        for user in self.users.values():
            if name in user.roles:
                user.roles.remove(name)
                self._backend.set_fact(_user_fact(user.name.decode()), user.SerializeToString())
        self._changed()

    def grant_permission(self, name: str, permission: Permission | None) -> None:
        """Add a permission, or replace the one of the same range.

        Raises PermissionNotGiven, InvalidAuthManagement for an empty range, RoleNotFound.
        """
        if permission is None:
            raise PermissionNotGiven("name a permission")
        start, end = interval(permission.key, permission.range_end)
        if not start or (end is not None and end <= start):
            raise InvalidAuthManagement("a permission needs a key, and a range end above it")
        role = self._copy_of_role(name)
        others = [kept for kept in role.keyPermission if _range_of(kept) != _range_of(permission)]
        role.ClearField("keyPermission")
        role.keyPermission.extend(sorted([*others, permission], key=lambda kept: kept.key))
        self._save_role(role)

    def revoke_permission(self, name: str, key: bytes, range_end: bytes) -> None:
        """Remove the permission of exactly this range. Raises RoleNotFound, PermissionNotGranted."""
        role = self._copy_of_role(name)
        others = [kept for kept in role.keyPermission if _range_of(kept) != (key, range_end)]
        if len(others) == len(role.keyPermission):
            raise PermissionNotGranted(f"the role {name} has no permission of this range")
        role.ClearField("keyPermission")
        role.keyPermission.extend(others)
        self._save_role(role)

    def role(self, name: str) -> Role:
        """The role. Raises RoleNotFound."""
        if name not in self.roles:
            raise RoleNotFound(f"there is no role {name}")
        return self.roles[name]

    def permissions(self, name: str) -> list[Permission]:
        """A role's permissions; the role root has all. Raises RoleNotFound."""
        return [_EVERYTHING] if self.role(name).name == ROOT.encode() else list(self.role(name).keyPermission)

    def _copy_of_role(self, name: str) -> Role:
        role = Role()
        role.CopyFrom(self.role(name))
        return role

    def _save_role(self, role: Role) -> None:
        name = role.name.decode()
        self.roles[name] = role
        self._backend.set_fact(_role_fact(name), role.SerializeToString())
        self._changed()

    # -- questions -----------------------------------------------------------------------------------------------

    def check_enabled(self) -> None:
        """Raise AuthNotEnabled."""
        if not self.enabled:
            raise AuthNotEnabled("authentication is not enabled")

    def check_known(self, who: Identity) -> None:
        """Raise UserEmpty for a nameless client while authentication is on."""
        if self.enabled and not who.user:
            raise UserEmpty("authentication is on: log in")

    def check_admin(self, who: Identity) -> None:
        """Raise UserEmpty or PermissionDenied unless ``who`` may do everything."""
        self.check_known(who)
        if self.enabled and not self._is_root(who.user):
            raise PermissionDenied(f"the user {who.user} does not have the role root")

    def check_read(self, who: Identity, key: bytes, range_end: bytes = b"") -> None:
        """Raise UserEmpty, OldAuthRevision or PermissionDenied unless ``who`` may read the range."""
        self._check(who, interval(key, range_end), 0)

    def check_write(self, who: Identity, key: bytes, range_end: bytes = b"") -> None:
        """As ``check_read``, for writing."""
        self._check(who, interval(key, range_end), 1)

    def has_role(self, user: str, role: str) -> bool:
        """Whether the user exists and has the role."""
        return user in self.users and role in self.users[user].roles

    def _is_root(self, user: str) -> bool:
        return self.has_role(user, ROOT)

    def _check(self, who: Identity, wanted: Interval, way: int) -> None:
        if not self.enabled:
            return
        self.check_known(who)
        if who.revision < self.revision:
            raise OldAuthRevision(f"recognised at auth revision {who.revision}, it is {self.revision} now")
        if not self._is_root(who.user) and not self._ranges(who.user)[way].cover(wanted):
            raise PermissionDenied(f"the user {who.user} may not do that with these keys")

    def _ranges(self, user: str) -> tuple[Ranges, Ranges]:
        if user not in self._allowed:
            roles = self.users[user].roles if user in self.users else ()
            permissions = [p for role in roles if role in self.roles for p in self.roles[role].keyPermission]
            self._allowed[user] = _union(permissions, Permission.READ), _union(permissions, Permission.WRITE)
        return self._allowed[user]

    def _changed(self) -> None:
        self.revision += 1
        self._backend.set_fact(_FACT_REVISION, b"%d" % self.revision)
        self._allowed.clear()


def _union(permissions: Iterable[Permission], way: int) -> Ranges:
    return Ranges(interval(*_range_of(p)) for p in permissions if p.permType in (way, Permission.READWRITE))


def _range_of(permission: Permission) -> tuple[bytes, bytes]:
    return permission.key, permission.range_end


def _user_fact(name: str) -> bytes:
    return _FACT_USER + _digest(name)


def _role_fact(name: str) -> bytes:
    return _FACT_ROLE + _digest(name)


def _digest(name: str) -> bytes:
    """A name of any length in the few bytes that a database key may have."""
    return hashlib.sha256(name.encode()).digest()
