"""How a run starts: checkpoints are read through and prompts read, before any test."""

import json
import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mechdrift import fixtures
from mechdrift.chains import BASE, BASE_TO_POST, POST, without
from mechdrift.device_names import TENSOR_PARALLEL
from mechdrift.errors import InputError, Unmeasurable
from mechdrift.settings.values import OFF
from mechdrift.stages.lineage import How, points_without
from mechdrift.stages.without_stage import KEPT

if TYPE_CHECKING:
    from mechdrift.checkpoints.resolve import Checkpoint
    from mechdrift.run import ComparingRun
    from mechdrift.settings import Settings


def refuse_settings_of_checkpoints(config: pytest.Config, settings: "Settings") -> None:
    """Raise UsageError where pytest took its settings from a checkpoint's folder: a stranger's `addopts` may measure nothing.

    pytest looks for them in every folder that stands alone among its arguments, as after `--post `.
    """
    ini, started = config.inipath, config.invocation_params.dir.resolve()
    for spec in (settings.base, *(spec for _, spec in (*settings.posts, *settings.stages))):
        folder = (started / os.path.expanduser(spec)).resolve()  # which leaves a user that is not there as typed
        if ini and folder.is_dir() and folder in ini.resolve().parents and folder not in (started, *started.parents):
            raise pytest.UsageError(
                f"mechdrift: pytest took settings from {ini}, in a checkpoint; expected your own; "
                f"type --base=SPEC --post=SPEC with an equals sign, or remove {ini.name}"
            )


def resolve_all(run: "ComparingRun") -> None:
    """Choose the store, resolve the checkpoints, read what is asked."""
    from mechdrift.checkpoints import tokenizer_check
    from mechdrift.checkpoints.classifier import read_classifier
    from mechdrift.checkpoints.config_changes import config_changes
    from mechdrift.checkpoints.identity import Memory
    from mechdrift.checkpoints.resolve import Resolver
    from mechdrift.checkpoints.vocabulary import vocabulary_note
    from mechdrift.engine.pool import check_device

    tokenizer_check.prepare()  # it loads its libraries while weights are read
    run.store_folder = _choose_store(run)
    memory = Memory(run.store_folder / "identities")
    resolver = Resolver(memory, lambda label: fixtures.progress_line(run.config, label))
    try:
        check_device(run.settings.device)
        backend(run)
        with _open_terminal(run):
            for name, spec in ((BASE, run.settings.base), *run.settings.stages, *run.settings.posts):
                run.points[name] = resolver.resolve(spec)
        if run.settings.lineage:
            _take_off_stages(run, resolver.resolve)
        backend(run)
        run.warnings += [note for point in run.points.values() for note in point.notes]
        read_prompts(run)
        check_tokenizers(run)
        for between in run.betweens:
            if between.later in run.absent:
                continue
            if changes := config_changes(*run.pair(between).points):
                run.config_changes[between] = changes
            if note := vocabulary_note(*run.pair(between).points):
                run.warnings.append(note if between == BASE_TO_POST else f"{between}: {note}")
        run.warnings += same_files_warnings(run)
        run.hand_set.require_layers(min(point.layers for point in run.points.values()))
        if classified_by := run.settings.reply_classifier:
            run.reply_classifier = read_classifier(classified_by)
    except InputError as error:
        raise pytest.UsageError(f"mechdrift: {error}") from error


def same_files(run: "ComparingRun") -> list[list[str]]:
    """Names of the checkpoints that the user gave more than once, whatever their paths: those of one content together."""
    given = [BASE, *run.stages, *(name for name, _ in run.settings.posts)]
    groups: dict[str, list[str]] = {}
    for name in given:
        groups.setdefault(json.dumps(run.points[name].digests, sort_keys=True), []).append(name)
    return [names for names in groups.values() if len(names) > 1]


def same_files_warnings(run: "ComparingRun") -> list[str]:
    """A line for each checkpoint that was given twice, and one where post has base's very weights."""
    shortcut = run.settings.identity_shortcut
    lines = []
    for names in same_files(run):
        nothing = ": nothing was compared" if shortcut and run.betweens_within(names) else ""
        lines.append(f"{' and '.join(names)} are the same files{nothing}; check the specs")
    for between in run.ends:
        pair = run.pair(between)
        parts = pair.base.digests.keys() | pair.post.digests.keys()
        unlike = sorted(part for part in parts if pair.base.digests.get(part) != pair.post.digests.get(part))
        if unlike and not {"weights", "adapter"} & {*unlike}:
            lines.append(f"{between.earlier} and {between.later} have the same weights and differ only in: {', '.join(unlike)}")
    return lines


def _take_off_stages(run: "ComparingRun", resolve: "Callable[[str], Checkpoint]") -> None:
    """Make post without each stage; a plan, which writes nothing, takes post for it: it asks as much of either."""
    if run.settings.plan:
        made = dict.fromkeys(set(without(run.stages, POST).values()) - run.points.keys(), run.points[POST])
    else:
        made, run.absent, run.lineage_notes = points_without(run.points, run.stages, POST, _temporary(run), resolve, _how(run))
    run.points |= made


def _how(run: "ComparingRun") -> How:
    """How post without a stage is made."""
    from mechdrift.engine.pool import pick_device

    assert run.store_folder
    return How(
        run.estimator,
        {name: Path(folder) for name, folder in run.settings.stage_logs},
        pick_device(run.settings.device),
        run.store_folder / KEPT,
        lambda label: fixtures.progress_line(run.config, label),
    )


def _open_terminal(run: "ComparingRun") -> AbstractContextManager[None]:
    """On a terminal lets the hub's own progress bars through; elsewhere they are captured as all else is."""
    reporter = run.config.pluginmanager.get_plugin("terminalreporter")
    capture = run.config.pluginmanager.get_plugin("capturemanager")
    if reporter is None or capture is None or not reporter.isatty:
        return nullcontext()
    return capture.global_and_fixture_disabled()


def check_tokenizers(run: "ComparingRun") -> None:
    """Try every tokenizer on what it will be given; what a chat template does wrong is a warning. Raises InputError."""
    from mechdrift.checkpoints.chat import template_warning
    from mechdrift.checkpoints.load import load_tokenizer, try_tokenizer
    from mechdrift.checkpoints.special_tokens import end_tokens

    texts = run_texts(run)
    for point in {point.short: point for point in run.points.values()}.values():
        try_tokenizer(point, texts)
        tokenizer = load_tokenizer(point)
        with suppress(Unmeasurable):  # where nothing ends a reply, rows of replies say so
            end_tokens(point)
        if warning := template_warning(point, tokenizer):
            run.warnings.append(warning)


def run_texts(run: "ComparingRun") -> list[str]:
    """What tokenizers will be given, as far as it is known before any has read it: prompts without what templates add."""
    from mechdrift.prompts.chat_forms import PLAIN
    from mechdrift.prompts.judgement import judgement_prompts

    assert run.instructions
    assert run.texts
    judged: list[str] = []
    with suppress(Unmeasurable):  # too few statements to judge by: its rows say so
        affirmed = [one for one in run.statements if not one.negated]
        judged = list(judgement_prompts(affirmed, run.settings.seed, "test").values())[::8]  # they are made of the same examples
    return [
        *(one.text for one in run.statements),
        *judged,
        *(one.text.join(PLAIN) for one in run.instructions.all),
        *(text.text for text in run.texts.all),
        *(side + answer for pair in run.pairs for side in (pair.clean, pair.corrupt) for answer in pair.answers or ("",)),
    ]


def read_prompts(run: "ComparingRun") -> None:
    """The user's statements, pairs, instructions and texts, or the shipped ones. Raises InputError."""
    from mechdrift.prompts.instructions import read_instructions
    from mechdrift.prompts.statements import read_statements, shipped_statements
    from mechdrift.prompts.texts import read_texts, sample
    from mechdrift.prompts.written_pairs import read_pairs

    seed, path = run.settings.seed, run.settings.statements
    statements = read_statements(Path(path), seed) if path else shipped_statements(seed)
    run.statements = run.tier.statements(statements)
    run.pairs = tuple(read_pairs(Path(run.settings.pairs), seed) if run.settings.pairs else ())
    run.instructions = read_instructions(run.settings.harmful, run.settings.harmless, seed)
    given = run.settings.texts
    most = run.tier.texts
    run.texts = sample(statements, run.instructions.all, most) if given is None else read_texts(given, most)


def backend(run: "ComparingRun") -> str:
    """What makes replies, as far as the checkpoints are known. Raises InputError for one that cannot."""
    from mechdrift.engine.generate.choose import backend_for
    from mechdrift.engine.pool import pick_device

    settings, points = run.settings, list(run.points.values())
    return backend_for(settings.generator, pick_device(settings.device), settings.vllm_args, points)


def _choose_store(run: "ComparingRun") -> Path:
    """The folder of the store; for `off` one that lives as long as the run.

    Processes that run one model together may not share a store: one would wait for another that waits for it.
    """
    if run.settings.cache == OFF or run.settings.device == TENSOR_PARALLEL or run.settings.plan:
        return _temporary(run)
    from mechdrift.engine.store import folder_of

    return folder_of(run.settings.cache)


def _temporary(run: "ComparingRun") -> Path:
    """A folder that lives as long as the run."""
    from tempfile import TemporaryDirectory

    folder = TemporaryDirectory(prefix="mechdrift-")
    run.config.add_cleanup(folder.cleanup)
    return Path(folder.name)
