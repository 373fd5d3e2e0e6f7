"""Flags that several of crictl's commands have."""

from collections.abc import Callable
from typing import Any

import click

Function = Callable[..., Any]


def flags(*options: Function) -> Callable[[Function], Function]:
    """Several option decorators as one, in reading order."""

    def decorate(function: Function) -> Function:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


def output(default: str = "table", formats: tuple[str, ...] = ("json", "yaml", "table")) -> Function:
    """``-o``."""
    return click.option("-o", "--output", "form", type=click.Choice(formats), default=default, help="Output format.")


quiet_ids = click.option("-q", "--quiet", is_flag=True, help="Only IDs.")
quiet_info = click.option("-q", "--quiet", is_flag=True, help="Do not show verbose information.")
verbose = click.option("-v", "--verbose", is_flag=True, help="Show every field.")
no_trunc = click.option("--no-trunc", is_flag=True, help="Show output without truncating the ID.")
by_id = click.option("--id", "by_id", default="", metavar="ID", help="Filter by id.")
by_name = click.option("--name", default="", metavar="REGEX", help="Filter by name.")
by_namespace = click.option("--namespace", default="", metavar="REGEX", help="Filter by pod namespace.")
by_label = click.option("--label", "labels", multiple=True, metavar="KEY=VALUE", help="Filter by label.")
by_pod = click.option("-p", "--pod", default="", metavar="ID", help="Filter by pod id.")
by_image = click.option("--image", default="", metavar="IMAGE", help="Filter by container image.")
latest = click.option("-l", "--latest", is_flag=True, help="Only the most recently created.")
last = click.option("-n", "--last", type=int, default=0, metavar="N", help="Only the last N created; 0 is no limit.")
watch = click.option("-w", "--watch", is_flag=True, help="Show again and again.")
seconds = click.option("-s", "--seconds", type=float, default=1.0, help="Sample duration for CPU usage in seconds.")
runtime_handler = click.option("--runtime", default="", metavar="HANDLER", help="Runtime handler to use.")
cancel_timeout = click.option(
    "-T", "--cancel-timeout", type=float, default=0.0, metavar="SECONDS", help="Give up after so long; 0 is never."
)


def state(*states: str) -> Function:
    """``-s``: one of the states."""
    return click.option("-s", "--state", type=click.Choice(states, case_sensitive=False), help="Filter by state.")


registry_credentials = flags(
    click.option("--creds", envvar="CRICTL_CREDS", default="", metavar="USER[:PASSWORD]", help="For the registry."),
    click.option("--auth", envvar="CRICTL_AUTH", default="", metavar="BASE64", help="USER:PASSWORD in base64."),
    click.option("-u", "--username", default="", metavar="USER", help="For the registry; the password is asked for."),
)
