"""docker's flags, from text to values. Pure, but for the environment and files that the user names. Raises CtlError."""

import os
import re
import signal
from collections.abc import Iterable, Mapping
from decimal import Decimal, InvalidOperation
from pathlib import Path

from ctl.container.spec import PROTOCOLS, Mount, Port
from ctl.errors import fail

UNITS = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
MEMORY_MIN = 6 << 20
PROPAGATIONS = ("private", "rprivate", "shared", "rshared", "slave", "rslave")


def parse_ports(texts: Iterable[str]) -> list[Port]:
    """``[[IP:]HOST:]CONTAINER[/PROTOCOL]`` each; HOST and CONTAINER may be ranges of one length. Host port 0: any."""
    return [port for text in texts for port in _ports(text)]


def _ports(text: str) -> list[Port]:
    address, slash, protocol = text.partition("/")
    if protocol not in PROTOCOLS and slash:
        fail(f"invalid publish spec {text}: unknown protocol {protocol}: use tcp, udp or sctp")
    if "[" in address or address.count(":") > 2:
        fail(f"invalid publish spec {text}: only IPv4 addresses can be published on")
    *host, inside = address.split(":")
    ip, outside = (host[0], host[1]) if len(host) == 2 else ("", host[0] if host else "")
    if ip and not re.fullmatch(r"(\d{1,3}\.){3}\d{1,3}", ip):
        fail(f"invalid publish spec {text}: {ip} is no IPv4 address")
    container_ports, host_ports = _range(inside, text), _range(outside, text) if outside else []
    if host_ports and len(host_ports) != len(container_ports):
        fail(f"invalid publish spec {text}: the ranges of ports differ in length")
    pairs = zip(container_ports, host_ports or [0] * len(container_ports), strict=True)
    return [Port(inner, outer, ip, protocol or "tcp") for inner, outer in pairs]


def _range(text: str, whole: str) -> list[int]:
    first, _, last = text.partition("-")
    if not (first.isdigit() and (last or first).isdigit()):
        fail(f"invalid publish spec {whole}: {text!r} is no port")
    ports = list(range(int(first), int(last or first) + 1))
    if not ports or ports[0] < 0 or ports[-1] > 65535 or (ports[0] == 0 and len(ports) > 1):
        fail(f"invalid publish spec {whole}: ports are 1 to 65535, ranges ascend")
    return ports


def parse_size(text: str, flag: str) -> int:
    """``512m``, ``1.5g``, ``1073741824`` as bytes."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([bkmgt]?)(?:i?b)?", text.lower())
    if not match:
        fail(f'invalid argument "{text}" for "{flag}": a size such as 512m is expected')
    return int(float(match[1]) * UNITS[match[2]])


def parse_memory(text: str) -> int:
    """``--memory``; docker's minimum is 6 MB. Empty is no limit."""
    size = parse_size(text, "--memory") if text else 0
    if 0 < size < MEMORY_MIN:
        fail("Minimum memory limit allowed is 6MB")
    return size


def parse_swap(text: str, memory: int) -> int:
    """``--memory-swap``: memory and swap together; -1 is no limit of swap, which is also what leaving it out means."""
    if text in ("", "-1"):
        return 0
    size = parse_size(text, "--memory-swap")
    if not memory or size < memory:
        fail("Minimum memoryswap limit should be larger than memory limit, see usage: --memory-swap needs --memory")
    return size


def parse_cpus(text: str) -> int:
    """``--cpus`` in billionths of a CPU; empty is no limit."""
    try:
        cpus = Decimal(text or 0)
    except InvalidOperation:
        fail(f'invalid argument "{text}" for "--cpus": a number such as 1.5 is expected')
    if not cpus.is_finite() or cpus < 0 or 0 < cpus < Decimal("0.01"):
        fail(f"--cpus {text}: at least 0.01 of a CPU, or 0 for no limit")
    return int(cpus * 1_000_000_000)


def parse_env(texts: Iterable[str], files: Iterable[Path], environment: Mapping[str, str] = os.environ) -> list[str]:
    """``NAME=VALUE`` of all files, then of the flags; a bare NAME takes our own value, if there is one."""
    found: dict[str, str] = {}
    for text in [*(line for file in files for line in _env_lines(file)), *texts]:
        name, equals, value = text.partition("=")
        if not name or (not equals and name.split() != [name]):
            fail(f"invalid environment variable: {text!r}: NAME=VALUE is expected")
        if equals:
            found[name] = value
        elif name in environment:
            found[name] = environment[name]
    return [f"{name}={value}" for name, value in found.items()]


def _env_lines(file: Path) -> list[str]:
    try:
        lines = file.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as err:
        fail(f"--env-file {file}: {err}")
    return [line.lstrip() for line in lines if line.strip() and not line.lstrip().startswith("#")]


def parse_pairs(texts: Iterable[str], flag: str) -> dict[str, str]:
    """``NAME=VALUE`` or ``NAME`` each."""
    pairs = [text.partition("=") for text in texts]
    if any(not name for name, _, _ in pairs):
        fail(f"{flag}: a name is missing before =")
    return {name: value for name, _, value in pairs}


def parse_volume(text: str, volumes: Path) -> Mount:
    """``[SOURCE:]TARGET[:OPTIONS]``: SOURCE is a path of the host, made when it is missing, or a volume's name; without
    one the volume is nameless (its caller names it)."""
    parts = text.split(":")
    if len(parts) > 3 or not all(parts):
        fail(f"invalid spec: {text}: [SOURCE:]TARGET[:ro] is expected")
    source, target, options = parts[0] if len(parts) > 1 else "", parts[1] if len(parts) > 1 else parts[0], ""
    if len(parts) == 3:
        options = parts[2]
    words = [word for word in options.split(",") if word]
    for word in words:
        if word not in ("ro", "rw", "z", "Z", "nocopy", "cached", "delegated", "consistent", *PROPAGATIONS):
            fail(f"invalid spec: {text}: unknown option {word}")
    propagation = next((word for word in words if word in PROPAGATIONS), "rprivate")
    if source.startswith((".", "~")):
        source = str(Path(source).expanduser().absolute())
    _check_target(target, text)
    if source.startswith("/"):
        return Mount("bind", target, source, "ro" in words, propagation=propagation)
    place = str(volumes / source / "_data") if source else ""
    return Mount("volume", target, place, "ro" in words, _volume_name(source))


def _volume_name(name: str) -> str:
    if name and not re.fullmatch(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*", name):
        fail(f"{name!r} is neither an absolute path nor a volume's name (letters, digits, _ . -)")
    return name


def _check_target(target: str, text: str) -> None:
    if not target.startswith("/") or os.path.normpath(target) == "/":
        fail(f"invalid mount {text}: the target must be an absolute path in the container, and not /")


def parse_mount(text: str, volumes: Path) -> Mount:
    """``type=bind|volume|tmpfs,source=...,target=...[,readonly]``: the long form of the other two flags."""
    words = {key.strip().lower(): value for key, _, value in (word.partition("=") for word in text.split(","))}
    kind = words.pop("type", "volume")
    target = _first(words, "target", "destination", "dst")
    source = _first(words, "source", "src")
    readonly = _flag(words, "readonly") or _flag(words, "ro")
    propagation = words.pop("bind-propagation", "rprivate")
    options = _tmpfs_options(words)
    if kind not in ("bind", "volume", "tmpfs"):
        fail(f"--mount {text}: type {kind} is not supported: use bind, volume or tmpfs")
    if words:
        fail(f"--mount {text}: unknown option {next(iter(words))}")
    if propagation not in PROPAGATIONS:
        fail(f"--mount {text}: unknown propagation {propagation}")
    _check_target(target, text)
    if kind == "tmpfs":
        return Mount("tmpfs", target, readonly=readonly, options=options)
    if kind == "volume":
        path = str(volumes / source / "_data") if source else ""
        return Mount("volume", target, path, readonly, _volume_name(source))
    if not source.startswith("/") or not Path(source).exists():
        fail(f'invalid mount config for type "bind": bind source path does not exist: {source}')
    return Mount("bind", target, source, readonly, propagation=propagation)


def _first(words: dict[str, str], *names: str) -> str:
    return next((words.pop(name) for name in names if name in words), "")


def _flag(words: dict[str, str], name: str) -> bool:
    return words.pop(name, "false") in ("", "true", "1")


def _tmpfs_options(words: dict[str, str]) -> str:
    names = {"tmpfs-size": "size", "tmpfs-mode": "mode"}
    return ",".join(f"{short}={words.pop(name)}" for name, short in names.items() if name in words)


def parse_tmpfs(text: str) -> Mount:
    """``TARGET[:OPTIONS]``."""
    target, _, options = text.partition(":")
    _check_target(target, text)
    return Mount("tmpfs", target, options=options, readonly="ro" in options.split(","))


def parse_device(text: str) -> list[str]:
    """``HOST[:CONTAINER[:rwm]]``."""
    host, _, rest = text.partition(":")
    inside, _, permissions = rest.partition(":")
    if set(inside) <= set("rwm") and inside and not permissions:
        inside, permissions = "", inside
    if not set(permissions) <= set("rwm"):
        fail(f"invalid device {text}: permissions are of r, w and m")
    return [host, inside or host, permissions or "rwm"]


def parse_security(texts: Iterable[str]) -> tuple[bool, str]:
    """``--security-opt``: (no new privileges, seccomp: default, unconfined or a file)."""
    no_new, seccomp = False, "default"
    for text in texts:
        key, _, value = text.replace(":", "=", 1).partition("=")
        if key == "no-new-privileges":
            no_new = value in ("", "true")
        elif key == "seccomp" and value:
            seccomp = (
                value if value == "unconfined" else "default" if value == "builtin" else str(Path(value).absolute())
            )
        elif text != "label=disable":
            fail(f"--security-opt {text} is not supported: use no-new-privileges or seccomp=unconfined|FILE")
    return no_new, seccomp


def parse_user(text: str) -> str:
    """``USER[:GROUP]``; the group is a number, as CRI has it."""
    group = text.partition(":")[2]
    if group and not group.isdigit():
        fail(f"--user {text}: the group must be a number: CRI has no group names")
    return text


def parse_signal(text: str) -> int:
    """``KILL``, ``SIGKILL``, ``9``, ``RTMIN+3`` as a number."""
    name = text.upper().removeprefix("SIG")
    if name.isdigit() and 0 < int(name) <= signal.SIGRTMAX:
        return int(name)
    for base, start, step in (("RTMIN+", signal.SIGRTMIN, 1), ("RTMAX-", signal.SIGRTMAX, -1)):
        if name.startswith(base) and name.removeprefix(base).isdigit():
            return start + step * int(name.removeprefix(base))
    number = getattr(signal, f"SIG{name}", None)
    if not isinstance(number, signal.Signals):
        fail(f"invalid signal: {text}")
    return int(number)


def signal_name(number: int) -> str:
    """CRI's name of a signal, without SIGNAL_."""
    if number > signal.SIGRTMIN:
        middle = (signal.SIGRTMIN + signal.SIGRTMAX) // 2
        near_min = number <= middle
        return f"SIGRTMINPLUS{number - signal.SIGRTMIN}" if near_min else _near_max(number)
    return "SIGRTMIN" if number == signal.SIGRTMIN else signal.Signals(number).name


def _near_max(number: int) -> str:
    return "SIGRTMAX" if number == signal.SIGRTMAX else f"SIGRTMAXMINUS{signal.SIGRTMAX - number}"


def parse_detach_keys(text: str) -> bytes:
    """``ctrl-p,ctrl-q`` as the bytes that a terminal sends."""
    found = b""
    for key in text.split(",") if text else ():
        if len(key) == 1:
            found += key.encode()
        elif match := re.fullmatch(r"ctrl-([a-z@\[\\\]^_])", key):
            found += bytes([ord(match[1].upper()) & 0x1F])
        else:
            fail(f"invalid detach keys: {key!r} is neither a character nor ctrl- and one of a-z @ [ \\ ] ^ _")
    return found
