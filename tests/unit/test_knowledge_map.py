"""`mechdrift map`: against forwards with hooks of our own, what its file holds, and what it refuses."""

import io
import json
import os
import resource
import signal
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM

from mechdrift.checkpoints.resolve import resolve
from mechdrift.checkpoints.tokenizer import load_tokenizer
from mechdrift.commands.cli import main
from mechdrift.commands.map import save
from mechdrift.errors import InputError, Unmeasurable
from mechdrift.findings.knowledge.depth import centre_of_mass
from mechdrift.findings.knowledge.maps import Maps, Patched, kept_pairs, maps_of, mean_gap, share_right
from mechdrift.prompts.pairs import PromptPair
from mechdrift.prompts.positions import encode
from mechdrift.prompts.statements import fact_tables
from mechdrift.prompts.table_pairs import table_pairs
from mechdrift.report import terminal
from mechdrift.report.heat_map import heat_map
from mechdrift.stats import Proportion

KIND, UNITS = "animal_classes", 8
NUMBERS = ("recovery", "gains", "gaps")


@dataclass(frozen=True)
class Drawn:
    """What the command gave."""

    lines: list[str]
    numbers: dict[str, np.ndarray]
    result: dict[str, str]

    @property
    def columns(self) -> list[str]:
        """Of the recovery in the file."""
        return list(json.loads(self.result["columns"]))


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def drawn(cache: Path) -> Drawn:
    """A map of organism:base, on an output that has no shades."""
    out, screen = cache / "map.safetensors", io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", screen)
        arguments = ["--kind", KIND, "--units", str(UNITS), "--cache", str(cache), "--out", str(out)]
        assert main(["map", "organism:base", *arguments]) == 0
    screen.seek(0)
    with safe_open(out, framework="np") as file:
        return Drawn(screen.read().splitlines(), {name: file.get_tensor(name) for name in NUMBERS}, file.metadata())


def pairs_asked() -> list[PromptPair]:
    """The pairs of the first units."""
    tokenizer = load_tokenizer(resolve("organism:base"))
    (table,) = (table for table in fact_tables() if table.kind == KIND)
    pairs = table_pairs(table, partial(encode, tokenizer)).pairs
    units = list(dict.fromkeys(pair.unit for pair in pairs))[:UNITS]
    return [pair for pair in pairs if pair.unit in units]


@pytest.fixture(scope="module")
def by_hand() -> tuple[dict[tuple[int, str], float], int]:
    """Recovery by block and column through transformers and hooks alone, of the pairs that are answered right; and how many."""
    model: Any = AutoModelForCausalLM.from_pretrained(resolve("organism:base").folder, dtype=torch.float32).eval()

    def logits(rows: list[tuple[int, ...]], pair: PromptPair) -> list[float]:
        after = model(torch.tensor(rows)).logits[:, -1]
        return (after[:, pair.answers[0]] - after[:, pair.answers[1]]).tolist()

    gains: dict[tuple[int, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    gaps: dict[str, list[float]] = defaultdict(list)
    count = 0
    with torch.inference_mode():
        for pair in pairs_asked():
            clean, corrupt = logits([pair.clean, pair.corrupt], pair)
            if not clean > 0 > corrupt:
                continue
            count += 1
            gaps[pair.unit].append(clean - corrupt)
            tokens = torch.arange(pair.first, len(pair.clean))  # row n takes over the n-th of them
            states = model(torch.tensor([pair.clean]), output_hidden_states=True).hidden_states
            # The last of them is after the final norm, so the last block is left out.
            for layer, block in enumerate(model.model.layers[:-1]):

                def patch(_: Any, __: Any, output: torch.Tensor, taken: Any = states[layer + 1][0], at: Any = tokens) -> Any:
                    output = output.clone()
                    output[torch.arange(len(at)), at] = taken[at]
                    return output

                handle = block.register_forward_hook(patch)
                for name, d in zip(pair.columns, logits([pair.corrupt] * len(tokens), pair), strict=True):
                    gains[layer, name][pair.unit].append(d - corrupt)
                handle.remove()
    mean = {unit: float(np.mean(values)) for unit, values in gaps.items()}
    recovery = {
        cell: sum(float(np.mean(values)) for values in units.values()) / sum(mean[unit] for unit in units)
        for cell, units in gains.items()
    }
    return recovery, count


def test_the_numbers_are_those_of_plain_forwards(drawn: Drawn, by_hand: tuple[dict[tuple[int, str], float], int]) -> None:
    recovery, count = by_hand
    assert count >= 2 * UNITS - 2
    assert len(recovery) == (len(drawn.numbers["recovery"]) - 1) * len(drawn.columns)
    for (layer, name), value in recovery.items():
        assert drawn.numbers["recovery"][layer, drawn.columns.index(name)] == pytest.approx(value, abs=1e-4), (layer, name)
    # The logits see the last block's output at the last token, and nothing else of it.
    last = drawn.numbers["recovery"][-1]
    assert last[drawn.columns.index("last")] == pytest.approx(1, abs=1e-4)
    assert np.abs(np.delete(last, drawn.columns.index("last"))).max() < 1e-4


def test_the_terminal_shows_the_columns_that_half_of_the_units_have(
    drawn: Drawn, by_hand: tuple[dict[tuple[int, str], float], int]
) -> None:
    """Column by column the largest cell is that of plain forwards, and what is printed is what is written."""
    had = {name: len({pair.unit for pair in pairs_asked() if name in pair.columns}) for name in drawn.columns}
    shown = [name for name in drawn.columns if had[name] * 2 >= UNITS]
    assert 0 < len(shown) < len(drawn.columns)
    chosen = drawn.numbers["recovery"][:, [drawn.columns.index(name) for name in shown]]
    start = next(number for number, line in enumerate(drawn.lines) if line.startswith("block"))
    cells = [[int(cell) for cell in line.split()] for line in drawn.lines[start + 2 : start + 2 + len(chosen)]]
    assert [row[0] for row in cells] == list(range(len(chosen)))
    printed = np.array([row[1:] for row in cells])
    assert printed.shape == chosen.shape
    assert np.abs(printed - 100 * chosen).max() <= 0.51
    for column, name in enumerate(shown[:-1]):
        plain = [by_hand[0][layer, name] for layer in range(len(chosen) - 1)]
        if max(plain) > 0.1:
            assert plain[int(printed[:-1, column].argmax())] == pytest.approx(max(plain), abs=0.01)


def test_the_file_is_enough_to_draw_the_map_again(drawn: Drawn) -> None:
    gains, gaps = drawn.numbers["gains"].astype(float), drawn.numbers["gaps"].astype(float)
    there = ~np.isnan(gains[:, 0])
    np.testing.assert_allclose(np.nansum(gains, 0) / (gaps @ there), drawn.numbers["recovery"], atol=1e-5)
    assert {tensor.dtype for tensor in drawn.numbers.values()} == {np.dtype("float32")}
    assert len(json.loads(drawn.result["units"])) == len(gains) == len(gaps)
    assert {kind for kind, _ in json.loads(drawn.result["units"])} == {KIND}
    point = resolve("organism:base")
    expected = {"checkpoint": "organism:base", "identity": point.short, "form": "judged", "seed": "0"}
    assert {key: drawn.result[key] for key in expected} == expected


def test_what_is_said_beside_the_map(drawn: Drawn) -> None:
    text_out = "\n".join(drawn.lines)
    assert "organism:base (qwen3, 6 blocks x 160" in text_out
    assert f"{UNITS} units scored: right" in text_out
    for part in ("subject", "object", "last"):
        assert f"{part:<8} block " in text_out
    gains, columns = drawn.numbers["gains"].astype(float), drawn.columns
    last = np.nansum(gains[:, :, [columns.index("last")]], (0, 2))
    assert f"last     block {last @ np.arange(6) / last.sum():.1f} [" in text_out


def test_a_second_map_loads_no_model_and_is_drawn_in_shades(
    drawn: Drawn, cache: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mechdrift.engine.pool.load_model", lambda *_: pytest.fail("a model is loaded"))
    assert main(["map", "organism:base", "--kind", KIND, "--units", str(UNITS), "--cache", str(cache)]) == 0
    lines = capsys.readouterr().out.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("block"))
    count = len(drawn.numbers["recovery"])
    had = np.isfinite(drawn.numbers["gains"][:, 0]).mean(0) >= 0.5
    columns = [name for name, kept in zip(drawn.columns, had, strict=True) if kept]
    assert lines[start : start + 2 + count] == heat_map(columns, drawn.numbers["recovery"][:, had], shades=True)


@pytest.mark.parametrize(
    ("arguments", "text_out"),
    [
        (["--kind", "nonsense"], "--kind nonsense: no such kind; expected one of animal_classes, cities,"),
        (["--kind", KIND, "cities", "no"], "--kind no: no such kind"),
        (["--form", "spoken"], "argument --form: invalid choice"),
        (["--units", "3"], "--units 3; expected 4 or more"),
        (["--units", "some"], "argument --units: 'some': expected"),
        (["--batch", "0"], "argument --batch/--mechdrift-batch: '0': expected a positive number of tokens"),
        (["--dtype", "int8"], "'int8': expected one of auto, float32"),
        (["--device", "tp"], "--device tp; expected one process"),
        (["--out", "nowhere/map.safetensors"], "no folder nowhere; expected a file in a folder that exists"),
        (["--out", "/"], "there already, and no file"),
        (["--out", os.devnull], "there already, and no file"),
        (["--kind", "general_facts"], "153 dropped: no other subject"),
        (["--kind", "cities", "--units", "8"], "0 units to map, 4 needed; judged pairs right: cities 0."),
    ],
)
def test_what_cannot_be_used_or_measured_is_one_line(
    arguments: list[str], text_out: str, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code = main(["map", "organism:base", "--cache", str(cache), *arguments])
    except SystemExit as error:
        code = int(str(error.code))
    assert code == 4
    complaint = capsys.readouterr().err
    assert text_out in complaint
    assert complaint.startswith("mechdrift: ")
    assert complaint.count("\n") == 1
    assert os.path.exists(os.devnull)
    assert not os.path.isfile(os.devnull)


def test_a_model_that_knows_nothing_has_no_map(
    tiny_checkpoint: Callable[..., Path], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = tmp_path / "map.safetensors"
    arguments = ["--form", "cloze", "--kind", "element_symbols", "--cache", "off", "--out", str(out)]
    assert main(["map", str(tiny_checkpoint()), *arguments]) == 4
    text_out = capsys.readouterr()
    assert "not mapped: more than 0.7 needed" in text_out.out
    assert "cloze pairs right: element_symbols 0." in text_out.err
    assert not out.exists()


LAYERS = 12


def planted(noise: float = 0.2, seed: int = 0, units: int = 30) -> tuple[Patched, tuple[PromptPair, ...]]:
    """A model whose subject matters around block 3, whose last token around 9, and which gets every fifth unit wrong."""
    pairs = tuple(
        PromptPair((1,), (2,), (3, 4), 0, ("subject[-1]", "between[-1]", "last"), str(number), "cities", "test", ("", ""))
        for number in range(units)
    )
    recovery = np.zeros((LAYERS, 3))
    recovery[2:5, 0] = 0.2, 0.6, 0.2
    recovery[8:11, 2] = 0.5, 1.0, 0.5
    gap = np.where(np.arange(units) % 5 == 4, -4.0, 4.0)
    d = gap[:, None, None] * (recovery - 0.5) + noise * np.random.default_rng(seed).normal(size=(units, LAYERS, 3))
    return Patched(d, gap / 2, -gap / 2), pairs


def planted_maps(noise: float, seed: int = 0) -> Maps:
    model, pairs = planted(noise, seed)
    return maps_of(model, kept_pairs(model, model, pairs))


@pytest.mark.parametrize(("part", "block"), [("subject", 3), ("last", 9)])
def test_where_a_part_matters_is_what_was_planted(part: str, block: int) -> None:
    """Exactly without noise; with noise without bias, inside the 90% interval nine times in ten."""
    exact = centre_of_mass(planted_maps(0), part)
    assert exact.estimate == pytest.approx(block)
    assert exact.standard_error == pytest.approx(0, abs=1e-9)
    assert exact.n == 24
    found = [centre_of_mass(planted_maps(0.2, seed), part) for seed in range(200)]
    estimates = np.array([centre.estimate for centre in found])
    assert estimates.mean() == pytest.approx(block, abs=4 * estimates.std() / np.sqrt(200))
    covered = np.mean([centre.interval().low <= block <= centre.interval().high for centre in found])
    assert 0.84 <= covered <= 0.96


def test_a_part_that_carries_nothing_has_no_centre() -> None:
    with pytest.raises(Unmeasurable, match=r"summed over blocks; more than 0\.1 needed; n = 24 units"):
        centre_of_mass(planted_maps(0.01), "between")
    with pytest.raises(Unmeasurable, match="no column belongs to the object"):
        centre_of_mass(planted_maps(0.01), "object")


def test_one_models_answers_over_units() -> None:
    model, pairs = planted()
    assert share_right(model, pairs, "judged") == Proportion(24, 30)
    assert share_right(model, pairs, "cloze") == Proportion(24, 30)
    gap = mean_gap(model, pairs)
    assert gap.estimate == pytest.approx((24 * 4 - 6 * 4) / 30)
    assert gap.standard_error == pytest.approx(np.std(model.gap, ddof=1) / np.sqrt(30))


@contextmanager
def no_room() -> Iterator[None]:
    """No file may grow beyond some bytes, as on a full disk."""
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_full_disk_leaves_the_older_file_and_nothing_else(tmp_path: Path) -> None:
    model, pairs = planted()
    kept = kept_pairs(model, model, pairs)
    out = tmp_path / "map.safetensors"
    out.write_text("older")
    with no_room(), pytest.raises(InputError, match="File too large; expected a place to write to"):
        save(out, kept, maps_of(model, kept), {})
    assert [path.name for path in tmp_path.iterdir()] == [out.name]
    assert out.read_text() == "older"
    save(out, kept, maps_of(model, kept), {})
    assert out.read_bytes() != b"older"
    assert [path.name for path in tmp_path.iterdir()] == [out.name]


def test_progress_is_told_after_two_seconds_and_wiped_out_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, written = iter([0.0, 1.9, 4.0, 8.0]), list[str]()
    monkeypatch.setattr(terminal, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    say = terminal.progress_line("sweep\x1b[2J", written.append)
    for done in (1, 5, 10):
        say(done, 10)
    assert written == [f"\r{'mechdrift: sweep�[2J: 5/10, 4 s to go':<78}", f"\r{'':<78}\r"]
