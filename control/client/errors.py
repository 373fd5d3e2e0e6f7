"""The errors a client meets: control.api.errors, under the name that callers import."""

from control.api.errors import *  # noqa: F403
