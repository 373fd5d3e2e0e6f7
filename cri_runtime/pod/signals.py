"""Pure: signals by CRI's enum and by the names images use."""

import signal

from cri_runtime.pod.errors import InvalidConfig
from protos.cri import runtime_pb2 as cri

_ALIASES = {"SIGCLD": 17, "SIGIOT": 6, "SIGPOLL": 29}


def number_of(name: str) -> int:
    """The number of ``SIGTERM``, ``TERM``, ``SIGRTMIN+3`` or ``15``. Raises InvalidConfig."""
    text = name.upper()
    if text.isdigit() and 0 < int(text) <= signal.SIGRTMAX:
        return int(text)
    text = text if text.startswith("SIG") else f"SIG{text}"
    for base, sign in (("SIGRTMIN+", 1), ("SIGRTMAX-", -1)):
        if text.startswith(base) and text.removeprefix(base).isdigit():
            return getattr(signal, base[:-1]) + sign * int(text.removeprefix(base))
    number = _ALIASES.get(text) or getattr(signal, text, None)
    if not isinstance(number, int) or text.startswith("SIG_"):
        raise InvalidConfig("stop_signal", f'there is no signal "{name}"')
    return int(number)


def from_cri(value: int) -> int:
    """The number of a CRI ``Signal``; 0 for the runtime's default."""
    if value == cri.SIGNAL_RUNTIME_DEFAULT:
        return 0
    name = cri.Signal.Name(value).removeprefix("SIGNAL_")
    return number_of(name.replace("PLUS", "+").replace("MINUS", "-"))


def to_cri(number: int) -> int:
    """CRI's value for a signal number."""
    for value in cri.Signal.values():
        if from_cri(value) == number:
            return value
    return cri.SIGNAL_RUNTIME_DEFAULT


def effective(configured: int, image: str) -> int:
    """What StopContainer sends: the config's, else the image's, else SIGTERM."""
    if configured:
        return from_cri(configured)
    try:
        return number_of(image) if image else signal.SIGTERM
    except InvalidConfig:
        return signal.SIGTERM  # an image with a bad name still has to stop
