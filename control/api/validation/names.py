"""The forms of names. Each function gives the sentences that tell what is wrong; none when the name is good.

Source: apimachinery, util/validation/validation.go; RFC 1035, RFC 1123.
"""

import ipaddress
import re

LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
DNS_LABEL = re.compile(LABEL)
DNS_SUBDOMAIN = re.compile(rf"{LABEL}(\.{LABEL})*")
DNS_1035 = re.compile("[a-z]([-a-z0-9]*[a-z0-9])?")
QUALIFIED = re.compile("([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]")
ENV_NAME = re.compile(r"[^=\x00-\x1f\x7f-\U0010ffff]+")
CONFIG_KEY = re.compile(r"[-._a-zA-Z0-9]+")
PORT_NAME = re.compile("[a-z0-9]([a-z0-9]|-(?=[a-z0-9]))*")
PATH_SEGMENT = re.compile(r"[^/%]+")

NOT_LABEL = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with "
    "an alphanumeric character (e.g. 'my-name',  or '123-abc')"
)
NOT_SUBDOMAIN = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and "
    "end with an alphanumeric character (e.g. 'example.com')"
)
NOT_1035 = (
    "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, "
    "and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123')"
)
NOT_QUALIFIED = (
    "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric "
    "character (e.g. 'MyName',  or 'my.name',  or '123-abc')"
)
NOT_LABEL_VALUE = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and "
    "end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345')"
)


def too_long(limit: int) -> str:
    """The sentence for text over ``limit`` characters."""
    return f"must be no more than {limit} characters"


def _checked(text: str, pattern: re.Pattern[str], limit: int, sentence: str) -> list[str]:
    problems = [too_long(limit)] if len(text) > limit else []
    return problems if pattern.fullmatch(text) else [*problems, sentence]


def dns_label(text: str) -> list[str]:
    """RFC 1123 label: namespaces, containers, volumes."""
    return _checked(text, DNS_LABEL, 63, NOT_LABEL)


def dns_subdomain(text: str) -> list[str]:
    """RFC 1123 subdomain: most objects."""
    return _checked(text, DNS_SUBDOMAIN, 253, NOT_SUBDOMAIN)


def dns_1035(text: str) -> list[str]:
    """DNS-1035 label: services."""
    return _checked(text, DNS_1035, 63, NOT_1035)


def path_segment(text: str) -> list[str]:
    """A name that may stand in a URL path: RBAC objects."""
    if text in (".", ".."):
        return [f"may not be '{text}'"]
    return [] if PATH_SEGMENT.fullmatch(text) else ["may not contain '/' or '%'"]


def qualified(text: str) -> list[str]:
    """``[prefix/]name``: label and annotation keys, resource names, finalizers."""
    prefix, slash, name = text.rpartition("/")
    problems = []
    if slash and (not prefix or "/" in prefix):
        return [f"a qualified name has at most one '/', with a DNS subdomain before it; got {text!r}"]
    if slash:
        problems += [f"prefix part {problem}" for problem in dns_subdomain(prefix)]
    if not name:
        return [*problems, "name part must be non-empty"]
    return problems + [
        problem if problem == NOT_QUALIFIED else f"name part {problem}"
        for problem in _checked(name, QUALIFIED, 63, NOT_QUALIFIED)
    ]


def label_value(text: str) -> list[str]:
    """The value of a label."""
    problems = [too_long(63)] if len(text) > 63 else []
    return problems if not text or QUALIFIED.fullmatch(text) else [*problems, NOT_LABEL_VALUE]


def port_name(text: str) -> list[str]:
    """An IANA service name: a named container port."""
    problems = [too_long(15)] if len(text) > 15 else []
    if not PORT_NAME.fullmatch(text):
        problems.append("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-), no two in a row")
    if not re.search("[a-z]", text):
        problems.append("must contain at least one letter (a-z)")
    return problems


def env_name(text: str) -> list[str]:
    """The name of an environment variable: printable ASCII without '='."""
    good = ENV_NAME.fullmatch(text)
    return [] if good else ["a valid environment variable name must consist only of printable ASCII without '='"]


def config_key(text: str) -> list[str]:
    """A key of a ConfigMap or Secret, also a file name."""
    if text in (".", "..") or text.startswith(".."):
        return ["must not be '.', '..' or start with '..'"]
    sentence = "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name')"
    return _checked(text, CONFIG_KEY, 253, sentence)


def port(number: int) -> list[str]:
    """A TCP, UDP or SCTP port."""
    return [] if 1 <= number <= 65535 else ["must be between 1 and 65535, inclusive"]


def ip(text: str) -> list[str]:
    """An IP address."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return ["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"]
    return []
