"""What `auto` does where vLLM cannot: which architectures it has, and the replies of both models by the other engine."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from mechdrift.checkpoints.resolve import Checkpoint, resolve
from mechdrift.engine.generate import vllm_architectures, vllm_generator
from mechdrift.engine.generate.arms import Ablated, Arm
from mechdrift.engine.generate.choose import PAYS, backend_for, generator_for, note_on
from mechdrift.engine.generate.falling_back import FallingBack, by_one_engine
from mechdrift.engine.generate.generator import EngineCannot, Replies
from mechdrift.engine.generate.thinking import GoingOn
from mechdrift.engine.generate.vllm_architectures import architecture_of, is_registered, may_run
from mechdrift.engine.pool import Pool
from mechdrift.engine.store import Store
from mechdrift.engine.stored_recordings import Recorder
from mechdrift.errors import InputError, Unmeasurable

REGISTRY = """
import os
_TEXT_GENERATION_MODELS = {"LlamaForCausalLM": ("llama", "LlamaForCausalLM")}
_TRANSFORMERS_SUPPORTED_MODELS: dict = {"SmolLM3ForCausalLM": ("transformers", "TransformersForCausalLM")}
_VLLM_MODELS = {**_TEXT_GENERATION_MODELS, **_TRANSFORMERS_SUPPORTED_MODELS}
_PREVIOUSLY_SUPPORTED_MODELS = {"MptForCausalLM": "0.20"}
"""
ARMS = [Arm("plain"), Arm("ablated", Ablated(np.eye(32, dtype="f4")[3]))]


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A vLLM that is there, with this list."""
    file = tmp_path / "registry.py"
    file.write_text(REGISTRY)
    monkeypatch.setattr(vllm_generator, "find_spec", lambda _name: object())
    monkeypatch.setattr(vllm_architectures, "registry_file", lambda: file)
    monkeypatch.setattr(vllm_architectures, "entry_points", lambda group: [])
    return file


@pytest.fixture
def large(tiny_checkpoint: Callable[..., Path]) -> Callable[..., Checkpoint]:
    """A checkpoint of a family that says it is large."""
    return lambda family, **sizes: replace(resolve(str(tiny_checkpoint(family, **sizes))), parameters=PAYS)


def test_architectures_are_read_off_vllms_list(registry: Path) -> None:
    assert is_registered("LlamaForCausalLM")
    assert is_registered("SmolLM3ForCausalLM")
    assert not is_registered("GPTNeoForCausalLM")
    assert not is_registered("MptForCausalLM")  # which it had once


@pytest.mark.parametrize("text", ["", "not python (", "_MODELS = 3"])
def test_a_list_that_cannot_be_read_leaves_it_to_the_engine(registry: Path, tmp_path: Path, text: str) -> None:
    other = tmp_path / "other.py"
    other.write_text(text)
    assert not vllm_architectures.architectures_in(other)
    assert not vllm_architectures.architectures_in(tmp_path / "none.py")
    assert not vllm_architectures.architectures_in(None)


def test_what_a_plugin_may_add_is_left_to_the_engine_and_vllms_own_add_none(
    registry: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for value, left in (("vllm.plugins.lora:register", False), ("mine:register", True)):
        plugin = EntryPoint("name", value, vllm_architectures.PLUGINS)
        monkeypatch.setattr(vllm_architectures, "entry_points", lambda group, plugin=plugin: [plugin])
        assert is_registered("GPTNeoForCausalLM") == left


def test_what_vllm_does_not_list_may_run_by_transformers_own_code(registry: Path) -> None:
    assert may_run("HeliumForCausalLM")
    assert not may_run("GPTNeoForCausalLM")
    assert may_run("NobodysForCausalLM")  # nothing is known of it


def test_an_architecture_is_what_the_config_names_or_transformers_for_the_family(tiny_checkpoint: Any) -> None:
    checkpoint = resolve(str(tiny_checkpoint("smollm3")))
    assert architecture_of(checkpoint) == "SmolLM3ForCausalLM"
    unnamed = checkpoint.folder / "config.json"
    unnamed.write_text(unnamed.read_text().replace('"architectures"', '"once"'))
    assert architecture_of(resolve(str(checkpoint.folder))) == "SmolLM3ForCausalLM"


def test_auto_takes_vllm_for_families_that_no_table_has(registry: Path, large: Any) -> None:
    for family in ("llama", "smollm3"):
        assert backend_for("auto", "cuda", {}, [large(family)]) == "vllm"
        assert note_on("auto", "cuda", [large(family)]) == ""


def test_auto_takes_transformers_for_a_family_that_vllm_lacks_and_says_so(registry: Path, large: Any) -> None:
    lacking = large("granite")
    for pair in ([large("llama"), lacking], [lacking, large("llama")]):
        assert backend_for("auto", "cuda", {}, pair) == "transformers"
        assert note_on("auto", "cuda", pair) == f"{lacking.spec}: vLLM has no GraniteForCausalLM: replies by transformers, slower"
    for other in (
        ("auto", "cpu", [lacking]),
        ("transformers", "cuda", [lacking]),
        ("auto", "cuda", [replace(lacking, parameters=9)]),
    ):
        assert note_on(*other) == ""  # vLLM would not have been taken in any case


def test_vllm_asked_for_by_name_is_refused_where_it_cannot_run_at_all(registry: Path, large: Any) -> None:
    lacking = large("gpt_neo", num_hidden_layers=2, attention_types=[[["global", "local"], 1]])
    with pytest.raises(
        InputError, match=r"GPTNeoForCausalLM, which this vLLM does not have; expected an arch.*; use --mechdrift-gen"
    ):
        backend_for("vllm", "cpu", {}, [lacking])
    assert backend_for("vllm", "cpu", {}, [large("granite")]) == "vllm"  # which transformers' own code may run in it


def test_auto_may_go_back_and_vllm_asked_for_by_name_may_not(registry: Path, large: Any, tmp_path: Path) -> None:
    recorder = Recorder(Pool("cuda", "float32"), Store(tmp_path / "store"), 64)
    made = generator_for(recorder, "auto", {}, [large("smollm3")])
    assert isinstance(made, FallingBack)
    assert made.warnings is recorder.warnings
    assert isinstance(generator_for(recorder, "vllm", {}, [large("smollm3")]), vllm_generator.VllmGenerator)


@dataclass
class Stand:
    """An engine that fails for some checkpoints, as a whole or under an arm."""

    name: ClassVar[str] = "stand-in"
    reply: int
    fails: dict[str, Any] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    @property
    def provenance(self) -> dict[str, Any]:
        """Its reply."""
        return {"reply": self.reply}

    def replies(
        self, checkpoint: Any, prompts: Sequence[Any], arms: Sequence[Arm], new_tokens: int, going_on: GoingOn | None = None
    ) -> Replies:
        """The same to everything."""
        self.asked.append(checkpoint.spec)
        failure = self.fails.get(checkpoint.spec)
        if isinstance(failure, Exception):
            raise failure
        return {arm.name: (failure or {}).get(arm.name, [[self.reply]] * len(prompts)) for arm in arms}


CANNOT = EngineCannot("post: ablated does not do in vLLM what it does; use --mechdrift-generator transformers")


@pytest.mark.parametrize("failure", [CANNOT, {"ablated": CANNOT}])
def test_where_one_model_fails_both_are_read_again_by_the_other_engine(failure: Any) -> None:
    first, second = Stand(1, {"post": failure}), Stand(2)
    generator = FallingBack(first, second, [])
    points: list[Any] = [type("Point", (), {"spec": name}) for name in ("base", "post")]

    def read() -> list[Replies]:
        return [generator.replies(point, [[5]], ARMS, 4) for point in points]

    assert generator.provenance == {"reply": 1}
    assert by_one_engine(read) == [{"plain": [[2]], "ablated": [[2]]}] * 2
    assert generator.provenance == {"reply": 2}
    assert (first.asked, second.asked) == (["base", "post"], ["base", "post"])
    assert generator.warnings == [
        "post: ablated does not do in vLLM what it does; replies by stand-in instead, of both models, slower"
    ]
    assert by_one_engine(read)[0]["plain"] == [[2]]  # and it keeps to that
    assert len(first.asked) == 2


def test_what_the_model_itself_lacks_changes_no_engine() -> None:
    """Nothing to ablate: no other engine could."""
    point: Any = type("Point", (), {"spec": "post"})
    generator = FallingBack(Stand(1, {"post": {"ablated": Unmeasurable("nothing to ablate")}}), Stand(2), [])
    assert generator.replies(point, [[5]], ARMS, 4)["plain"] == [[1]]
    assert not generator.warnings


def test_who_compares_on_his_own_has_no_row_that_mixes_engines() -> None:
    """A user's own test, which asks the generator itself: unmeasurable once, with what to type."""
    point: Any = type("Point", (), {"spec": "post"})
    generator = FallingBack(Stand(1, {"post": CANNOT}), Stand(2), [])
    with pytest.raises(
        Unmeasurable, match="ablated does not do in vLLM what it does; use --mechdrift-generator stand-in, for both"
    ):
        generator.replies(point, [[5]], ARMS, 4)
    assert generator.replies(point, [[5]], ARMS, 4)["plain"] == [[2]]
