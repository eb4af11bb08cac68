"""The record of a run, as data: from what the run compared, how, and what came of it."""

import os
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec.structs import replace

from mechdrift.findings import registered
from mechdrift.run_start import backend, same_files
from mechdrift.verdict.record import (
    SCHEMA,
    CheckpointIdentity,
    ConfigChange,
    Inputs,
    NamedCheckpoint,
    PhaseWork,
    Record,
    RunOutcome,
    RunSettings,
    RunWork,
    Side,
    TextsUsed,
)
from mechdrift.verdict.run_verdict import run_verdict

if TYPE_CHECKING:
    from mechdrift.checkpoints.resolve import Checkpoint
    from mechdrift.run import ComparingRun

NONCE = "MECHDRIFT_NONCE"
"""The environment variable by which whoever starts a run knows its record again."""


def record_of(run: "ComparingRun", exit_code: int) -> Record:
    """All of it but `run` is the same for the same inputs."""
    from importlib.metadata import version

    from mechdrift.engine.pool import pick_device, pick_dtype

    first, *_ = run.ends
    posts = run.settings.posts if len(run.ends) > 1 else ()
    assert run.instructions
    assert run.texts
    device = pick_device(run.settings.device)
    packages = ("mechdrift", "torch", "transformers", "numpy", "scipy", "pytest")
    classifier = run.reply_classifier
    record = Record(
        schema=SCHEMA,
        inputs=Inputs(
            base=CheckpointIdentity(**_identity(run.pair(first).base)),
            post=CheckpointIdentity(**_identity(run.pair(first).post)),
            stages=[NamedCheckpoint(name=name, **_identity(run.points[name])) for name, _ in run.settings.stages],
            posts=[NamedCheckpoint(name=name, **_identity(run.points[name])) for name, _ in posts],
            identical=run.pair(first).identical,
            config_changes=[
                ConfigChange(between=between.names, **asdict(change))
                for between, changes in run.config_changes.items()
                for change in changes
            ],
            same_files=same_files(run),
        ),
        settings=RunSettings(
            profile=run.profile.name,
            gated_as_shipped=run.profile.gated_as_shipped,
            tier=run.tier.name,
            fail_on=list(run.settings.fail_on),
            dtype=pick_dtype(run.settings.dtype, device),
            device=device,
            batch_tokens=run.settings.batch,
            seed=run.settings.seed,
            statements=run.settings.statements or "shipped",
            pairs=run.settings.pairs or "shipped",
            harmful=Side(**run.instructions.harmful.to_dict()),
            harmless=Side(**run.instructions.harmless.to_dict()),
            reply_classifier=classifier.to_dict() if classifier else None,
            texts=TextsUsed(**run.texts.to_dict()),
            generator=backend(run),
            vllm_args=dict(run.settings.vllm_args),
            keep_replies=run.settings.keep_replies,
            hand_set=run.hand_set.to_dict(),
            identity_shortcut=run.settings.identity_shortcut,
            options=msgspec.to_builtins(run.settings.recorded()),
        ),
        environment={package: version(package) for package in packages},
        rows=[run.rows[label] for label in sorted(run.rows)],
        chain=run.moves(),
        lineage=run.lineage(),
        not_selected=sorted(registered().keys() - {requested.finding.name for requested in run.expected}),
        exit_code=exit_code,
        run=RunWork(
            started=run.started,
            seconds=time.time() - run.started,
            nonce=os.environ.get(NONCE),
            work=run.work,
            phases={name: PhaseWork(**phase.to_dict()) for name, phase in run.phases.items()},
            warnings=run.warnings,
        ),
    )
    verdict = run_verdict(record)
    return replace(record, outcome=RunOutcome(verdict=verdict.verdict, message=verdict.message))


def _identity(checkpoint: "Checkpoint") -> dict[str, Any]:
    """A checkpoint in the record; where it lay is no part of it."""
    return {name: value for name, value in asdict(checkpoint).items() if name not in ("folder", "gguf", "adapter", "notes")}
