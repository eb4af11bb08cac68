"""What a run was asked to do, made of its options. Imports nothing but the standard library, pytest and option_values."""

import json
import os
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mechdrift.option_values import ESTIMATORS, post_name
from mechdrift.verdict.limits import FAIL_ON, FailOn


@dataclass(frozen=True)
class Settings:
    """What a run was asked to do."""

    base: str
    """Spec of the checkpoint before."""
    posts: tuple[tuple[str, str], ...]
    """Name and spec of the checkpoints after, each compared with base; one alone is named post."""
    stages: tuple[tuple[str, str], ...]
    """Name and spec of checkpoints between the two, in the order of training."""
    profile: str
    """Name or file of the limits."""
    fail_on: tuple[FailOn, ...]
    """Verdicts of gates that make the run fail."""
    tier: str
    """How many items are asked: one of TIER_NAMES."""
    plan: bool
    """Whether the run is only planned."""
    only: tuple[str, ...]
    """Families or findings; empty: all."""
    statements: str | None
    """The user's own statements."""
    pairs: str | None
    """The user's own pairs of prompts."""
    harmful: str | None
    """The user's own harmful instructions, FILE or FILE:COLUMN."""
    harmless: str | None
    """The user's own harmless ones."""
    reply_classifier: str | None
    """A text classifier that tells refusals, SPEC or SPEC:LABEL."""
    texts: str | None
    """The user's own texts, FILE or FILE:COLUMN."""
    hand_set: str | None
    """File of choices that are made by hand instead of by rule."""
    device: str
    """Where models run."""
    dtype: str
    """In which precision."""
    batch: int
    """Padded tokens a forward."""
    seed: int
    """Of splits, false objects and few-shot orders."""
    generator: str
    """What makes replies: one of GENERATORS."""
    vllm_args: dict[str, Any]
    """Further arguments of vllm.LLM."""
    keep_replies: bool
    """Whether the record may hold the text of replies."""
    cache: str | None
    """Folder of the store; None: the user's cache folder; `off`: a temporary one."""
    record: str | None
    """Where the record goes."""
    save: str | None
    """Name of the baseline to write."""
    baseline: str | None
    """Name or file of the baseline to compare with."""
    lineage: bool
    """Whether each stage's part in what drifted is measured."""
    lineage_by: str | None
    """How post without a stage is made: one of ESTIMATORS; None: by rerun where there are logs, else by task vector."""
    stage_logs: tuple[tuple[str, str], ...]
    """Names of stages, and the folders of their training logs."""
    update: bool
    """Whether what ran is written over that baseline."""
    identity_shortcut: bool
    """Whether a checkpoint against itself is exactly the null without measuring."""

    def command(self, finding: str) -> str:
        """The command that measures one finding again."""
        parts = ["pytest", "--base", self.base, *(word for _, spec in self.posts for word in ("--post", spec))]
        for name, value in _by_option(self).items():
            if value != DEFAULTS[name] and name not in NOT_AGAIN:
                parts += [name] if value is True else [name, _as_typed(value)]
        return shlex.join([*parts, "--mechdrift-only", finding])


NOT_AGAIN = (
    "--mechdrift-plan",
    "--mechdrift-lineage",
    "--mechdrift-lineage-by",
    "--mechdrift-only",
    "--mechdrift-record",
    "--mechdrift-save",
    "--mechdrift-update",
)
"""What one finding measured again needs not, or has of its own."""
DEFAULTS: dict[str, Any] = {
    "--mechdrift-profile": "base-to-post",
    "--mechdrift-fail-on": FAIL_ON,
    "--mechdrift-tier": "commit",
    "--mechdrift-plan": False,
    "--mechdrift-only": None,
    "--mechdrift-statements": None,
    "--mechdrift-pairs": None,
    "--mechdrift-harmful": None,
    "--mechdrift-harmless": None,
    "--mechdrift-reply-classifier": None,
    "--mechdrift-texts": None,
    "--mechdrift-hand-set": None,
    "--mechdrift-device": "auto",
    "--mechdrift-dtype": "auto",
    "--mechdrift-batch": 4096,
    "--mechdrift-seed": 0,
    "--mechdrift-generator": "auto",
    "--mechdrift-vllm-args": {},
    "--mechdrift-keep-replies": False,
    "--mechdrift-cache": None,
    "--mechdrift-record": None,
    "--mechdrift-save": None,
    "--mechdrift-baseline": None,
    "--mechdrift-update": False,
    "--mechdrift-lineage": False,
    "--mechdrift-lineage-by": None,
    "--mechdrift-no-identity-shortcut": False,
}


def _as_typed(value: Any) -> str:
    """An option's value on a command line."""
    if isinstance(value, tuple):
        return ",".join(value)
    return value if isinstance(value, str) else json.dumps(value)


def _by_option(settings: Settings) -> dict[str, Any]:
    """Settings under the names of their options."""
    named = {name: getattr(settings, name.removeprefix("--mechdrift-").replace("-", "_"), None) for name in DEFAULTS}
    return named | {"--mechdrift-no-identity-shortcut": not settings.identity_shortcut}


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
    for option in ("--mechdrift-save", "--mechdrift-update"):
        if get(option):
            raise pytest.UsageError(
                f"mechdrift: {option} and more than one --post; expected one, whose rows the baseline has; leave the others out"
            )


def _require_lineage(asked: bool, estimator: str | None, stages: list[str], logs: list[tuple[str, str]]) -> None:
    """Raise UsageError for what does not go together."""
    if asked and not stages:
        raise pytest.UsageError(
            "mechdrift: --mechdrift-lineage without --stage; expected checkpoints between base and post; add --stage NAME=SPEC"
        )
    if (estimator or logs) and not asked:
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
                f"mechdrift: --stage-log {name}; expected each of {', '.join([*stages, 'post'])} once at most; mend the name"
            )


def settings_of(config: pytest.Config) -> Settings | None:
    """The settings of a comparing run; None where no checkpoint is given. Raises UsageError for half a pair."""
    get = config.getoption
    base, posts, stages = get("mechdrift_base"), get("mechdrift_post") or [], get("mechdrift_stage") or []
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
    logs = get("mechdrift_stage_log") or []
    _require_lineage(get("--mechdrift-lineage"), get("--mechdrift-lineage-by"), [name for name, _ in stages], logs)
    record = get("--mechdrift-record")
    # What is there is replaced, so it may not be a folder, nor a device.
    taken = record is not None and os.path.exists(record) and not os.path.isfile(record)
    if record is not None and (taken or not os.path.isdir(Path(record).absolute().parent)):
        raise pytest.UsageError(
            f"mechdrift: --mechdrift-record {record}: expected a file in a folder that exists; make the folder"
        )
    if get("--mechdrift-keep-replies") and record is None:
        raise pytest.UsageError(
            "mechdrift: --mechdrift-keep-replies without --mechdrift-record; expected a place beside the record; "
            "add --mechdrift-record FILE.json"
        )
    if get("--mechdrift-update") and get("--mechdrift-baseline") is None:
        raise pytest.UsageError(
            "mechdrift: --mechdrift-update without --mechdrift-baseline; expected one to update; add --mechdrift-baseline NAME"
        )
    return Settings(
        base=base,
        posts=tuple(posts),
        stages=tuple(stages),
        profile=get("--mechdrift-profile"),
        fail_on=get("--mechdrift-fail-on"),
        tier=get("--mechdrift-tier"),
        plan=get("--mechdrift-plan"),
        only=tuple(get("--mechdrift-only") or ()),
        statements=get("--mechdrift-statements"),
        pairs=get("--mechdrift-pairs"),
        harmful=get("--mechdrift-harmful"),
        harmless=get("--mechdrift-harmless"),
        reply_classifier=get("--mechdrift-reply-classifier"),
        texts=get("--mechdrift-texts"),
        hand_set=get("--mechdrift-hand-set"),
        device=get("--mechdrift-device"),
        dtype=get("--mechdrift-dtype"),
        batch=get("--mechdrift-batch"),
        seed=get("--mechdrift-seed"),
        generator=get("--mechdrift-generator"),
        vllm_args=get("--mechdrift-vllm-args"),
        keep_replies=get("--mechdrift-keep-replies"),
        cache=get("--mechdrift-cache"),
        record=record,
        save=get("--mechdrift-save"),
        baseline=get("--mechdrift-baseline"),
        update=get("--mechdrift-update"),
        lineage=get("--mechdrift-lineage"),
        lineage_by=get("--mechdrift-lineage-by"),
        stage_logs=tuple(logs),
        identity_shortcut=not get("--mechdrift-no-identity-shortcut"),
    )
