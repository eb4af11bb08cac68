"""The real vLLM on the CPU: its replies against transformers' own, and its interventions against hooks. `make test-vllm`."""

import gc
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import write_tiny

from mechdrift.checkpoints.chat import render
from mechdrift.checkpoints.resolve import Checkpoint, resolve
from mechdrift.checkpoints.tokenizer import load_tokenizer
from mechdrift.engine.generate import canary, vllm_generator, vllm_process
from mechdrift.engine.generate.arms import Ablated, Added, Arm
from mechdrift.engine.generate.batched import TransformersGenerator
from mechdrift.engine.generate.generator import Replies, under
from mechdrift.engine.generate.vllm_generator import VllmGenerator, arm_request
from mechdrift.engine.generate.vllm_process import Ask, running
from mechdrift.engine.pool import Pool
from mechdrift.engine.recording import record_blocks
from mechdrift.engine.store import Store
from mechdrift.engine.stored_recordings import Recorder
from mechdrift.errors import Unmeasurable
from mechdrift.prompts.instructions import shipped_instructions

NEW, LAYER = 16, 4
WRITES = [("self_attn", "mlp")] * 6  # of the organism's blocks
AGREE = 0.95  # of replies, token for token: where two tokens are as likely, rounding decides


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return resolve("organism:instruct")


@pytest.fixture(scope="module")
def prompts(checkpoint: Checkpoint) -> list[list[int]]:
    """32 harmful and 32 harmless instructions by turns, in the checkpoint's own template."""
    tokenizer = load_tokenizer(checkpoint)
    texts = render(tokenizer, [[{"role": "user", "content": one.text}] for one in shipped_instructions()[:64]])
    ids: list[list[int]] = tokenizer(texts, add_special_tokens=False)["input_ids"]
    return ids


def recorder(folder: Path, dtype: str = "float32") -> Recorder:
    return Recorder(Pool("cpu", dtype), Store(folder), 4096)


@pytest.fixture(scope="module")
def arms(tmp_path_factory: pytest.TempPathFactory, checkpoint: Checkpoint, prompts: list[list[int]]) -> list[Arm]:
    """The checkpoint's own refusal direction, ablated and added, between two plain arms."""
    model = recorder(tmp_path_factory.mktemp("store")).pool.model(checkpoint, prompts[:2])
    outputs = record_blocks(model, prompts, [len(prompt) - 1 for prompt in prompts], 4096)[:, LAYER]
    difference = (outputs[::2].mean(0) - outputs[1::2].mean(0)).numpy()
    size = float(np.linalg.norm(difference))
    unit = difference / size
    return [Arm("plain"), Arm("ablated", Ablated(unit)), Arm("added", Added(unit, LAYER, size)), Arm("plain again")]


@pytest.fixture(scope="module")
def by_transformers(
    tmp_path_factory: pytest.TempPathFactory, checkpoint: Checkpoint, prompts: list[list[int]], arms: list[Arm]
) -> Replies:
    return TransformersGenerator(recorder(tmp_path_factory.mktemp("store"))).replies(checkpoint, prompts, arms, NEW)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory, checkpoint: Checkpoint, arms: list[Arm]) -> Iterator[Ask]:
    """One engine for all tests that do not need another."""
    made = VllmGenerator(recorder(tmp_path_factory.mktemp("store")))
    with running(checkpoint.spec, *made.settings(checkpoint, arms, 256), made.start_seconds) as ask:
        yield ask


@pytest.fixture
def generator(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, engine: Ask) -> Callable[..., VllmGenerator]:
    """A generator on that engine, with what it is told changed on the way."""

    def make(change: Callable[[dict[str, Any]], dict[str, Any]] = lambda question: question) -> VllmGenerator:
        monkeypatch.setattr(vllm_generator, "running", lambda *_: nullcontext(lambda question: engine(change(question))))
        return VllmGenerator(recorder(tmp_path))

    return make


def agreement(one: Replies, other: Replies) -> dict[str, float]:
    """Share of replies that are the same token for token, by arm."""
    return {name: float(np.mean([a == b for a, b in zip(under(one, name), under(other, name), strict=True)])) for name in one}


def test_replies_are_those_of_transformers_under_every_arm(
    generator: Any, checkpoint: Checkpoint, prompts: list[list[int]], arms: list[Arm], by_transformers: Replies
) -> None:
    found = generator().replies(checkpoint, prompts, arms, NEW)
    same = agreement(found, by_transformers)
    print(same)
    assert min(same.values()) >= AGREE
    assert found["plain again"] == found["plain"]
    for name in ("ablated", "added"):  # else there was nothing to compare
        assert agreement({"plain": found[name]}, found)["plain"] < 0.7


@pytest.mark.parametrize("name", ["ablated", "added"])
def test_an_intervention_that_is_switched_off_is_a_fault(
    generator: Any, checkpoint: Checkpoint, prompts: list[list[int]], arms: list[Arm], name: str
) -> None:
    def off(question: dict[str, Any]) -> dict[str, Any]:
        return {"intervene": {"direction": None}} if "intervene" in question else question

    (arm,) = (arm for arm in arms if arm.name == name)
    with pytest.raises(Unmeasurable, match=f"{name} does not do in vLLM what it does in transformers"):
        under(generator(off).replies(checkpoint, prompts, [arm], NEW), name)


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("added", {"layer": LAYER + 1}),
        ("added", {"coefficient": 0.01}),
        ("ablated", {"last": ["mlp.down_proj"]}),
        ("ablated", {"last": [], "writes": [["self_attn"]] * len(WRITES)}),
        ("ablated", {"layer": LAYER, "coefficient": -1.0}),
    ],
)
def test_another_intervention_is_a_fault(
    generator: Any, checkpoint: Checkpoint, prompts: list[list[int]], arms: list[Arm], name: str, other: dict[str, Any]
) -> None:
    def changed(question: dict[str, Any]) -> dict[str, Any]:
        given = question.get("intervene", {"direction": None})
        return {"intervene": given | other} if given["direction"] is not None else question

    (arm,) = (arm for arm in arms if arm.name == name)
    with pytest.raises(Unmeasurable, match=f"{name} does not do in vLLM"):
        under(generator(changed).replies(checkpoint, prompts, [arm], NEW), name)


def test_a_direction_that_is_left_on_is_noticed_in_the_plain_arm(
    generator: Any, checkpoint: Checkpoint, prompts: list[list[int]], arms: list[Arm]
) -> None:
    def stuck(question: dict[str, Any]) -> dict[str, Any]:
        return {"intervene": arm_request(checkpoint, arms[1], WRITES, hooks=True)} if "intervene" in question else question

    with pytest.raises(Unmeasurable, match="not the model that transformers loads"):
        generator(stuck).replies(checkpoint, prompts, [Arm("plain")], NEW)


# Narrower models than these have no attention kernel; of each, what sets it apart in vLLM.
FAMILIES: dict[str, dict[str, Any]] = {
    "gemma2": {"head_dim": 32, "num_key_value_heads": 1},  # norms after attention and MLP: by hooks
    "mixtral": {"num_key_value_heads": 1, "intermediate_size": 64},  # experts, under another name: by hooks
    "gpt2": {},  # biases, positions and a tied head: by weights
    "gpt_neox": {},  # attention and MLP side by side; vLLM runs transformers' own code for it
    "olmo2": {"num_key_value_heads": 1},  # norms after attention and MLP, in transformers' own code
}


@pytest.mark.parametrize("family", FAMILIES)
def test_families(tmp_path: Path, family: str) -> None:
    """Through an engine of their own; the canaries of all arms are held against transformers inside."""
    checkpoint = resolve(str(write_tiny(tmp_path / "m", family, hidden_size=64, num_attention_heads=2, **FAMILIES[family])))
    direction = np.random.default_rng(0).standard_normal(64).astype("f4")
    direction /= np.linalg.norm(direction)
    prompts = np.random.default_rng(1).integers(2, 258, (8, 12)).tolist()
    arms = [Arm("ablated", Ablated(direction)), Arm("plain"), Arm("added", Added(direction, 1, 4.0))]
    expected = TransformersGenerator(recorder(tmp_path / "store")).replies(checkpoint, prompts, arms, NEW)
    found = VllmGenerator(recorder(tmp_path / "store")).replies(checkpoint, prompts, arms, NEW)
    same = agreement(found, expected)
    print(same)
    assert found == expected  # in float32 no two of these tokens are as likely


def test_an_engine_of_two_processes(tmp_path: Path) -> None:
    """Tensor parallel: each has its share of the weights, and its interventions."""
    sizes: dict[str, Any] = {"hidden_size": 64, "num_attention_heads": 2, "num_key_value_heads": 2}
    checkpoint = resolve(str(write_tiny(tmp_path / "m", "llama", **sizes)))
    direction = np.eye(64, dtype="f4")[5]
    prompts = np.random.default_rng(1).integers(2, 258, (8, 12)).tolist()
    arms = [Arm("ablated", Ablated(direction)), Arm("added", Added(direction, 1, 4.0)), Arm("plain")]
    expected = TransformersGenerator(recorder(tmp_path / "store")).replies(checkpoint, prompts, arms, NEW)
    made = VllmGenerator(recorder(tmp_path / "store"), {"tensor_parallel_size": 2})
    assert made.replies(checkpoint, prompts, arms, NEW) == expected


def test_bfloat16(tmp_path: Path, checkpoint: Checkpoint, prompts: list[list[int]], arms: list[Arm]) -> None:
    expected = TransformersGenerator(recorder(tmp_path, "bfloat16")).replies(checkpoint, prompts, arms, NEW)
    found = VllmGenerator(recorder(tmp_path, "bfloat16")).replies(checkpoint, prompts, arms, NEW)
    same = agreement(found, expected)
    print(same)
    assert min(same.values()) >= AGREE
    assert found["plain again"] == found["plain"]


def test_an_engine_that_cannot_start_says_why(tmp_path: Path, checkpoint: Checkpoint, prompts: list[list[int]]) -> None:
    made = VllmGenerator(recorder(tmp_path), {"quantization": "no-such-method"})
    with pytest.raises(Unmeasurable, match="no-such-method"):
        made.replies(checkpoint, prompts, [Arm("plain")], NEW)


def test_an_engine_that_takes_too_long_is_ended(tmp_path: Path, checkpoint: Checkpoint, prompts: list[list[int]]) -> None:
    made = VllmGenerator(recorder(tmp_path), start_seconds=0.5)
    with pytest.raises(Unmeasurable, match=r"did not start within 0\.5 s"):
        made.replies(checkpoint, prompts, [Arm("plain")], NEW)


def test_an_engine_that_is_killed_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checkpoint: Checkpoint, prompts: list[list[int]]
) -> None:
    started: list[int] = []
    popen = subprocess.Popen

    def remembered(*args: Any, **settings: Any) -> Any:
        child = popen(*args, **settings)
        started.append(child.pid)
        return child

    monkeypatch.setattr(subprocess, "Popen", remembered)
    check = canary.check

    def kill(*args: Any) -> float:
        os.kill(started[0], signal.SIGKILL)
        return check(*args)

    monkeypatch.setattr(canary, "check", kill)
    output = VllmGenerator(recorder(tmp_path)).replies(checkpoint, prompts, [Arm("plain")], NEW)
    with pytest.raises(Unmeasurable, match="organism:instruct: vLLM ended; it last wrote: "):
        under(output, "plain")
    with pytest.raises(ProcessLookupError):
        os.killpg(started[0], 0)


@pytest.mark.filterwarnings("ignore")  # vLLM's own, in this process
def test_weights_are_restored_bit_for_bit(monkeypatch: pytest.MonkeyPatch, checkpoint: Checkpoint, arms: list[Arm]) -> None:
    """In an engine of this process, whose weights can be looked at."""
    for name, value in {**vllm_process.ENVIRONMENT, **vllm_generator._on("cpu")[1]}.items():
        monkeypatch.setenv(name, value)
    from vllm.model_executor.layers import utils

    from mechdrift.engine.generate import vllm_worker
    from mechdrift.engine.generate.vllm_model import intervene

    monkeypatch.setattr(utils, "dispatch_cpu_unquantized_gemm", utils.dispatch_cpu_unquantized_gemm)  # put back afterwards
    made = VllmGenerator(Recorder(Pool("cpu", "bfloat16"), Store(Path()), 64))
    llm = vllm_worker._start(made.settings(checkpoint, arms, 64)[0])
    unit = torch.tensor(arms[1].does.direction)  # type: ignore[union-attr]
    before: dict[str, torch.Tensor] = {}

    def look(model: Any) -> None:
        before.update({name: weight.clone() for name, weight in model.state_dict().items()})
        assert model.lm_head.weight is model.model.embed_tokens.weight  # tied
        assert intervene(model, arm_request(checkpoint, arms[1], WRITES, hooks=True)) == "weights"
        assert torch.equal(model.lm_head.weight, before["lm_head.weight"])
        for name, weight in model.named_parameters():
            writes = name == "model.embed_tokens.weight" or name.endswith(("o_proj.weight", "down_proj.weight"))
            assert torch.equal(weight, before[name]) != writes
            if writes:
                along = weight.float() @ unit if "embed" in name else unit @ weight.float()
                assert along.abs().max() < 0.01 * weight.float().abs().max()  # bfloat16 holds three digits
        assert intervene(model, arm_request(checkpoint, arms[2], WRITES, hooks=True)) == "hooks"
        assert intervene(model, arm_request(checkpoint, Arm("plain"), WRITES, hooks=True)) == ""
        after = model.state_dict()
        assert after.keys() == before.keys()
        assert all(torch.equal(weight, before[name]) for name, weight in after.items())
        assert model.lm_head.weight is model.model.embed_tokens.weight
        assert not any(module._forward_hooks for module in model.modules())

    llm.apply_model(look)
    del llm
    gc.collect()
