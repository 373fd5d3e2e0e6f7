"""What can go wrong between a client and the store. Knows no gRPC; ``server/errors.py`` maps each class to the wire.

::

    EtcdError
    ├── InvalidRequest              the caller must change the request
    │   ├── EmptyKey  KeyNotFound  ValueProvided  LeaseProvided
    │   ├── TooManyOps  DuplicateKey  InvalidSortOption  TooLarge
    │   ├── UserEmpty  RoleEmpty  AuthFailed  PermissionNotGiven  InvalidAuthManagement  OldAuthRevision
    │   ├── InvalidDowngradeTarget  DowngradeTargetFormat
    ├── OutOfRange
    │   ├── Compacted  FutureRevision  LeaseTTLTooLarge
    ├── ResourceExhausted
    │   ├── NoSpace  TooManyRequests
    ├── NotFound
    │   ├── LeaseNotFound  MemberNotFound
    ├── FailedPrecondition
    │   ├── LeaseExists  AuthNotEnabled  NotLeader  LearnerOnly  BadLeaderTransferee  NoDowngrade
    │   ├── RootUserMissing  RootRoleMissing  UserExists  UserNotFound
    │   ├── RoleExists  RoleNotFound  RoleNotGranted  PermissionNotGranted
    ├── PermissionDenied  Unauthenticated  Corrupt  Unimplemented  WatchCanceled
    ├── NoPasswordUser  CannotSign  NotElected  NoElection  SessionExpired  MissingLeader      UNKNOWN on the wire
    └── Unavailable                 try again, perhaps elsewhere; a write may or may not have happened
        ├── NoLeader  LeaderChanged  Stopped  RequestTimeout

``StorageError`` is apart: the member's own disk is wrong and the process must stop. ``InvariantBroken`` is a bug.
"""


class EtcdError(Exception):
    """Anything the store refuses or fails to do. ``str(err)`` is the sentence a user reads."""


class InvalidRequest(EtcdError):
    """The request can never succeed as it is."""


class EmptyKey(InvalidRequest):
    """A key is required and missing."""


class KeyNotFound(InvalidRequest):
    """``ignore_value`` or ``ignore_lease`` on a missing key, or an empty operation in a transaction."""


class ValueProvided(InvalidRequest):
    """``ignore_value`` together with a value."""


class LeaseProvided(InvalidRequest):
    """``ignore_lease`` together with a lease."""


class TooManyOps(InvalidRequest):
    """A transaction has more compares or operations than the limit."""


class DuplicateKey(InvalidRequest):
    """A transaction writes a key twice."""


class InvalidSortOption(InvalidRequest):
    """Unknown sort order or target."""


class TooLarge(InvalidRequest):
    """The request is bigger than the store accepts."""


class UserEmpty(InvalidRequest):
    """Authentication is on and the client did not say who it is, or a user without a name was asked for."""


class RoleEmpty(InvalidRequest):
    """A role needs a name."""


class AuthFailed(InvalidRequest):
    """Wrong user or password."""


class PermissionNotGiven(InvalidRequest):
    """A grant without a permission."""


class InvalidAuthManagement(InvalidRequest):
    """It would lock everybody out, or makes no sense."""


class OldAuthRevision(InvalidRequest):
    """Users or roles changed since the client logged in: log in again."""


class DowngradeTargetFormat(InvalidRequest):
    """A downgrade target is not MAJOR.MINOR."""


class InvalidDowngradeTarget(InvalidRequest):
    """A downgrade goes down exactly one minor version."""


class OutOfRange(EtcdError):
    """A number in the request lies outside what the store has."""


class Compacted(OutOfRange):
    """The revision is older than the last compaction: list again, then watch from the new revision.

    ``compact_revision`` is the compaction's revision where known, else 0.
    """

    def __init__(self, message: str = "", compact_revision: int = 0) -> None:
        super().__init__(message or "the required revision has been compacted")
        self.compact_revision = compact_revision


class FutureRevision(OutOfRange):
    """The revision has not been reached yet."""


class LeaseTTLTooLarge(OutOfRange):
    """A lease may not live longer than 9,000,000,000 seconds."""


class ResourceExhausted(EtcdError):
    """The store is full or overloaded."""


class NoSpace(ResourceExhausted):
    """The space quota is exceeded: compact, delete, then disarm the alarm."""


class TooManyRequests(ResourceExhausted):
    """Too many requests wait already; try again later."""


class NotFound(EtcdError):
    """The named thing does not exist."""


class LeaseNotFound(NotFound):
    """No lease with this id: never granted, revoked or expired."""


class MemberNotFound(NotFound):
    """No member with this id."""


class FailedPrecondition(EtcdError):
    """Not in the current state of the store."""


class LeaseExists(FailedPrecondition):
    """The lease id asked for is taken."""


class AuthNotEnabled(FailedPrecondition):
    """Authentication is off; go on without a token."""


class NotLeader(FailedPrecondition):
    """Only the leader does this."""


class LearnerOnly(FailedPrecondition):
    """A learner does not serve this."""


class BadLeaderTransferee(FailedPrecondition):
    """Leadership cannot go to that member."""


class NoDowngrade(FailedPrecondition):
    """No downgrade is under way."""


class RootUserMissing(FailedPrecondition):
    """Authentication needs the user root."""


class RootRoleMissing(FailedPrecondition):
    """Authentication needs the user root to have the role root."""


class UserExists(FailedPrecondition):
    """The user name is taken."""


class UserNotFound(FailedPrecondition):
    """There is no such user."""


class RoleExists(FailedPrecondition):
    """The role name is taken."""


class RoleNotFound(FailedPrecondition):
    """There is no such role."""


class RoleNotGranted(FailedPrecondition):
    """The user does not have the role."""


class PermissionNotGranted(FailedPrecondition):
    """The role does not have the permission."""


class PermissionDenied(EtcdError):
    """The user may not do this."""


class Unauthenticated(EtcdError):
    """The token is unknown or too old."""


class Corrupt(EtcdError):
    """Members disagree about the data; the cluster refuses writes."""


class Unimplemented(EtcdError):
    """The server does not have this rpc."""


class WatchCanceled(EtcdError):
    """The server ended a watch for the reason in the message."""


class NoPasswordUser(EtcdError):
    """The user has no password; only its certificate proves it."""


class CannotSign(EtcdError):
    """This member has only the public key of the tokens."""


class NotElected(EtcdError):
    """The caller leads no more."""


class NoElection(EtcdError):
    """Nobody leads."""


class MissingLeader(EtcdError):
    """The request does not say on whose behalf."""


class SessionExpired(EtcdError):
    """The lease of the waiting client ended."""


class Unavailable(EtcdError):
    """The store cannot answer now. A read may simply be repeated; a write may or may not have been applied."""


class NoLeader(Unavailable):
    """The member knows no leader."""


class LeaderChanged(Unavailable):
    """Leadership moved while the request was under way."""


class Stopped(Unavailable):
    """The member is shutting down."""


class RequestTimeout(Unavailable):
    """No answer in time."""


class StorageError(OSError):
    """The member's own files are unusable. The message names the file and what to do; the process stops."""


class DiskFull(StorageError):
    """There is no room. Nothing of the operation counts; it may be repeated when there is."""


class InvariantBroken(BaseException):
    """A bug: the program's own promise does not hold. Not to be handled; the process stops before doing damage."""


def check(holds: bool, promise: str, **facts: object) -> None:
    """Raise InvariantBroken unless ``holds``. Unlike ``assert`` it stays under ``-O``."""
    if not holds:
        details = ", ".join(f"{name}={value!r}" for name, value in facts.items())
        raise InvariantBroken(f"{promise} ({details})" if details else promise)
