"""Chat templates that are broken or odd cost the rows that need them, and their notes say what was done."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cases.tokens import NEEDS_SYSTEM, PARTS, TURNS, WANTS_IMAGES

from mechdrift.checkpoints.chat import AS_PARTS, SYSTEM
from mechdrift.checkpoints.resolve import resolve


def instruct(folder: Path, template: str, name: str = "chat_template.jinja") -> Path:
    """A copy of organism:instruct with another template."""
    shutil.copytree(resolve("organism:instruct").folder, folder, ignore=shutil.ignore_patterns("log-*"))
    (folder / "chat_template.jinja").unlink()
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text("{{ bos_token }}" + template)
    return folder


@pytest.mark.nightly
def test_a_broken_template_costs_its_rows_and_no_other(compare: Callable[..., Any], tmp_path: Path) -> None:
    post = instruct(tmp_path / "post", WANTS_IMAGES)
    only = ("--mechdrift-only", "truth.clean_gap", "--mechdrift-only", "refusal.harmful")
    run = compare("organism:base", post, *only)
    assert run.code == 7
    assert {label: row["verdict"] for label, row in run.rows.items()} == {
        "truth.clean_gap": "held",
        "refusal.harmful": "unmeasurable",
    }
    fault = f"{post}: chat template does not render (TemplateError: an image is needed)"
    assert run.rows["refusal.harmful"]["reason"] == fault
    assert run.record["run"]["warnings"] == [f"{fault}: rows of refusal are unmeasurable"]


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("template", "said"),
    [
        (PARTS, AS_PARTS),
        (NEEDS_SYSTEM, f"the chat template is given the system turn '{SYSTEM}': it accepts nothing simpler"),
    ],
    ids=["parts", "system"],
)
def test_notes_say_how_a_template_was_used_or_why_not(
    compare: Callable[..., Any], tmp_path: Path, template: str, said: str
) -> None:
    base = instruct(tmp_path / "base", TURNS, "additional_chat_templates/rag.jinja")
    post = instruct(tmp_path / "post", template)
    run = compare(base, post, "--mechdrift-only", "refusal.direction", "--mechdrift-fail-on", "drifted")
    note = run.rows["refusal.direction[form=native]"]["note"]
    assert "prompt forms: base plain, post native; base named chat template rag and none called default: plain form" in note
    assert f"; post {said}; fitted on" in note
    assert f"{post}: {said}" in run.record["run"]["warnings"]
