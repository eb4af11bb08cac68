"""The record of a run, as data: from what the run compared, how, and what came of it."""

import os
import time
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

import msgspec
from msgspec import UNSET
from msgspec.structs import replace

from mechdrift.checkpoints.chain import POST
from mechdrift.checkpoints.resolve import Checkpoint
from mechdrift.engine.generate.reply_judge import Agreement
from mechdrift.findings.registry import registered
from mechdrift.models.devices import pick_device, pick_dtype
from mechdrift.session.start import backend, same_files
from mechdrift.session.state import State
from mechdrift.stages.lineage import lineage
from mechdrift.verdict.moves import moves
from mechdrift.verdict.record import (
    SCHEMA,
    CheckpointIdentity,
    ConfigChange,
    FileUsed,
    Inputs,
    Move,
    NamedCheckpoint,
    PhaseWork,
    Record,
    RunOutcome,
    RunSettings,
    RunWork,
    Side,
    TextsUsed,
    Traced,
)
from mechdrift.verdict.run_verdict import run_verdict

NONCE = "MECHDRIFT_NONCE"
"""The environment variable by which whoever starts a run knows its record again."""


def record_of(state: State, exit_code: int) -> Record:
    """All of it but `run` is the same for the same inputs."""
    settings, inputs, request = state.settings, state.inputs, state.request
    first, *_ = request.ends
    pair, posts = inputs.pair(first), settings.posts if len(request.ends) > 1 else ()
    device = pick_device(settings.device)
    packages = ("mechdrift", "torch", "transformers", "numpy", "scipy", "pytest")
    classifier = inputs.reply_classifier
    record = Record(
        schema=SCHEMA,
        inputs=Inputs(
            base=CheckpointIdentity(**_identity(pair.base)),
            post=CheckpointIdentity(**_identity(pair.post)),
            stages=[NamedCheckpoint(name=name, **_identity(inputs.points[name])) for name, _ in settings.stages],
            posts=[NamedCheckpoint(name=name, **_identity(inputs.points[name])) for name, _ in posts],
            identical=pair.identical,
            config_changes=[
                ConfigChange(between=between.names, **asdict(change))
                for between, changes in inputs.config_changes.items()
                for change in changes
            ],
            same_files=same_files(request, inputs.points),
        ),
        settings=RunSettings(
            profile=state.profile.name,
            gated_as_shipped=state.profile.gated_as_shipped,
            tier=request.tier.name,
            fail_on=list(settings.fail_on),
            dtype=pick_dtype(settings.dtype, device),
            device=device,
            batch_tokens=settings.batch,
            seed=settings.seed,
            statements=settings.statements or "shipped",
            pairs=settings.pairs or "shipped",
            statements_file=FileUsed(**used.to_dict()) if (used := inputs.prompts.of_statements) else UNSET,
            pairs_file=FileUsed(**used.to_dict()) if (used := inputs.prompts.of_pairs) else UNSET,
            harmful=Side(**inputs.prompts.instructions.harmful.to_dict()),
            harmless=Side(**inputs.prompts.instructions.harmless.to_dict()),
            reply_classifier=classifier.to_dict() if classifier else None,
            judge=_judge(state),
            chat_templates=inputs.templates.to_dict(),
            texts=TextsUsed(**inputs.prompts.texts.to_dict()),
            generator=backend(settings, inputs.points.values()),
            vllm_args=dict(settings.vllm_args),
            keep_replies=settings.keep_replies,
            hand_set=request.hand_set.to_dict(),
            identity_shortcut=settings.identity_shortcut,
            options=msgspec.to_builtins(settings.recorded()),
        ),
        environment={package: version(package) for package in packages},
        rows=[state.rows[label] for label in sorted(state.rows)],
        chain=chain_of(state),
        lineage=lineage_of(state),
        not_selected=sorted(registered().keys() - {requested.finding.name for requested in state.expected}),
        exit_code=exit_code,
        run=RunWork(
            started=state.started,
            seconds=time.time() - state.started,
            nonce=os.environ.get(NONCE),
            work=state.work,
            phases={name: PhaseWork(**phase.to_dict()) for name, phase in state.phases.items()},
            warnings=state.warnings,
            streams=dict(sorted(state.streams.items())),
        ),
    )
    verdict = run_verdict(record)
    return replace(record, outcome=RunOutcome(verdict=verdict.verdict, message=verdict.message))


def _judge(state: State) -> dict[str, Any] | None:
    """The endpoint that judged replies, and how often it and the shipped classifier differ."""
    if state.inputs.judge is None:
        return None
    agreement = sum(state.agreements.values(), Agreement())
    share = agreement.disagreement
    low, high = share.interval() if share else (None, None)
    return {
        **state.inputs.judge.to_dict(),
        "replies": agreement.replies,
        "unclear": agreement.unclear,
        "differ": agreement.differ,
        "share": share.estimate if share else None,
        "low": low,
        "high": high,
    }


def _identity(checkpoint: Checkpoint) -> dict[str, Any]:
    """A checkpoint in the record; where it lay is no part of it."""
    return {name: value for name, value in asdict(checkpoint).items() if name not in ("folder", "gguf", "adapter", "notes")}


def lineage_of(state: State) -> list[Traced]:
    """What each stage did to what drifted; none where it was not requested."""
    request = state.request
    if not request.settings.lineage:
        return []
    return lineage(state.rows.values(), request.stages, POST, request.estimator, state.inputs.lineage_notes)


def chain_of(state: State) -> list[Move]:
    """What each step of the chain did to each row."""
    return moves(state.rows.values(), state.request.steps)
