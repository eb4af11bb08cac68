"""A model whose residual stream nobody finds: what needs no stream is read of it, and the rest says why not."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from mechdrift.checkpoints.resolve import resolve
from mechdrift.engine.generate.arms import Added, Arm
from mechdrift.engine.generate.batched import TransformersGenerator
from mechdrift.engine.pool import Pool
from mechdrift.engine.store import Store
from mechdrift.engine.stored_recordings import Prompts, Recorder
from mechdrift.errors import Unmeasurable
from mechdrift.models import families
from mechdrift.models.families import Family, listed

IDS = [[0, 5, 9, 200, 31], [0, 7, 8], [0, 100, 101, 102, 103, 104, 105, 106]]
PROMPTS = Prompts(IDS, [len(ids) - 1 for ids in IDS], [(3, 4)] * 3)
NO_STREAM = "no final norm: nothing takes the last block's output"


@pytest.fixture
def recorder(tmp_path: Path) -> Recorder:
    return Recorder(Pool("cpu", "float32"), Store(tmp_path), 4096)


@pytest.fixture
def folder(tiny_checkpoint: Callable[..., Path]) -> Path:
    return tiny_checkpoint("bert", is_decoder=True)


def test_logits_are_the_models_own(recorder: Recorder, folder: Path) -> None:
    found = recorder.logits(resolve(str(folder)), PROMPTS)
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    for row, ids in zip(found, IDS, strict=True):
        with torch.inference_mode():
            logits = model(torch.tensor([ids])).logits[0, -1]
        assert row[:2] == pytest.approx(logits[[3, 4]].numpy(), abs=1e-4)


def test_what_needs_the_stream_says_why_it_has_none_each_time(recorder: Recorder, folder: Path) -> None:
    point = resolve(str(folder))
    for _ in range(2):
        with pytest.raises(Unmeasurable, match=NO_STREAM):
            recorder.blocks(point, PROMPTS)
    assert (recorder.pool.loads, recorder.pool.streams) == (1, {})
    recorder.logits(point, PROMPTS)
    assert recorder.pool.loads == 1, "the model was kept"


def test_it_replies_but_under_no_intervention(recorder: Recorder, folder: Path) -> None:
    point, moved = resolve(str(folder)), Arm("added", Added(np.eye(32, dtype=np.float32)[0], 1, 4.0))
    replies = TransformersGenerator(recorder).replies(point, IDS, [Arm("plain"), moved], 4)
    assert [len(reply) for reply in replies["plain"]] == [4, 4, 4]  # type: ignore[union-attr]
    assert isinstance(replies["added"], Unmeasurable)
    assert NO_STREAM in str(replies["added"])


def test_of_a_model_that_was_loaded_the_record_knows_where_its_stream_was(
    recorder: Recorder, tiny_checkpoint: Callable[..., Path]
) -> None:
    point = resolve(str(tiny_checkpoint()))
    recorder.logits(point, PROMPTS)
    assert recorder.pool.streams == {}, "nobody asked for it"
    recorder.blocks(point, PROMPTS)
    assert recorder.pool.streams == {point.spec: "3 blocks, then LlamaRMSNorm; written by self_attn, mlp"}


class Installed:
    """An entry point of a package."""

    name, value = "smollm3", "package:FAMILY"

    def __init__(self, given: object) -> None:
        self.given = given

    def load(self) -> object:
        """What it names."""
        return self.given


def test_a_package_may_say_where_the_stream_of_a_family_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before what is found, and before the table."""
    from found import model_of

    from mechdrift.models.structure import structure_of

    assert listed("smollm3") is None
    families._packaged.cache_clear()
    monkeypatch.setattr(families, "entry_points", lambda group: [Installed(Family(("self_attn", "mlp.down_proj")))])
    assert {block.names for block in structure_of(model_of("smollm3")).blocks} == {("self_attn", "mlp.down_proj")}
    families._packaged.cache_clear()
    monkeypatch.setattr(families, "entry_points", lambda group: [Installed("no family")])
    with pytest.raises(Exception, match="package:FAMILY is no Family"):
        listed("smollm3")
    families._packaged.cache_clear()
