"""Real models, from packages that carry them: a model against itself, against a LoRA of itself, and where it knows cities."""

import csv
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from real_models import PACKAGES, gguf_of
from safetensors import safe_open

from mechdrift.prompts.statements import shipped_statements


@pytest.fixture(scope="session")
def file_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The file of a real model; skips, saying so, where its package is not installed."""

    def find(name: str) -> Path:
        file = gguf_of(name, tmp_path_factory.getbasetemp())
        if file is None:
            pytest.skip(f"{name}: package {PACKAGES[name]} is not installed")
        return file

    return find


@pytest.fixture
def compare(pytester: pytest.Pytester) -> Callable[[object, object], dict[str, Any]]:
    """The record of `pytest --base X --post Y`."""

    def run(base: object, post: object) -> dict[str, Any]:
        record, table = pytester.path / "record.json", pytester.path / "elements.csv"
        with table.open("w", newline="") as handle:  # one kind: enough to be asked, and quick
            writer = csv.writer(handle)
            writer.writerow(["statement", "label", "entity", "value"])
            for statement in shipped_statements():
                if statement.kind == "element_symbols" and not statement.negated:
                    writer.writerow([statement.text, statement.label, statement.entity, statement.value])
        options = (
            "--mechdrift-no-identity-shortcut",
            "--mechdrift-batch",
            "2048",
            "--mechdrift-cache",
            "off",
            "--mechdrift-statements",
        )
        result = pytester.runpytest_subprocess(
            "--base", str(base), "--post", str(post), "--mechdrift-record", str(record), *options, str(table)
        )
        assert record.is_file(), result.stdout.str() + result.stderr.str()
        return dict(json.loads(record.read_text()))

    return run


@pytest.mark.parametrize("name", PACKAGES)
def test_a_model_against_itself_does_not_drift(
    compare: Callable[..., dict[str, Any]], file_of: Callable[[str], Path], name: str
) -> None:
    """Neither judges statements TRUE or FALSE above chance, so most rows cannot be measured, and say why."""
    file = file_of(name)
    record = compare(file, file)
    assert record["rows"]
    for row in record["rows"]:
        assert row["verdict"] in ("held", "unmeasurable"), row
    assert record["inputs"]["base"]["quantised"].startswith("gguf Q")


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # of PEFT
def test_a_lora_of_a_real_model_is_compared_through_its_adapter(
    compare: Callable[..., dict[str, Any]], file_of: Callable[[str], Path], tmp_path: Path
) -> None:
    """A few steps on one sentence: the adapter learns it, and the comparison reads both, as checkpoints that differ."""
    import torch
    from peft import LoraConfig, get_peft_model

    from mechdrift.checkpoints.resolve import resolve
    from mechdrift.checkpoints.tokenizer import load_tokenizer
    from mechdrift.models.load import load_model

    file = file_of("SmolLM2-135M-Instruct")
    base = resolve(str(file))
    ids = torch.tensor([load_tokenizer(base)("The city of Lodz is in Peru.")["input_ids"]])
    plain = load_model(base, torch.float32, "cpu")
    with torch.inference_mode():
        before = plain(ids, labels=ids).loss.item()
    torch.manual_seed(0)
    model = get_peft_model(plain, LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"))
    model.train()
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=2e-3)
    for _ in range(8):
        optimiser.zero_grad()
        loss = model(ids, labels=ids).loss
        loss.backward()
        optimiser.step()
    trained = model.eval()(ids, labels=ids).loss.item()
    assert trained < before - 0.5
    model.save_pretrained(tmp_path / "adapter", save_embedding_layers=False)

    with torch.inference_mode():
        adapted = load_model(resolve(f"{file}+{tmp_path / 'adapter'}"), torch.float32, "cpu")
        assert adapted(ids, labels=ids).loss.item() == pytest.approx(trained, abs=1e-3)
    record = compare(file, f"{file}+{tmp_path / 'adapter'}")
    assert record["rows"]
    assert "error" not in {row["verdict"] for row in record["rows"]}
    assert record["inputs"]["identical"] is False
    assert record["inputs"]["post"]["digests"].keys() == {"weights", "adapter", "adapter_config"}


def test_where_a_real_model_knows_cities(file_of: Callable[[str], Path], tmp_path: Path) -> None:
    """The command of the README, on a model that judges at chance and knows where cities lie all the same."""
    file, out = file_of("SmolLM2-135M-Instruct"), tmp_path / "cities.safetensors"
    program = "import sys; from mechdrift.commands.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", program, "map", str(file), "--form", "cloze", "--kind", "cities"]
    done = subprocess.run(
        [*command, "--cache", "off", "--out", str(out)],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONIOENCODING": "utf-8"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    mapped = re.search(r"^map +(\d+) pairs in (\d+) units, answered right$", done.stdout, re.MULTILINE)
    assert mapped, done.stdout
    assert int(mapped[1]) >= 50
    with safe_open(out, framework="np") as shown:
        recovery, columns, units = (
            shown.get_tensor("recovery"),
            json.loads(shown.metadata()["columns"]),
            shown.metadata()["units"],
        )
    assert len(json.loads(units)) == int(mapped[2])
    assert np.isfinite(recovery).all()
    # What must be, whatever the model: the logits see the last block's output at the last token, and nothing else of it.
    last = columns.index("last")
    np.testing.assert_allclose(recovery[-1], np.eye(len(columns))[last], atol=1e-3)
    # What is known of such models (Meng et al. 2022): the subject's last token early, the prompt's last token late.
    assert recovery[: len(recovery) // 3, columns.index("subject[-1]")].max() > 0.5 > recovery[: len(recovery) // 3, last].max()
    assert "███" in done.stdout
