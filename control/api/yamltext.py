"""YAML text to plain data and back. On its own, so that a process which reads no YAML does not load the library."""

import re
from typing import Any

import yaml

from control.api.decode import DecodeError
from control.api.scalars import JSON

_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_Dumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
TIMESTAMP, INTEGER = "tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:int"


class Loader(_Base):
    """YAML as Kubernetes reads it: times stay text, ``1:30`` is not ninety, a key may not come twice."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        """See yaml; raises DecodeError naming a duplicate key and its line."""
        seen = set()
        for key_node, _ in node.value:
            key = key_node.value
            if key in seen and key != "<<":
                raise DecodeError([(str(key), f"duplicate field (line {key_node.start_mark.line + 1})")])
            seen.add(key)
        return super().construct_mapping(node, deep)


def _plain(resolvers: list[tuple[str, Any]]) -> list[tuple[str, Any]]:
    return [pair for pair in resolvers if pair[0] not in (TIMESTAMP, INTEGER)]


def _use_plain_resolvers() -> None:
    Loader.yaml_implicit_resolvers = {key: _plain(value) for key, value in _Base.yaml_implicit_resolvers.items()}
    decimal = re.compile(r"[-+]?0b[01_]+|[-+]?0o?[0-7_]+|[-+]?(?:0|[1-9][0-9_]*)|[-+]?0x[0-9a-fA-F_]+")
    Loader.add_implicit_resolver(INTEGER, re.compile(f"^(?:{decimal.pattern})$"), list("-+0123456789"))


_use_plain_resolvers()


def load(text: str) -> list[JSON]:
    """The documents of YAML (or JSON) text, empty ones left out. Raises DecodeError with the line."""
    try:
        return [data for data in yaml.load_all(text, Loader=Loader) if data is not None]
    except yaml.YAMLError as err:
        raise DecodeError([("", f"not YAML: {' '.join(str(err).split())}")]) from err


def dump(data: JSON) -> str:
    """YAML text, members in their order."""
    text: str = yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=False)
    return text
