"""ConfigMaps and Secrets: their entries, those of secrets by size only."""

from collections.abc import Sequence
from typing import Any

from ctl.describe.parts import Lines, events, head


def describe_config_map(config: Any, found_events: Sequence[Any] | None, now_s: float) -> Lines:
    """Every entry, as it is."""
    lines = [*head(config), "", "Data", "===="]
    for key in sorted(config.data):
        lines += [f"{key}:", "----", *config.data[key].split("\n"), ""]
    lines += ["", "BinaryData", "===="]
    lines += [f"{key}: {len(config.binaryData[key])} bytes" for key in sorted(config.binaryData)]
    return [*lines, "", *events(found_events, now_s)]


def describe_secret(secret: Any, found_events: Sequence[Any] | None, now_s: float) -> Lines:
    """Type, and the size of each entry."""
    lines = [*head(secret), "", f"Type:\t{secret.type}", "", "Data", "===="]
    return lines + [f"{key}:\t{len(secret.data[key])} bytes" for key in sorted(secret.data)]
