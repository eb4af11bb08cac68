"""What cannot be run ends in one clear line, exit code 4, and nothing green."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

WEIGHTS = "model.safetensors"


def truncate(folder: Path) -> None:
    with (folder / WEIGHTS).open("r+b") as handle:
        handle.truncate(30_000)


def poison(folder: Path) -> None:
    tensors = load_file(folder / WEIGHTS)
    tensors["model.norm.weight"][3] = torch.nan
    save_file(tensors, folder / WEIGHTS, {"format": "pt"})


def pickle_only(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder / "pytorch_model.bin")


def lose_a_tensor(folder: Path) -> None:
    tensors = load_file(folder / WEIGHTS)
    del tensors["model.norm.weight"]
    save_file(tensors, folder / WEIGHTS, {"format": "pt"})


def spoil_the_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{}")


def spoil_the_template(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text("{% for message in %}")


@pytest.mark.parametrize(
    ("breaking", "message"),
    [
        (truncate, "model.safetensors is 30,000 bytes long; expected"),
        (poison, "1 of 32 weights of model.norm.weight are NaN or infinite; expected finite weights"),
        (pickle_only, "weights as pickle only; expected model.safetensors"),
        (lose_a_tensor, "1 tensors missing, first model.norm.weight"),
        (spoil_the_tokenizer, "tokenizer does not load"),
        (spoil_the_template, "chat template does not render (TemplateSyntaxError"),
    ],
)
def test_a_broken_checkpoint_ends_the_run(
    compare: Callable[..., Any],
    tiny_checkpoint: Callable[..., Path],
    breaking: Callable[[Path], None],
    message: str,
) -> None:
    folder = tiny_checkpoint()
    breaking(folder)
    run = compare(folder, folder)
    assert run.code == 4
    assert message in run.out + run.err
    assert "Traceback" not in run.out + run.err
    assert " passed" not in run.out
    assert "held" not in run.verdicts().values()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("--base", "./no/such", "--post", "organism:base"),
            "mechdrift: ./no/such: no such folder; expected a checkpoint folder, organism:NAME, or org/name@revision of the hub",
        ),
        (("--base", "organism:base"), "mechdrift: --post is missing; expected both; type: pytest --base SPEC --post SPEC"),
        (("--post", "organism:base"), "mechdrift: --base is missing"),
        (
            ("--base", "organism:base", "--post", "organism:x"),
            "organism:x: no such organism; expected one of base, sft, instruct",
        ),
        (("--stage", "sft=a"), "mechdrift: --base is missing; expected both"),
        (("--base", "a", "--post", "b", "--stage", "a/b"), "'a/b': expected NAME=SPEC, as in sft=runs/sft"),
        (("--base", "a", "--post", "b", "--stage", "sft="), "'sft=': expected NAME=SPEC"),
        (("--base", "a", "--post", "b", "--stage", "a b=c"), "'a b=c': expected NAME=SPEC"),
        (("--base", "a", "--post", "b", "--stage", "post=c"), "'post=c': post is given with --post; expected another name"),
        (
            ("--base", "a", "--post", "b", "--stage", "x=c", "--mechdrift-stage", "x=d"),
            "mechdrift: --stage x is given twice; expected one of each name",
        ),
        (("--base", "organism:base", "--post", "organism:base", "--stage", "x=./none"), "mechdrift: ./none: no such folder"),
        (("--base", "a", "--post", "b", "--mechdrift-device", "tpu"), "expected auto, cpu, cuda, cuda:N, map or tp"),
        (("--base", "a", "--post", "b", "--mechdrift-dtype", "int8"), "expected one of auto, float32"),
        (("--base", "a", "--post", "b", "--mechdrift-batch", "0"), "expected a positive number of tokens"),
        (("--base", "a", "--post", "b", "--mechdrift-seed", "-1"), "expected 0 or a positive whole number"),
        (
            ("--base", "a", "--post", "b", "--mechdrift-profile", "x"),
            "mechdrift: profile 'x': unknown; expected one of base-to-post",
        ),
        (("--base", "a", "--post", "b", "--mechdrift-only", "truht"), "'truht': no such finding; expected one of truth"),
        (
            ("--base", "a", "--post", "b", "--mechdrift-record", "no/such/folder/r.json"),
            "expected a file in a folder that exists",
        ),
        (("--base", "organism:base", "--post", "organism:base", "--mechdrift-statements", "none.csv"), "none.csv: not found"),
        (("--base", "organism:base", "--post", "organism:base", "--mechdrift-device", "cuda:99"), "GPUs here; expected one that"),
    ],
)
def test_wrong_usage_is_one_line(pytester: pytest.Pytester, arguments: tuple[str, ...], message: str) -> None:
    result = pytester.runpytest_inprocess(*arguments)
    assert result.ret == 4
    printed = result.stdout.str() + result.stderr.str()
    assert message in printed
    assert "Traceback" not in printed
    assert " passed" not in printed


def test_a_record_that_cannot_be_written_is_never_green(compare: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, record: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("mechdrift.report.record.write_record", full)
    run = compare("organism:base", "organism:base", "--mechdrift-only", "truth.clean_gap")
    assert run.code == 4
    assert "not written: No space left on device; make room or name another place" in run.out
