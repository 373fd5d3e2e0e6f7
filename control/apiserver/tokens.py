"""Continue tokens of paged lists: where the next page starts and at which revision all pages are pinned.

Upstream's form: base64url of ``{"v":"meta.k8s.io/v1","rv":REVISION,"start":"KEY"}``; the key is relative to the list's
prefix, so that a token cannot reach outside of it.
"""

import base64
import binascii
import json

from control.api.errors import BadRequest

VERSION = "meta.k8s.io/v1"


def encode_token(revision: int, start: str) -> str:
    """The token of a next page that begins at key ``start``."""
    text = json.dumps({"v": VERSION, "rv": revision, "start": start}, separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def decode_token(token: str) -> tuple[int, str]:
    """(revision, start key). Raises BadRequest."""
    try:
        data = json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
        revision, start = data["rv"], data["start"]
        if data["v"] != VERSION or not isinstance(revision, int) or not isinstance(start, str) or revision <= 0:
            raise ValueError(token)
        return revision, start
    except (binascii.Error, ValueError, KeyError, TypeError) as err:
        raise BadRequest("the continue token is not valid: start the list again without it") from err
