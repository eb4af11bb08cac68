"""Replies under three arms: transformers, vLLM, and the loop without a KV cache. `python benchmarks/generate.py [SPEC]`.

SPEC is a checkpoint, or `shape:llama-3.1-8b`: random weights of that size, for a GPU; its directions do nothing in particular.

Run it in .venv-vllm, or where vLLM is installed; elsewhere its rows are left out. Times are of everything from tokens in to
tokens out, checks and canaries and vLLM's start included; loading the model through transformers is not, as all ways share it.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from mechdrift.checkpoints.chat import render
from mechdrift.checkpoints.resolve import Checkpoint, resolve
from mechdrift.checkpoints.special_tokens import end_tokens
from mechdrift.checkpoints.tokenizer import load_tokenizer
from mechdrift.engine.batches import batches_by_length
from mechdrift.engine.generate.arms import Ablated, Added, Arm, until_end
from mechdrift.engine.generate.batched import TransformersGenerator, acting
from mechdrift.engine.generate.generator import Replies, under
from mechdrift.engine.generate.vllm_generator import VllmGenerator, arm_request, reply_of
from mechdrift.engine.generate.vllm_process import running
from mechdrift.engine.pool import Pool
from mechdrift.engine.recording import record_blocks
from mechdrift.engine.store import Store
from mechdrift.engine.stored_recordings import Recorder
from mechdrift.models.devices import input_device, pick_device, pick_dtype
from mechdrift.models.structure import structure_of
from mechdrift.prompts.instructions import shipped_instructions

DEPTH = 0.75  # of the block whose difference of harmful and harmless prompts is the direction
REPEATS = 5
SHAPES: dict[str, dict[str, Any]] = {
    "smollm2-135m": {
        "vocab_size": 49152,
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "tie_word_embeddings": True,
    },
    "llama-3.1-8b": {
        "vocab_size": 128256,
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
    },
}


def main() -> None:
    """Print the table of all ways, then what an arm in place costs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("spec", nargs="?", default="organism:instruct")
    parser.add_argument("--prompts", type=int, default=256)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--batch", type=int, default=4096, help="padded tokens a forward")
    parser.add_argument("--without-loop", action="store_true", help="leave out the loop without a KV cache, which may take hours")
    options = parser.parse_args()
    torch.set_num_threads(1)
    device = pick_device("auto")
    with TemporaryDirectory() as folder:
        shape = options.spec.removeprefix("shape:")
        checkpoint = resolve(str(random_weights(Path(folder), shape)) if shape != options.spec else shape)
        recorder = Recorder(Pool(device, pick_dtype("auto", device)), Store(Path(folder)), options.batch)
        prompts = instructions(checkpoint, options.prompts)
        model = recorder.pool.model(checkpoint, prompts[:2])
        arms = three_arms(model, prompts, options.batch)
        ways: dict[str, Callable[[], Replies]] = {
            "whole forwards, no KV cache": lambda: loop(model, checkpoint, prompts, arms, options.tokens, options.batch),
            "transformers": lambda: TransformersGenerator(recorder).replies(checkpoint, prompts, arms, options.tokens),
        }
        if options.without_loop:
            del ways["whole forwards, no KV cache"]
        if find_spec("vllm"):
            made = VllmGenerator(recorder)
            ways["vLLM, its start included"] = lambda: made.replies(checkpoint, prompts, arms, options.tokens)
        size = f"{len(arms)} arms x {len(prompts)} prompts x {options.tokens} tokens"
        print(f"{options.spec}, {recorder.pool.dtype} on {device}: {size}")
        print(f"{'way':32}{'seconds':>10}{'ratio':>8}{'replies as by the first':>26}")
        first = 0.0
        expected: Replies = {}
        for name, way in ways.items():
            started = time.perf_counter()
            found = way()
            seconds = time.perf_counter() - started
            first, expected = first or seconds, expected or found
            same = np.mean([a == b for arm in expected for a, b in zip(under(expected, arm), under(found, arm), strict=True)])
            print(f"{name:32}{seconds:>10.1f}{first / seconds:>8.1f}{same:>26.3f}", flush=True)
        if find_spec("vllm"):
            in_place(made, checkpoint, prompts, arms, options.tokens)


def random_weights(folder: Path, shape: str) -> Path:
    """A Llama of one of SHAPES, in bfloat16, under organism:instruct's tokenizer and template."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    model = LlamaForCausalLM(LlamaConfig(**SHAPES[shape]))
    torch.set_default_dtype(torch.float32)
    model.save_pretrained(folder / shape)
    load_tokenizer(resolve("organism:instruct")).save_pretrained(folder / shape)
    return folder / shape


def instructions(checkpoint: Checkpoint, count: int) -> list[list[int]]:
    """Harmful and harmless instructions by turns, in the checkpoint's own template."""
    tokenizer = load_tokenizer(checkpoint)
    texts = render(tokenizer, [[{"role": "user", "content": one.text}] for one in shipped_instructions()[:count]])
    ids: list[list[int]] = tokenizer(texts, add_special_tokens=False)["input_ids"]
    return ids


def three_arms(model: Any, prompts: list[list[int]], batch_tokens: int) -> list[Arm]:
    """The model as it is, with the difference of harmful and harmless prompts ablated, and with it added."""
    outputs = record_blocks(model, prompts, [len(prompt) - 1 for prompt in prompts], batch_tokens)
    layer = int(DEPTH * outputs.shape[1])
    difference = (outputs[::2, layer].mean(0) - outputs[1::2, layer].mean(0)).numpy()
    size = float(np.linalg.norm(difference))
    return [Arm("plain"), Arm("ablated", Ablated(difference / size)), Arm("added", Added(difference / size, layer, size))]


def loop(
    model: Any, checkpoint: Checkpoint, prompts: Sequence[Sequence[int]], arms: Sequence[Arm], new_tokens: int, batch_tokens: int
) -> Replies:
    """As published: for every new token a whole forward of prompt and reply, padded on the left, under hooks."""
    ends = end_tokens(checkpoint)
    message: Replies = {}
    for arm in arms:
        replies: list[list[int]] = [[] for _ in prompts]
        for batch in batches_by_length([len(prompt) + new_tokens for prompt in prompts], batch_tokens):
            width = max(len(prompts[index]) for index in batch)
            ids = torch.zeros(len(batch), width + new_tokens, dtype=torch.long, device=input_device(model))
            mask = torch.zeros_like(ids)
            for row, index in enumerate(batch):
                ids[row, width - len(prompts[index]) : width] = torch.tensor(prompts[index])
                mask[row, width - len(prompts[index]) :] = 1
            places = (mask.cumsum(1) - 1).clamp(min=0)
            with torch.inference_mode(), acting(model, arm):
                for end in range(width, width + new_tokens):
                    given = {"input_ids": ids[:, :end], "attention_mask": mask[:, :end], "position_ids": places[:, :end]}
                    ids[:, end] = model(**given, use_cache=False, logits_to_keep=1).logits[:, -1].argmax(-1)
            for row, index in enumerate(batch):
                replies[index] = until_end(ids[row, width:].tolist(), ends)
        message[arm.name] = replies
    return message


def in_place(
    made: VllmGenerator, checkpoint: Checkpoint, prompts: Sequence[Sequence[int]], arms: Sequence[Arm], new_tokens: int
) -> None:
    """Seconds of every arm in one engine, by turns; replies do not end early, so that all arms run as many tokens."""
    seconds: dict[str, list[float]] = {arm.name: [] for arm in arms}
    longest = max(map(len, prompts)) + new_tokens
    writes = [block.names for block in structure_of(made.recorder.pool.model(checkpoint, prompts[:2])).blocks]
    made.recorder.pool.free()
    with running(checkpoint.spec, *made.settings(checkpoint, arms, longest), made.start_seconds) as ask:
        for turn in range(REPEATS + 1):
            for arm in arms:
                ask({"intervene": arm_request(checkpoint, arm, writes, hooks=True)})
                started = time.perf_counter()
                reply_of(ask, prompts, new_tokens, [])
                if turn:  # the first warms up
                    seconds[arm.name].append(time.perf_counter() - started)
    print(f"\nOne engine, {REPEATS} turns, fastest of each; every reply has {new_tokens} tokens")
    print(f"{'arm':32}{'seconds':>10}{'of plain':>10}")
    for name, times in seconds.items():
        print(f"{name:32}{min(times):>10.2f}{min(times) / min(seconds['plain']):>10.3f}")


if __name__ == "__main__":
    main()
