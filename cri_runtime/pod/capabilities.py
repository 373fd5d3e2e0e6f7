"""Pure: capability names and sets."""

from collections.abc import Iterable

from cri_runtime.linux.constants import CAPABILITIES
from cri_runtime.pod.errors import InvalidConfig

DEFAULT = frozenset(
    (
        *("AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD"),
        *("NET_BIND_SERVICE", "NET_RAW", "SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT"),
    )
)
"""What a container has unless it is told otherwise; as in containerd."""

ALL = frozenset(CAPABILITIES)


def mask(names: Iterable[str]) -> int:
    """The bit mask of capability names."""
    return sum(1 << CAPABILITIES.index(name) for name in set(names))


def parse(names: Iterable[str], field: str) -> frozenset[str]:
    """Names with or without ``CAP_``, in any case; ``ALL`` is every one. Raises InvalidConfig."""
    found: set[str] = set()
    for given in names:
        name = given.upper().removeprefix("CAP_")
        if name == "ALL":
            found |= ALL
        elif name in ALL:
            found.add(name)
        else:
            raise InvalidConfig(field, f'there is no capability "{given}"')
    return frozenset(found)


def effective(add: Iterable[str], drop: Iterable[str], field: str) -> frozenset[str]:
    """The default set, changed: ``ALL`` on either side is applied first, single names win over it."""
    adds, drops = [name.upper() for name in add], [name.upper() for name in drop]
    result = set(DEFAULT)
    if "ALL" in adds:
        result = set(ALL)
    if "ALL" in drops:
        result = set()
    result |= parse([name for name in adds if name != "ALL"], f"{field}.add_capabilities")
    result -= parse([name for name in drops if name != "ALL"], f"{field}.drop_capabilities")
    return frozenset(result)
