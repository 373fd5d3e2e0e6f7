"""Durations, tables and tab stops look as kubectl's do."""

import pytest

from control.api.times import human_duration
from ctl import tabs
from ctl.durations import parse_duration
from ctl.errors import CtlError
from ctl.table import render

MINUTE, HOUR, DAY = 60, 3600, 86400


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "0s"),
        (1, "1s"),
        (119, "119s"),
        (2 * MINUTE, "2m"),
        (2 * MINUTE + 5, "2m5s"),
        (9 * MINUTE + 59, "9m59s"),
        (10 * MINUTE + 30, "10m"),
        (179 * MINUTE, "179m"),
        (3 * HOUR, "3h"),
        (3 * HOUR + 7 * MINUTE, "3h7m"),
        (8 * HOUR + 7 * MINUTE, "8h"),
        (47 * HOUR, "47h"),
        (2 * DAY, "2d"),
        (2 * DAY + 3 * HOUR, "2d3h"),
        (8 * DAY + 3 * HOUR, "8d"),
        (729 * DAY, "729d"),
        (730 * DAY, "2y"),
        (740 * DAY, "2y10d"),
        (9 * 365 * DAY, "9y"),
        (-5, "<invalid>"),
    ],
)
def test_an_age_has_at_most_two_units(seconds: float, text: str) -> None:
    assert human_duration(seconds) == text


def test_a_duration_is_read_as_go_writes_it() -> None:
    assert parse_duration("1h30m") == 5400
    assert parse_duration("500ms") == 0.5
    assert parse_duration("-1s") == -1
    with pytest.raises(CtlError, match='invalid duration "5"'):
        parse_duration("5")


def test_columns_are_three_blanks_apart_and_lines_end_with_their_last_cell() -> None:
    text = render(("NAME", "AGE", "LABELS"), [("a", "5s", "x=1"), ("kubia-abc", "10m", "<none>")])
    assert text == "NAME        AGE   LABELS\na           5s    x=1\nkubia-abc   10m   <none>\n"


def test_tab_stops_align_within_runs_of_lines_only() -> None:
    lines = ["Name:\tkubia", "Namespace:\tdefault", "Containers:", "  kubia:", "    Port:\t8080/TCP"]
    assert tabs.layout(lines) == (
        "Name:       kubia\nNamespace:  default\nContainers:\n  kubia:\n    Port:  8080/TCP\n"
    )


def test_a_second_column_is_measured_inside_the_block_of_the_first() -> None:
    assert tabs.layout(["Port:\t<unset>\t80/TCP", "NodePort:\tx\t30080/TCP", "Type:\tNodePort"]) == (
        "Port:      <unset>  80/TCP\nNodePort:  x        30080/TCP\nType:      NodePort\n"
    )
