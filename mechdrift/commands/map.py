"""`mechdrift map`: where one checkpoint keeps what it knows."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from mechdrift.checkpoints.identity import Memory
from mechdrift.checkpoints.resolve import Checkpoint, Resolver
from mechdrift.checkpoints.tokenizer import try_tokenizer
from mechdrift.device_names import TENSOR_PARALLEL
from mechdrift.engine.batches import Progress
from mechdrift.engine.pool import Pool
from mechdrift.engine.store import Store, folder_of
from mechdrift.engine.stored_recordings import Prompts, Recorder
from mechdrift.engine.stored_sweep import sweep_through
from mechdrift.engine.sweep import Pairs
from mechdrift.errors import InputError, Unmeasurable
from mechdrift.files import write_whole
from mechdrift.findings.knowledge.depth import centre_of_mass
from mechdrift.findings.knowledge.maps import Kept, Maps, Patched, answered, kept_pairs, maps_of, mean_gap, share_right
from mechdrift.findings.minimums import ACCURACY_MINIMUM
from mechdrift.models.devices import check_device, pick_device, pick_dtype
from mechdrift.prompts.pairs import LAST, OBJECT, SUBJECT, Form, Found, PromptPair, part_of
from mechdrift.prompts.positions import encode
from mechdrift.prompts.statements import FactTable, fact_tables, table_statements
from mechdrift.prompts.table_pairs import table_pairs
from mechdrift.report import text
from mechdrift.report.heat_map import heat_map, legend
from mechdrift.settings.values import OFF
from mechdrift.stats import Proportion

LEAST_UNITS = 4  # for a jackknife
MEANING = "share of the clean gap that comes back with one block's output at one token of the clean prompt"


@dataclass(frozen=True)
class Request:
    """What was requested."""

    spec: str
    """Of the checkpoint."""
    form: Form
    """How pairs ask."""
    kind: list[str] | None
    """Names of kinds; None: all that the model knows."""
    units: int
    """Of each kind, at most."""
    seed: int
    """Of splits, pairs and few-shot orders."""
    device: str
    """Where the model runs."""
    dtype: str
    """In which precision."""
    batch: int
    """Padded tokens a forward."""
    cache: str | None
    """Folder of the store; None: the user's cache folder; `off`: a temporary one."""
    out: Path | None
    """Where the numbers go."""


@dataclass(frozen=True)
class Kind:
    """What the model makes of one kind's pairs."""

    found: Found
    """All that the tokenizer allows."""
    pairs: tuple[PromptPair, ...]
    """Those that were scored; none where there are too few."""
    answers: Patched
    """Clean and corrupt logits of those; nothing is patched yet."""
    form: Form
    """How they ask."""

    @property
    def known(self) -> tuple[PromptPair, ...]:
        """The pairs that are answered right; none where the model may know the kind no better than by luck."""
        if not self.pairs or not self.right.interval().low > ACCURACY_MINIMUM:
            return ()
        right = answered(self.answers.clean, self.answers.corrupt, self.form) == 1.0
        return tuple(pair for pair, keep in zip(self.pairs, right, strict=True) if keep)

    @property
    def right(self) -> Proportion:
        """Share of the pairs that are answered right; of no pairs there is none."""
        return share_right(self.answers, self.pairs, self.form)

    def summary(self) -> list[str]:
        """In a line or two."""
        lines = [self.found.summary()]
        if not self.pairs:
            lines.append(f"not scored: {LEAST_UNITS} units needed")
        else:
            gap = mean_gap(self.answers, self.pairs)
            lines.append(f"{self.right.n} units scored: right {self.right.words(3)}, clean gap {gap.words(2)} logits")
            if not self.known:
                lines[-1] += f"; not mapped: more than {ACCURACY_MINIMUM:g} needed"
        return lines


def drawn(request: Request, progress: Callable[[str], Progress], shades: bool) -> Iterator[str]:
    """Lines for people, each when it is known; with request.out the numbers are in a file before the last.

    shades: whether the output can show them. Raises InputError, and Unmeasurable where the model knows too little.
    """
    tables = _tables(request.kind)
    _check_place(request.out)
    if request.units < LEAST_UNITS:
        raise InputError(f"--units {request.units}", f"{LEAST_UNITS} or more", "ask more of each kind")
    if request.device == TENSOR_PARALLEL:
        raise InputError(f"--device {TENSOR_PARALLEL}", "one process", "use --device map to spread a model over GPUs and CPU")
    check_device(request.device)
    device = pick_device(request.device)
    pool = Pool(device, pick_dtype(request.dtype, device))
    with _store(request.cache) as folder:
        point = Resolver(Memory(folder / "identities"), progress).resolve(request.spec)
        recorder = Recorder(pool, Store(folder), request.batch, progress)
        yield from _row("checkpoint", [text.described(point)])
        yield from _row("settings", [f"{request.form}, seed {request.seed}, {pool.dtype} on {device}"])
        try_tokenizer(point, [one.text for table in tables for one in table_statements(table, request.seed)])
        tokens = partial(encode, pool.tokenizer(point))
        found = {table.kind: table_pairs(table, tokens, request.form, request.seed) for table in tables}
        if max(of.units for of in found.values()) < LEAST_UNITS:
            counts = ". ".join(f"{kind}: {of.summary()}" for kind, of in found.items())
            raise Unmeasurable(f"{point.spec}: {counts}; {LEAST_UNITS} units of a kind needed")
        kinds = recorder.at_one_batch(lambda: {kind: _requested(recorder, point, of, request) for kind, of in found.items()})
        for name, kind in kinds.items():
            yield from _row(name, kind.summary())
        kept = recorder.at_one_batch(lambda: _swept(recorder, point, kinds, request.form))
        yield from _shown(*kept, shades)
        if request.out is not None:
            details = {"checkpoint": point.pinned, "identity": point.short, "form": request.form, "seed": str(request.seed)}
            save(request.out, *kept, details)
            yield from _row("written", [text.printable(str(request.out))])
        for warning in dict.fromkeys([*point.notes, *recorder.warnings, *recorder.store.warnings]):
            yield from _row("warning", [text.printable(warning)])


def _tables(names: list[str] | None) -> list[FactTable]:
    """The tables of the named kinds, or all. Raises InputError for a name that is none."""
    tables = {table.kind: table for table in fact_tables()}
    for name in names or ():
        if name not in tables:
            raise InputError(f"--kind {name}: no such kind", f"one of {', '.join(tables)}", "name one, or none for all")
    return [table for kind, table in tables.items() if not names or kind in names]


def _check_place(out: Path | None) -> None:
    """Raise InputError where no file can go, before anything is measured; a device would be replaced by one."""
    if out is not None and not out.absolute().parent.is_dir():
        raise InputError(f"--out {out}: no folder {out.parent}", "a file in a folder that exists", "make the folder")
    if out is not None and out.exists() and not out.is_file():
        raise InputError(f"--out {out}: there already, and no file", "a file's name", "name another")


@contextmanager
def _store(cache: str | None) -> Iterator[Path]:
    """The folder of the store."""
    if cache == OFF:
        with TemporaryDirectory(prefix="mechdrift-") as folder:
            yield Path(folder)
    else:
        yield folder_of(cache)


def _requested(recorder: Recorder, point: Checkpoint, found: Found, request: Request) -> Kind:
    """The first units of a kind, in the order that the seed drew, and what the model answers to them."""
    units = list(dict.fromkeys(pair.unit for pair in found.pairs))[: request.units if found.units >= LEAST_UNITS else 0]
    pairs = tuple(pair for pair in found.pairs if pair.unit in units)
    d = np.zeros((2, 0), dtype=np.float32)
    if pairs:
        prompts = [list(pair.clean) for pair in pairs] + [list(pair.corrupt) for pair in pairs]
        answers: list[tuple[int, ...]] = [pair.answers for pair in pairs]
        logits = recorder.logits(point, Prompts(prompts, [len(prompt) - 1 for prompt in prompts], answers * 2))
        d = (logits[:, 0] - logits[:, 1]).reshape(2, -1)
    nothing = np.zeros((len(pairs), 0, 0), dtype=np.float32)
    return Kind(found, pairs, Patched(nothing, *d), request.form)


def _swept(recorder: Recorder, point: Checkpoint, kinds: dict[str, Kind], form: Form) -> tuple[Kept, Maps]:
    """The pairs that the model answers right, and their maps. Raises Unmeasurable, with the counts, where they are too few."""
    pairs = [pair for kind in kinds.values() for pair in kind.known]
    if (units := len({(pair.kind, pair.unit) for pair in pairs})) < LEAST_UNITS:
        counts = ", ".join(f"{name} {kind.right.words(3)} of {kind.right.n} units" for name, kind in kinds.items() if kind.pairs)
        raise Unmeasurable(
            f"{point.spec}: {units} units to map, {LEAST_UNITS} needed; {form} pairs right: {counts}; more than "
            f"{ACCURACY_MINIMUM:g} needed; try --form {'cloze' if form == 'judged' else 'judged'}"
        )
    swept = sweep_through(
        recorder,
        point,
        Pairs(
            [pair.corrupt for pair in pairs],
            [pair.clean for pair in pairs],
            [pair.answers for pair in pairs],
            [pair.first for pair in pairs],
        ),
    )
    model = Patched(swept.patched.numpy(), swept.clean.numpy(), swept.corrupt.numpy())
    kept = kept_pairs(model, model, pairs, form)  # one model, so twice
    return kept, maps_of(model, kept)


def _shown(kept: Kept, maps: Maps, shades: bool) -> Iterator[str]:
    """The heat map, and around which block each part matters."""
    compared = maps.of("all")
    yield from _row("map", [f"{kept.mask.sum()} pairs in {len(kept.units)} units, answered right", MEANING, legend(shades), ""])
    yield from heat_map(compared.columns, compared.recovery(), shades)
    yield ""
    head = "centre"
    for part in (SUBJECT, OBJECT, LAST):
        if any(part_of(name) == part for name in maps.columns):
            try:
                centre = f"block {centre_of_mass(maps, part).words(1)} of 0..{maps.gains.shape[1] - 1}"
            except Unmeasurable as error:
                centre = str(error)
            yield from _row(head, [f"{part:<8} {centre}"])
            head = ""


def _row(head: str, lines: Sequence[str]) -> Iterator[str]:
    """Lines under a head in the margin."""
    for number, line in enumerate(lines):
        yield f"{'' if number else head:<16} {line}".rstrip()


def save(path: Path, kept: Kept, maps: Maps, details: dict[str, str]) -> None:
    """Write a safetensors file, whole or not at all: recovery [layer, column], gains [unit, layer, column], gaps [unit], float32.

    Its metadata has, beside details, the names of columns and the [kind, unit] of units, as JSON. A gain is NaN where a unit
    has no such column. Raises InputError where it cannot be written.
    """
    from safetensors.numpy import save as packed

    names = {"columns": json.dumps(maps.columns), "units": json.dumps(kept.units)}
    tensors = {"recovery": maps.recovery(), "gains": maps.gains, "gaps": maps.gaps}
    try:
        write_whole(path, packed({name: tensor.astype(np.float32) for name, tensor in tensors.items()}, details | names))
    except OSError as error:
        raise InputError(f"--out {path}: {error.strerror}", "a place to write to", "make room, or name another") from error
