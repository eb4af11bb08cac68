"""Files that change what a model does and not its weights, and settings that a checkpoint would give pytest."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from broken import edit, write
from stand_in import StandIn

from cases.case import Case

RELEASE = ("--mechdrift-profile", "release")
WINDOW = {"use_sliding_window": True, "sliding_window": 32, "max_window_layers": 0, "layer_types": ["sliding_attention"] * 6}
LONGER = {"rope_parameters": {"rope_type": "default", "rope_theta": 40000.0}}


def changed(*changes: Callable[[Path], Any], more: tuple[str, ...] = ()) -> Callable[[Path, StandIn], tuple[str, ...]]:
    """organism:instruct against a copy of it that is changed."""

    def make(folder: Path, _hub: StandIn) -> tuple[str, ...]:
        from mechdrift.checkpoints.resolve import resolve

        shutil.copytree(resolve("organism:instruct").folder, folder / "post")
        for change in changes:
            change(folder / "post")
        return ("--base", "organism:instruct", "--post", "post", *more)

    return make


CASES = (
    Case(
        "config alone",
        "a shrunk window",
        changed(edit("config.json", **WINDOW), more=(*RELEASE, "--mechdrift-only", "context.settings")),
        "context.settings[part=window] drifted",
        1,
        may_hold=True,
    ),
    Case(
        "config alone",
        "another rope",
        changed(edit("config.json", **LONGER), more=(*RELEASE, "--mechdrift-only", "context.settings")),
        "context.settings[part=rope] drifted",
        1,
        may_hold=True,
    ),
    Case(
        "config alone",
        "its keys, in the header",
        changed(edit("config.json", **WINDOW), more=("--mechdrift-only", "context.settings", "--mechdrift-profile", "report")),
        "configs of base -> post differ in: layer_types, max_window_layers, sliding_window, use_sliding_window",
        0,
        may_hold=True,
    ),
    Case(
        "pytest's settings",
        "in a checkpoint",
        changed(write("pytest.ini", "[pytest]\naddopts = --collect-only\n")),
        "in a checkpoint; expected your own",
    ),
    Case(
        "pytest's settings",
        "in a checkpoint's pyproject.toml",
        changed(write("pyproject.toml", '[tool.pytest.ini_options]\naddopts = "--deselect truth"\n')),
        "in a checkpoint; expected your own",
    ),
)
