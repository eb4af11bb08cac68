"""The settings of a run from its options, or why they do not go together. Imports nothing heavy."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mechdrift.settings.command_line import dest_of
from mechdrift.settings.declared import OPTIONS, Settings
from mechdrift.settings.option import flag_of
from mechdrift.settings.values import ESTIMATORS, post_name


def _named(posts: list[tuple[str | None, str]]) -> list[tuple[str, str]]:
    """Posts with their names. Raises UsageError where one of several has none."""
    if len(posts) == 1:
        return [("post", posts[0][1])]
    named = [(name or post_name(spec), spec) for name, spec in posts]
    if unnamed := [spec for name, spec in named if not name]:
        raise pytest.UsageError(
            f"mechdrift: --post {unnamed[0]} gives no name; expected one for each of several; type --post NAME={unnamed[0]}"
        )
    return named


def _require_no_chain(get: Callable[[str], Any], stages: list[tuple[str, str]]) -> None:
    """Raise UsageError for what several posts do not go with."""
    if stages:
        raise pytest.UsageError(
            "mechdrift: --stage and more than one --post; expected a chain to one post, or several posts; run each chain alone"
        )
    for name in ("save", "update"):
        if get(dest_of(name)):
            raise pytest.UsageError(
                f"mechdrift: {flag_of(name)} and more than one --post; expected one, whose rows the baseline has; "
                "leave the others out"
            )


def _require_lineage(requested: bool, estimator: str | None, stages: list[str], logs: list[tuple[str, str]]) -> None:
    """Raise UsageError for what does not go together."""
    if requested and not stages:
        raise pytest.UsageError(
            "mechdrift: --mechdrift-lineage without --stage; expected checkpoints between base and post; add --stage NAME=SPEC"
        )
    if (estimator or logs) and not requested:
        given = "--mechdrift-lineage-by" if estimator else "--stage-log"
        raise pytest.UsageError(f"mechdrift: {given} without --mechdrift-lineage; expected both; add --mechdrift-lineage")
    if estimator not in (None, ESTIMATORS[0]) and not logs:
        raise pytest.UsageError(
            f"mechdrift: --mechdrift-lineage-by {estimator} without --stage-log; expected logs; add --stage-log NAME=DIR"
        )
    names = [name for name, _ in logs]
    for name in names:
        if name not in (*stages, "post") or names.count(name) > 1:
            raise pytest.UsageError(
                f"mechdrift: --stage-log {name}; expected each of {', '.join([*stages, 'post'])} once at most; fix the name"
            )


def settings_of(config: pytest.Config) -> Settings | None:
    """The settings of a comparing run; None where no checkpoint is given. Raises UsageError for half a pair."""
    get = config.getoption
    base, posts, stages = get("mechdrift_base"), get("mechdrift_posts") or [], get("mechdrift_stages") or []
    if base is None and not posts and not stages:
        return None
    if not base or not posts or not all(spec for _, spec in posts):  # an empty one is a variable of the shell that is not set
        missing = "--post" if base else "--base"
        raise pytest.UsageError(f"mechdrift: {missing} is missing; expected both; type: pytest --base SPEC --post SPEC")
    posts = _named(posts)
    for option, given in (("--stage", stages), ("--post", posts)):
        names = [name for name, _ in given]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise pytest.UsageError(f"mechdrift: {option} {twice[0]} is given twice; expected one of each name; rename one")
    if len(posts) > 1:
        _require_no_chain(get, stages)
    logs = get("mechdrift_stage_logs") or []
    _require_lineage(get("mechdrift_lineage"), get("mechdrift_lineage_by"), [name for name, _ in stages], logs)
    record = get("mechdrift_record")
    # What is there is replaced, so it may not be a folder, nor a device.
    taken = record is not None and os.path.exists(record) and not os.path.isfile(record)
    if record is not None and (taken or not os.path.isdir(Path(record).absolute().parent)):
        raise pytest.UsageError(
            f"mechdrift: --mechdrift-record {record}: expected a file in a folder that exists; make the folder"
        )
    if get("mechdrift_keep_replies") and record is None:
        raise pytest.UsageError(
            "mechdrift: --mechdrift-keep-replies without --mechdrift-record; expected a place beside the record; "
            "add --mechdrift-record FILE.json"
        )
    if get("mechdrift_judge") and get("mechdrift_reply_classifier"):
        raise pytest.UsageError(
            "mechdrift: --mechdrift-judge and --mechdrift-reply-classifier; expected one who decides which replies refuse; "
            "leave one out"
        )
    if get("mechdrift_update") and get("mechdrift_baseline") is None:
        raise pytest.UsageError(
            "mechdrift: --mechdrift-update without --mechdrift-baseline; expected one to update; add --mechdrift-baseline NAME"
        )
    given = {name: get(dest_of(name)) for name in OPTIONS}
    tuples = {name: tuple(given[name] or ()) for name, one in OPTIONS.items() if one.repeatable}
    return Settings(**given | tuples | {"posts": tuple(posts)})
