"""The real vLLM on families that no table has: its blocks are found, its canaries decide, and what it lacks falls back."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import write_tiny

from mechdrift.checkpoints.resolve import Checkpoint, resolve
from mechdrift.engine.generate import vllm_generator
from mechdrift.engine.generate.arms import Ablated, Added, Arm
from mechdrift.engine.generate.batched import TransformersGenerator
from mechdrift.engine.generate.choose import backend_for
from mechdrift.engine.generate.falling_back import FallingBack, by_one_engine
from mechdrift.engine.generate.generator import Replies, under
from mechdrift.engine.generate.vllm_architectures import architecture_of, is_registered
from mechdrift.engine.generate.vllm_generator import VllmGenerator
from mechdrift.engine.generate.vllm_process import Ask
from mechdrift.engine.generate.vllm_process import running as running_in_fact
from mechdrift.engine.pool import Pool
from mechdrift.engine.store import Store
from mechdrift.engine.stored_recordings import Recorder
from mechdrift.errors import InputError, Unmeasurable
from mechdrift.models.families import FAMILIES

NEW = 16
DIRECTION = np.random.default_rng(0).standard_normal(64).astype("f4")
DIRECTION /= np.linalg.norm(DIRECTION)
PROMPTS = np.random.default_rng(1).integers(2, 258, (8, 12)).tolist()
PLAIN, ABLATED, ADDED = Arm("plain"), Arm("ablated", Ablated(DIRECTION)), Arm("added", Added(DIRECTION, 1, 16.0))
SIZES: dict[str, Any] = {"hidden_size": 64, "num_attention_heads": 2, "num_key_value_heads": 2}

# Narrower models than these have no attention kernel; of each, what sets it apart.
UNLISTED: dict[str, dict[str, Any]] = {
    "cohere": {"logit_scale": 0.25},  # attention and MLP side by side; its blocks pass the whole stream on beside what entered
    "glm4": {"head_dim": 32},  # norms after attention and MLP
    "granite": {"residual_multiplier": 0.22, "embedding_multiplier": 12.0, "logits_scaling": 2.0},
    "granitemoehybrid": {  # a block of attention between two of a state space
        "layer_types": ["mamba", "attention", "mamba"],
        **{"mamba_n_heads": 4, "mamba_d_head": 32, "mamba_d_state": 16, "mamba_n_groups": 1},
        **{"num_local_experts": 0, "shared_intermediate_size": 64},
    },
    "olmo3": {},  # norms after attention and MLP, in transformers' own code
    "phi": {},  # side by side, in transformers' own code
    "smollm3": {},  # some blocks without positions, in transformers' own code
}


def checkpoint_of(folder: Path, family: str, **sizes: Any) -> Checkpoint:
    return resolve(str(write_tiny(folder / f"{family}-{len(sizes)}", family, **SIZES | sizes)))


def recorder(folder: Path) -> Recorder:
    return Recorder(Pool("cpu", "float32"), Store(folder / "store"), 4096)


@pytest.mark.parametrize("family", UNLISTED)
def test_replies_are_those_of_transformers(tmp_path: Path, family: str) -> None:
    """The canaries of all arms are held against transformers inside."""
    assert family not in FAMILIES
    checkpoint = checkpoint_of(tmp_path, family, **UNLISTED[family])
    arms = [ABLATED, PLAIN, ADDED]
    expected = TransformersGenerator(recorder(tmp_path)).replies(checkpoint, PROMPTS, arms, NEW)
    found = VllmGenerator(recorder(tmp_path)).replies(checkpoint, PROMPTS, arms, NEW)
    assert found == expected  # in float32 no two of these tokens are as likely
    assert len({str(replies) for replies in expected.values()}) == 3  # else there was nothing to compare


WRONG: dict[str, tuple[Arm, dict[str, Any]]] = {
    "another block": (ADDED, {"layer": 2}),
    "what enters the norm that follows": (ABLATED, {"writes": [["self_attn", "mlp"]] * 3}),
    "one write of two": (ABLATED, {"writes": [["post_self_attn_layernorm"]] * 3}),
    "norms before instead of after": (ABLATED, {"writes": [["input_layernorm", "post_attention_layernorm"]] * 3}),
    "a block less": (ABLATED, {"writes": [["post_self_attn_layernorm", "post_mlp_layernorm"]] * 2 + [[]]}),
    "matrices before the norm": (ABLATED, {"last": ["self_attn.o_proj", "mlp.down_proj"]}),
}


def test_a_wrong_site_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted between what is asked of the engine and what it is told, all in one engine."""
    checkpoint = checkpoint_of(tmp_path, "glm4", **UNLISTED["glm4"])
    wrong = [Arm(name, arm.does) for name, (arm, _) in WRONG.items()]
    planted = iter([{}, *(change for _, change in WRONG.values()), {"writes": [["no_such"]] * 3}, {}])
    arms = [*wrong, Arm("no such module", ABLATED.does), Arm("right", ABLATED.does)]

    @contextmanager
    def running(*requested: Any) -> Iterator[Ask]:
        with running_in_fact(*requested) as ask:

            def changed(question: dict[str, Any]) -> dict[str, Any]:
                if "intervene" not in question:
                    return ask(question)
                return ask({"intervene": question["intervene"] | next(planted)})

            yield changed

    monkeypatch.setattr(vllm_generator, "running", running)
    found = VllmGenerator(recorder(tmp_path)).replies(checkpoint, PROMPTS, arms, NEW)
    for arm in wrong:
        with pytest.raises(Unmeasurable, match=f"{arm.name} does not do in vLLM what it does in transformers"):
            under(found, arm.name)
    with pytest.raises(Unmeasurable, match="its blocks have no 'no_such'"):
        under(found, "no such module")
    assert under(found, "right")


def fallen_back(folder: Path, *points: Checkpoint) -> tuple[list[Replies], FallingBack]:
    """Replies of all of them as `auto` makes them."""
    given = recorder(folder)
    generator = FallingBack(VllmGenerator(given), TransformersGenerator(given), given.warnings)
    return by_one_engine(lambda: [generator.replies(point, PROMPTS, [PLAIN, ADDED], NEW) for point in points]), generator


def test_a_family_that_vllm_runs_otherwise_falls_back_for_both_models(tmp_path: Path) -> None:
    """cohere2: the window of vLLM is a token wider than that of transformers; of the other model it is longer than the text."""
    wide, narrow = (
        checkpoint_of(tmp_path, "cohere2", sliding_window=size, **more) for size, more in ((64, {}), (8, {"seed": 1}))
    )
    found, generator = fallen_back(tmp_path, wide, narrow)
    expected = TransformersGenerator(recorder(tmp_path))
    assert found == [expected.replies(point, PROMPTS, [PLAIN, ADDED], NEW) for point in (wide, narrow)]
    assert generator.provenance == {"name": "transformers"}
    (warning,) = generator.warnings
    assert warning.startswith(f"{narrow.spec}: vLLM is not the model that transformers loads")
    assert warning.endswith("; replies by transformers instead, of both models, slower")


def test_a_family_that_vllm_lacks_is_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    checkpoint = checkpoint_of(tmp_path, "gpt_neo", num_hidden_layers=2, attention_types=[[["global", "local"], 1]])
    with pytest.raises(InputError, match="GPTNeoForCausalLM, which this vLLM does not have"):
        backend_for("vllm", "cpu", {}, [checkpoint])


def test_the_list_of_architectures_is_the_one_that_vllm_uses(tmp_path: Path) -> None:
    from vllm.model_executor.models.registry import ModelRegistry

    listed = ModelRegistry.get_supported_archs()
    for family in UNLISTED:
        assert is_registered(architecture_of(checkpoint_of(tmp_path, family, **UNLISTED[family])))
    for name in ("GPTNeoForCausalLM", "MptForCausalLM", "HeliumForCausalLM", "Qwen3_5ForCausalLM", "LlamaForCausalLM"):
        assert is_registered(name) == (name in listed)
