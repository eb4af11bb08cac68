"""Replies through transformers, against argmax over whole forwards of one prompt at a time, under hooks of the test's own."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import VARIANTS, tiny_model, write_tiny

from mechdrift.checkpoints.resolve import resolve
from mechdrift.checkpoints.special_tokens import end_tokens
from mechdrift.engine.generate import batched
from mechdrift.engine.generate.arms import Ablated, Added, Arm
from mechdrift.engine.generate.batched import TransformersGenerator
from mechdrift.engine.generate.generator import under
from mechdrift.engine.pool import Pool
from mechdrift.engine.store import Store
from mechdrift.engine.stored_recordings import Recorder
from mechdrift.errors import InputError, InterventionFailed, Unmeasurable
from mechdrift.models.memory import BatchTooLarge

PROMPTS = [[0, 5, 9, 200, 31, 77, 12, 8, 250], [0, 7], [0, 100, 101, 102, 103], [0, 33, 34]]
NEW = 6
LAST_OF_A_WRITE = ("o_proj", "down_proj", "c_proj", "dense", "dense_4h_to_h", "experts")
POST_NORMS = ("post_attention_layernorm", "post_feedforward_layernorm")
AXIS = np.eye(32, dtype="f4")[3]


def arms_along(direction: np.ndarray) -> list[Arm]:
    return [Arm("plain"), Arm("ablated", Ablated(direction)), Arm("added", Added(direction, 1, -9.0))]


ARMS = arms_along(AXIS)


@contextmanager
def by_hand(model: Any, arm: Arm) -> Iterator[None]:
    """The arm's intervention: on each embedding and each last matrix by itself, or on what a post-norm family adds."""
    names = POST_NORMS if any("post_feedforward" in name for name, _ in model.named_modules()) else LAST_OF_A_WRITE
    r = torch.tensor(arm.does.direction if arm.does else AXIS)

    def written(_module: Any, _args: Any, output: Any) -> Any:
        return output - (output @ r)[..., None] * r

    def added(_module: Any, _args: Any, output: Any) -> Any:
        return output - 9.0 * r

    handles = []
    for name, module in model.named_modules():
        if arm.name == "ablated" and (isinstance(module, torch.nn.Embedding) or name.endswith(names)):
            handles.append(module.register_forward_hook(written))
        if arm.name == "added" and name.endswith(("layers.1", "h.1")):
            handles.append(module.register_forward_hook(added))
    yield
    for handle in handles:
        handle.remove()


def likeliest(model: Any, prompt: list[int], steps: int) -> list[int]:
    """Argmax over whole forwards, without padding or a cache."""
    ids = list(prompt)
    for _ in range(steps):
        with torch.inference_mode():
            ids.append(int(model(torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
    return ids[len(prompt) :]


def generator(tmp_path: Path, batch_tokens: int = 64) -> TransformersGenerator:
    return TransformersGenerator(Recorder(Pool("cpu", "float32"), Store(tmp_path / "store"), batch_tokens))


def checkpoint_of(folder: Path, family: str = "llama", **generation: Any) -> Any:
    """A tiny checkpoint whose replies end at token 256, unless told otherwise."""
    write_tiny(folder, family)
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": 256} | generation))
    return resolve(str(folder))


@pytest.mark.parametrize("family", VARIANTS)
def test_replies_are_the_likeliest_tokens(tmp_path: Path, family: str) -> None:
    """Prompts of four lengths in batches of two; sliding windows are shorter than they are."""
    model = tiny_model(family)
    favourite = model.get_output_embeddings().weight[likeliest(model, PROMPTS[0], 1)[0]].detach()
    arms = arms_along((favourite / favourite.norm()).numpy())
    expected = {}
    for arm in arms:
        with by_hand(model, arm):
            expected[arm.name] = [likeliest(model, prompt, NEW) for prompt in PROMPTS]
    printed = {token for replies in expected.values() for reply in replies for token in reply}
    assert expected["ablated"] != expected["plain"] != expected["added"] != expected["ablated"]
    made = generator(tmp_path, batch_tokens=24)
    checkpoint = checkpoint_of(tmp_path / "model", family, eos_token_id=min(set(range(258)) - printed))
    assert made.replies(checkpoint, PROMPTS, arms, NEW) == expected
    assert made.replies(checkpoint, PROMPTS, arms[:1], NEW)["plain"] == expected["plain"]  # hooks are off again


def test_a_reply_ends_before_any_token_that_ends_one(tmp_path: Path) -> None:
    model = tiny_model()
    plain = [likeliest(model, prompt, NEW) for prompt in PROMPTS]
    ends = [plain[0][3], plain[1][0]]
    expected = [reply[: min((reply.index(end) for end in ends if end in reply), default=NEW)] for reply in plain]
    assert {len(reply) for reply in expected} > {0}
    assert generator(tmp_path).replies(checkpoint_of(tmp_path / "a", eos_token_id=ends), PROMPTS, ARMS[:1], NEW) == {
        "plain": expected
    }


def test_the_checkpoints_own_settings_of_generation_do_not_count(tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "repetition_penalty": 3.0,
        "do_sample": True,
        "temperature": 2.0,
        "max_length": 10,
        "no_repeat_ngram_size": 1,
    }
    made = generator(tmp_path)
    plain = made.replies(checkpoint_of(tmp_path / "a"), PROMPTS, ARMS[:1], 24)
    assert any(len(set(reply)) < len(reply) for reply in under(plain, "plain"))  # which the settings forbid
    assert made.replies(checkpoint_of(tmp_path / "b", **settings), PROMPTS, ARMS[:1], 24) == plain


@pytest.mark.parametrize("arm", ARMS[1:])
def test_an_intervention_that_does_nothing_is_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arm: Arm) -> None:
    from mechdrift.engine import selfcheck

    for name in ("ablating_everywhere", "shifting"):
        monkeypatch.setattr(selfcheck, name, lambda *_: nullcontext())
        monkeypatch.setattr(batched, name, lambda *_: nullcontext())
    with pytest.raises(InterventionFailed, match=r"left .* of a token along its direction|did not move its output"):
        generator(tmp_path).replies(checkpoint_of(tmp_path / "a"), PROMPTS, [arm], NEW)


def test_nothing_along_the_direction_is_said(tmp_path: Path) -> None:
    model = tiny_model()
    with torch.no_grad():
        model.get_input_embeddings().weight[:, 3] = 0
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight[3] = 0
            layer.mlp.down_proj.weight[3] = 0
    model.save_pretrained(tmp_path / "a")
    write_tiny(tmp_path / "b")
    (tmp_path / "b" / "model.safetensors").write_bytes((tmp_path / "a" / "model.safetensors").read_bytes())
    printed = generator(tmp_path).replies(resolve(str(tmp_path / "b")), PROMPTS, ARMS[:2], NEW)
    assert under(printed, ARMS[0].name)  # the other arm is none the worse for it
    with pytest.raises(Unmeasurable, match="nothing to ablate"):
        under(printed, ARMS[1].name)


def test_a_batch_that_does_not_fit_is_asked_again_at_half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import LlamaForCausalLM

    original, widths = LlamaForCausalLM.generate, []

    def small(self: Any, input_ids: Any, **rest: Any) -> Any:
        widths.append(len(input_ids))
        if len(input_ids) > 1:
            raise RuntimeError("CUDA out of memory. Tried to allocate")
        return original(self, input_ids=input_ids, **rest)

    made, checkpoint = generator(tmp_path), checkpoint_of(tmp_path / "a")
    expected = made.replies(checkpoint, PROMPTS, ARMS, NEW)
    monkeypatch.setattr(LlamaForCausalLM, "generate", small)
    with pytest.raises(BatchTooLarge, match="--mechdrift-batch 32"):
        made.replies(checkpoint, PROMPTS, ARMS, NEW)
    assert made.recorder.at_one_batch(lambda: made.replies(checkpoint, PROMPTS, ARMS, NEW)) == expected
    assert widths[-3 * len(PROMPTS) :] == [1] * 3 * len(PROMPTS)
    assert made.recorder.warnings


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ([[0, 5], [0] * 507], "prompt 1 of 507 tokens and a reply of 6; expected at most its context of 512"),
        ([[0, 5], [999]], "gives token 999"),
        ([[0, 5], []], "an empty one"),
        ([], "no prompt"),
    ],
)
def test_prompts_that_the_model_cannot_read(
    tiny_checkpoint: Callable[..., Path], tmp_path: Path, prompts: list[list[int]], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        generator(tmp_path).replies(resolve(str(tiny_checkpoint())), prompts, ARMS, NEW)


def test_without_a_generation_config_the_config_says_what_ends_a_reply(tiny_checkpoint: Callable[..., Path]) -> None:
    for end, expected in ((1, [1]), ([4, 5], [4, 5])):
        folder = tiny_checkpoint(eos_token_id=end)
        (folder / "generation_config.json").unlink(missing_ok=True)
        assert end_tokens(resolve(str(folder))) == expected
    folder = tiny_checkpoint(eos_token_id=None)
    (folder / "generation_config.json").unlink(missing_ok=True)
    assert end_tokens(resolve(str(folder))) == [1]  # the tokenizer's own
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"eos_token": None}))
    with pytest.raises(Unmeasurable, match="ends a reply"):
        end_tokens(resolve(str(folder)))


def test_a_direction_is_of_length_one() -> None:
    with pytest.raises(ValueError, match="length 2"):
        Ablated(2 * AXIS)
