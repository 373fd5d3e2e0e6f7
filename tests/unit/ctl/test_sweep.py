"""What a killed proxy leaves is taken away, and only that."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyroute2 import IPRoute

from ctl.lab import sweep
from ctl.lab.layout import Layout
from ctl.lab.settings import Settings

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="changes routes")]

SETTINGS = Settings("node", "127.0.0.1", network=8)
"""A network that tests of whole clusters do not come to: they take the first free one."""


@pytest.fixture
def routes() -> Iterator[list[str]]:
    """The proxy's two routes, as it makes them."""
    cidrs = [SETTINGS.service_cidr, SETTINGS.load_balancer_cidr]
    with IPRoute() as ip:
        for cidr in cidrs:
            ip.route("replace", dst=cidr, table=255, type="local", scope="host", proto=75, oif=1)
    yield cidrs
    sweep.remove_routes(SETTINGS)


def test_the_proxys_routes_are_found_and_removed(routes: list[str], tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    assert sorted(sweep.leftovers(layout, SETTINGS)) == sorted(f"route local {cidr} dev lo" for cidr in routes)
    assert not list(sweep.leftovers(layout, Settings("node", "127.0.0.1", network=7)))
    sweep.remove_routes(SETTINGS)
    assert not list(sweep.leftovers(layout, SETTINGS))
    sweep.remove_routes(SETTINGS)
