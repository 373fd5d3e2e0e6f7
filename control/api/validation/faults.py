"""The vocabulary of invalid: Required, Invalid, NotSupported, Duplicate, Forbidden, in Kubernetes' words.

A path is text: ``spec.containers[0].name``. Source: apimachinery, util/validation/field/errors.go.
"""

import json
from collections.abc import Iterable, Sequence
from typing import Any

from control.api.errors import Cause


class Faults:
    """Collects what is wrong; ``causes`` is the list so far."""

    def __init__(self) -> None:
        self.causes: list[Cause] = []

    def required(self, path: str, detail: str = "") -> None:
        """A value must be given and is not."""
        self._add("FieldValueRequired", path, f"Required value: {detail}" if detail else "Required value")

    def invalid(self, path: str, value: Any, detail: str) -> None:
        """The value breaks a rule."""
        self._add("FieldValueInvalid", path, f"Invalid value: {_shown(value)}: {detail}")

    def not_supported(self, path: str, value: Any, supported: Iterable[str]) -> None:
        """The value is none of those that exist."""
        known = ", ".join(f'"{item}"' for item in sorted(supported))
        self._add("FieldValueNotSupported", path, f"Unsupported value: {_shown(value)}: supported values: {known}")

    def duplicate(self, path: str, value: Any) -> None:
        """The value must be unique and comes twice."""
        self._add("FieldValueDuplicate", path, f"Duplicate value: {_shown(value)}")

    def forbidden(self, path: str, detail: str) -> None:
        """The field may not be set, or not be changed, here."""
        self._add("FieldValueForbidden", path, f"Forbidden: {detail}")

    def too_long(self, path: str, detail: str) -> None:
        """The value is too big."""
        self._add("FieldValueTooLong", path, f"Too long: {detail}")

    def each_invalid(self, path: str, value: Any, details: Iterable[str]) -> None:
        """One Invalid per detail."""
        for detail in details:
            self.invalid(path, value, detail)

    def one_of(self, path: str, value: str, supported: Sequence[str], required: bool = True) -> None:
        """Required when empty, NotSupported when not in ``supported``."""
        if not value:
            if required:
                self.required(path, "one of " + ", ".join(supported))
        elif value not in supported:
            self.not_supported(path, value, supported)

    def immutable(self, path: str, new: Any, old: Any, detail: str = "field is immutable") -> None:
        """Invalid when ``new`` differs from ``old``."""
        if new != old:
            self.invalid(path, new, detail)

    def at_least(self, path: str, value: int, least: int) -> None:
        """Invalid when below ``least``."""
        if value < least:
            self.invalid(path, value, f"must be greater than or equal to {least}")

    def _add(self, reason: str, path: str, message: str) -> None:
        self.causes.append(Cause(reason, message, path))


def _shown(value: Any) -> str:
    if isinstance(value, str | int | float | bool):
        text = json.dumps(value, ensure_ascii=False)
        return text if len(text) <= 200 else text[:197] + "..."
    return " ".join(str(value).split())[:200] or "{}"
