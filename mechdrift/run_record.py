"""The record of a run, as data: from what the run compared, how, and what came of it."""

import os
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from mechdrift.findings import registered
from mechdrift.run_start import backend, same_files
from mechdrift.verdict.run_verdict import run_verdict

if TYPE_CHECKING:
    from mechdrift.checkpoints.resolve import Checkpoint
    from mechdrift.run import ComparingRun

NONCE = "MECHDRIFT_NONCE"
"""The environment variable by which whoever starts a run knows its record again."""


def record_of(run: "ComparingRun", exit_code: int) -> dict[str, Any]:
    """All of it but `run` is the same for the same inputs."""
    from importlib.metadata import version

    from mechdrift.engine.pool import pick_device, pick_dtype
    from mechdrift.report.record import SCHEMA

    first, *_ = run.ends
    posts = run.settings.posts if len(run.ends) > 1 else ()
    assert run.instructions
    assert run.texts
    device = pick_device(run.settings.device)
    packages = ("mechdrift", "torch", "transformers", "numpy", "scipy", "pytest")
    record: dict[str, Any] = {
        "schema": SCHEMA,
        "inputs": {
            "base": _identity(run.pair(first).base),
            "post": _identity(run.pair(first).post),
            "stages": [{"name": name} | _identity(run.points[name]) for name, _ in run.settings.stages],
            "posts": [{"name": name} | _identity(run.points[name]) for name, _ in posts],
            "identical": run.pair(first).identical,
            "config_changes": [
                {"between": between.names} | asdict(change)
                for between, changes in run.config_changes.items()
                for change in changes
            ],
            "same_files": same_files(run),
        },
        "settings": {
            "profile": run.profile.name,
            "gated_as_shipped": run.profile.gated_as_shipped,
            "tier": run.tier.name,
            "fail_on": list(run.settings.fail_on),
            "dtype": pick_dtype(run.settings.dtype, device),
            "device": device,
            "batch_tokens": run.settings.batch,
            "seed": run.settings.seed,
            "statements": run.settings.statements or "shipped",
            "pairs": run.settings.pairs or "shipped",
            "harmful": run.instructions.harmful.told(),
            "harmless": run.instructions.harmless.told(),
            "reply_classifier": run.reply_classifier and run.reply_classifier.told(),
            "texts": run.texts.told(),
            "generator": backend(run),
            "vllm_args": run.settings.vllm_args,
            "keep_replies": run.settings.keep_replies,
            "hand_set": run.hand_set.told(),
            "identity_shortcut": run.settings.identity_shortcut,
        },
        "environment": {package: version(package) for package in packages},
        "rows": [run.rows[label] for label in sorted(run.rows)],
        "chain": run.moves(),
        "lineage": run.lineage(),
        "not_selected": sorted(registered().keys() - {asked.finding.name for asked in run.expected}),
        "exit_code": exit_code,
        "extra": {},
        "run": {
            "started": run.started,
            "seconds": time.time() - run.started,
            "nonce": os.environ.get(NONCE),
            "work": run.work,
            "phases": {name: phase.told() for name, phase in run.phases.items()},
            "warnings": run.warnings,
        },
    }
    return record | {"outcome": asdict(run_verdict(record))}


def _identity(checkpoint: "Checkpoint") -> dict[str, Any]:
    """A checkpoint in the record; where it lay is no part of it."""
    return {name: value for name, value in asdict(checkpoint).items() if name not in ("folder", "gguf", "adapter", "notes")}
