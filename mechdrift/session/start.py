"""How a run starts: checkpoints are read through and prompts read, before any test."""

import json
import os
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from mechdrift.checkpoints import tokenizer_check
from mechdrift.checkpoints.chain import BASE, BASE_TO_POST, POST, Between, without
from mechdrift.checkpoints.chat import template_warning
from mechdrift.checkpoints.classifier import read_classifier
from mechdrift.checkpoints.config_changes import Change, config_changes
from mechdrift.checkpoints.identity import Memory
from mechdrift.checkpoints.resolve import Checkpoint, Resolver
from mechdrift.checkpoints.special_tokens import end_tokens
from mechdrift.checkpoints.template_choice import OWN, TemplateChoice, read_choice
from mechdrift.checkpoints.tokenizer import load_tokenizer, try_tokenizer
from mechdrift.checkpoints.vocabulary import vocabulary_note
from mechdrift.device_names import TENSOR_PARALLEL
from mechdrift.engine.generate.choose import backend_for, note_on
from mechdrift.engine.generate.judged import read_judge
from mechdrift.engine.store import folder_of
from mechdrift.errors import InputError, Unmeasurable
from mechdrift.models.devices import check_device, pick_device
from mechdrift.prompts.chat_forms import PLAIN
from mechdrift.prompts.instructions import read_instructions
from mechdrift.prompts.judgement import judgement_prompts
from mechdrift.prompts.statements import shipped_statements
from mechdrift.prompts.texts import read_texts, sample
from mechdrift.prompts.written_pairs import read_pairs
from mechdrift.prompts.written_statements import read_statements
from mechdrift.session.inputs import Prompts, RunInputs
from mechdrift.session.progress import open_terminal, progress_line
from mechdrift.session.request import Request
from mechdrift.settings import Settings
from mechdrift.settings.values import OFF
from mechdrift.stages.lineage import How, points_without
from mechdrift.stages.without_stage import KEPT


def refuse_settings_of_checkpoints(config: pytest.Config, settings: Settings) -> None:
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


def start(config: pytest.Config, request: Request) -> RunInputs:
    """Choose the store, resolve the checkpoints, read what is asked. Raises UsageError."""
    tokenizer_check.prepare()  # it loads its libraries while weights are read
    settings, store_folder = request.settings, _choose_store(config, request.settings)
    resolver = Resolver(Memory(store_folder / "identities"), lambda label: progress_line(config, label))
    try:
        check_device(settings.device)
        judge = read_judge(settings.judge) if settings.judge else None
        backend(settings, ())
        templates = read_choice(settings.template_args, settings.template)
        points = {}
        with open_terminal(config):
            for name, spec in ((BASE, settings.base), *settings.stages, *settings.posts):
                points[name] = resolver.resolve(spec)
        absent: dict[str, str] = {}
        lineage_notes: list[str] = []
        if settings.lineage and settings.plan:  # which writes nothing, and asks as much of post as of post without a stage
            points |= dict.fromkeys(set(without(request.stages, POST).values()) - points.keys(), points[POST])
        elif settings.lineage:
            how = _how(config, request, store_folder)
            made = points_without(points, request.stages, POST, _temporary(config), resolver.resolve, how)
            points, absent, lineage_notes = points | made[0], made[1], made[2]
        backend(settings, points.values())
        warnings = [note for point in points.values() for note in point.notes]
        prompts = read_prompts(request)
        warnings += check_tokenizers(points, prompts, settings.seed, templates)
        measured = [between for between in request.betweens if between.later not in absent]
        changes, notes = _differences(points, measured)
        warnings += [*notes, *same_files_warnings(request, points)]
        if note := note_on(settings.generator, pick_device(settings.device), list(points.values())):
            warnings.append(note)
        request.hand_set.require_layers(min(point.layers for point in points.values()))
        classifier = read_classifier(settings.reply_classifier) if settings.reply_classifier else None
    except InputError as error:
        raise pytest.UsageError(f"mechdrift: {error}") from error
    return RunInputs(
        points, prompts, store_folder, classifier, judge, templates, absent, changes, tuple(lineage_notes), tuple(warnings)
    )


def _differences(
    points: Mapping[str, Checkpoint], betweens: Collection[Between]
) -> tuple[dict[Between, tuple[Change, ...]], list[str]]:
    """Of each comparison, settings that are not the same; and notes on vocabularies."""
    changed, notes = {}, []
    for between in betweens:
        both = points[between.earlier], points[between.later]
        if changes := config_changes(*both):
            changed[between] = changes
        if note := vocabulary_note(*both):
            notes.append(note if between == BASE_TO_POST else f"{between}: {note}")
    return changed, notes


def same_files(request: Request, points: Mapping[str, Checkpoint]) -> list[list[str]]:
    """Names of the checkpoints that the user gave more than once, whatever their paths: those of one content together."""
    given = [BASE, *request.stages, *(name for name, _ in request.settings.posts)]
    groups: dict[str, list[str]] = {}
    for name in given:
        groups.setdefault(json.dumps(points[name].digests, sort_keys=True), []).append(name)
    return [names for names in groups.values() if len(names) > 1]


def same_files_warnings(request: Request, points: Mapping[str, Checkpoint]) -> list[str]:
    """A line for each checkpoint that was given twice, and one where post has base's very weights."""
    shortcut = request.settings.identity_shortcut
    lines = []
    for names in same_files(request, points):
        nothing = ": nothing was compared" if shortcut and request.betweens_within(names) else ""
        lines.append(f"{' and '.join(names)} are the same files{nothing}; check the specs")
    for between in request.ends:
        base, post = points[between.earlier].digests, points[between.later].digests
        unlike = sorted(part for part in base.keys() | post.keys() if base.get(part) != post.get(part))
        if unlike and not {"weights", "adapter"} & {*unlike}:
            lines.append(f"{between.earlier} and {between.later} have the same weights and differ only in: {', '.join(unlike)}")
    return lines


def _how(config: pytest.Config, request: Request, store_folder: Path) -> How:
    """How post without a stage is made."""
    return How(
        request.estimator,
        {name: Path(folder) for name, folder in request.settings.stage_logs},
        pick_device(request.settings.device),
        store_folder / KEPT,
        lambda label: progress_line(config, label),
    )


def check_tokenizers(points: Mapping[str, Checkpoint], prompts: Prompts, seed: int, templates: TemplateChoice = OWN) -> list[str]:
    """Try every tokenizer on what it will be given; returns what chat templates do wrong, or never read. Raises InputError."""
    warnings: list[str] = []
    texts = run_texts(prompts, seed)
    for point in {point.short: point for point in points.values()}.values():
        try_tokenizer(point, texts)
        tokenizer = load_tokenizer(point, templates)
        with suppress(Unmeasurable):  # where nothing ends a reply, rows of replies say so
            end_tokens(point)
        templates.require_usable(point, tokenizer)
        warnings += filter(None, (template_warning(point, tokenizer), templates.warning(point, tokenizer)))
    return warnings


def run_texts(prompts: Prompts, seed: int) -> list[str]:
    """What tokenizers will be given, as far as it is known before any has read it: prompts without what templates add."""
    judged: list[str] = []
    with suppress(Unmeasurable):  # too few statements to judge by: its rows say so
        affirmed = [one for one in prompts.statements if not one.negated]
        judged = list(judgement_prompts(affirmed, seed, "test").values())[::8]  # they are made of the same examples
    return [
        *(one.text for one in prompts.statements),
        *judged,
        *(one.text.join(PLAIN) for one in prompts.instructions.all),
        *(text.text for text in prompts.texts.all),
        *(side + answer for pair in prompts.pairs for side in (pair.clean, pair.corrupt) for answer in pair.answers or ("",)),
    ]


def read_prompts(request: Request) -> Prompts:
    """The user's statements, pairs, instructions and texts, or the shipped ones. Raises InputError."""
    settings, seed = request.settings, request.settings.seed
    own = read_statements(settings.statements, seed) if settings.statements else None
    statements = own.all if own else shipped_statements(seed)
    pairs = read_pairs(settings.pairs, seed) if settings.pairs else None
    instructions = read_instructions(settings.harmful, settings.harmless, seed)
    given, most = settings.texts, request.tier.texts
    texts = sample(statements, instructions.all, most) if given is None else read_texts(given, most)
    return Prompts(
        request.tier.statements(statements),
        pairs.all if pairs else (),
        instructions,
        texts,
        own.used if own else None,
        pairs.used if pairs else None,
    )


def backend(settings: Settings, points: Collection[Checkpoint]) -> str:
    """What makes replies, as far as the checkpoints are known. Raises InputError for one that cannot."""
    return backend_for(settings.generator, pick_device(settings.device), settings.vllm_args, list(points))


def _choose_store(config: pytest.Config, settings: Settings) -> Path:
    """The folder of the store; for `off` one that lives as long as the run.

    Processes that run one model together may not share a store: one would wait for another that waits for it.
    """
    if settings.cache == OFF or settings.device == TENSOR_PARALLEL or settings.plan:
        return _temporary(config)
    return folder_of(settings.cache)


def _temporary(config: pytest.Config) -> Path:
    """A folder that lives as long as the run."""
    folder: TemporaryDirectory[str] = TemporaryDirectory(prefix="mechdrift-")
    config.add_cleanup(folder.cleanup)
    return Path(folder.name)
