"""The Status object that ends an exec or attach, on the error channel (channel protocols v4 and v5)."""

import json
from typing import Any


def success() -> dict[str, Any]:
    """The command ended with 0, or the attached container ended."""
    return {"metadata": {}, "status": "Success"}


def exited(code: int) -> dict[str, Any]:
    """The command ended with ``code``."""
    if code == 0:
        return success()
    return {
        "metadata": {},
        "status": "Failure",
        "message": f"command terminated with non-zero exit code: exit status {code}",
        "reason": "NonZeroExitCode",
        "details": {"causes": [{"reason": "ExitCode", "message": str(code)}]},
    }


def failed(message: str) -> dict[str, Any]:
    """There was no command's end to tell."""
    return {"metadata": {}, "status": "Failure", "message": message, "reason": "InternalError", "code": 500}


def encode(status: dict[str, Any], protocol_version: int) -> bytes:
    """As the error channel carries it: JSON since v4; before, text on failure and nothing on success."""
    if protocol_version >= 4:
        return json.dumps(status).encode()
    return str(status.get("message", "")).encode()
