"""A map in characters: every cell where it belongs, in an output that can show it."""

import numpy as np
import pytest

from mechdrift.report.heat_map import can_shade, heat_map, legend

COLUMNS = ("subject[-10]", "subject[-1]", "between[-1]", "last")
VALUES = np.array([[0.09, 0.11, -0.3, 0.0], [0.31, 0.49, 0.51, 0.69], [0.71, 1.0, 1.2, 0.3]])


def test_a_known_map_in_shades() -> None:
    assert heat_map(COLUMNS, VALUES, shades=True) == [
        "block  subject  between  last",
        "       -10  -1   -1",
        "    0   ·  ░░░   ·        ·",
        "    1  ▒▒▒ ▒▒▒  ▓▓▓      ▓▓▓",
        "    2  ███ ███  ███      ▒▒▒",
    ]


def test_the_same_in_numbers() -> None:
    assert heat_map(COLUMNS, VALUES, shades=False) == [
        "block  subject  between  last",
        "       -10  -1   -1",
        "    0    9  11  -30        0",
        "    1   31  49   51       69",
        "    2   71 100  120       30",
    ]
    assert all(line.isascii() for line in [*heat_map(COLUMNS, VALUES, shades=False), legend(shades=False)])


def test_numbers_beyond_a_cell_do_not_push_the_others_aside() -> None:
    """Three characters are a cell: what is more than they hold is as much as they hold."""
    beyond = np.array([[1e308, -1e308, np.nan, 0.5]])
    assert heat_map(COLUMNS, beyond, shades=False)[2] == "    0  999 -99  nan       50"


def test_the_legend_says_where_shades_begin() -> None:
    assert legend(shades=True) == "· under 0.1  ░░░ from 0.1  ▒▒▒ from 0.3  ▓▓▓ from 0.5  ███ from 0.7"


@pytest.mark.parametrize(
    ("encoding", "can"),
    [
        ("utf-8", True),
        ("UTF-16", True),
        ("ascii", False),
        ("latin-1", False),
        ("cp1252", False),
        (None, False),
        ("nonsense", False),
    ],
)
def test_shades_are_for_outputs_that_have_them(encoding: str | None, can: bool) -> None:
    assert can_shade(encoding) == can
