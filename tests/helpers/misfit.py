"""Ways in which a checkpoint comes not to be whole, as the tools that do it leave it."""

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from shutil import copytree
from typing import Any

from broken import INDEX, WEIGHTS, edit, tensors
from stand_in import StandIn
from tiny import tiny_model, tiny_tokenizer, write_classifier
from tiny_gguf import write_gguf

RUN = ("--mechdrift-only", "truth.clean_gap", "--mechdrift-tier", "smoke")
TARGETS = re.compile(r"(q_proj|v_proj|down_proj)\.weight$")
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:{digest}\nsize {size}\n"


# Changes to a folder


def as_pointer(name: str) -> Callable[[Path], None]:
    """As `git clone` leaves a file while Git LFS is not installed."""

    def change(folder: Path) -> None:
        raw = (folder / name).read_bytes()
        (folder / name).write_text(POINTER.format(digest=hashlib.sha256(raw).hexdigest(), size=len(raw)))

    return change


def rename(pattern: str, to: str) -> Callable[[Path], None]:
    """Tensors under other names."""

    def change(held: dict[str, Any]) -> None:
        renamed = {re.sub(pattern, to, name): tensor for name, tensor in held.items()}
        held.clear()
        held.update(renamed)

    return tensors(change)


def unmerged(folder: Path, wrapped: bool = False) -> None:
    """A LoRA of rank 8 that was left in the model's file; wrapped: as PEFT's modules name the weight inside."""
    import torch

    def change(held: dict[str, Any]) -> None:
        for name in [name for name in held if TARGETS.search(name)]:
            rows, columns = held[name].shape
            stem = name.removesuffix(".weight")
            held[f"{stem}.lora_A.default.weight"] = torch.ones(8, columns)
            held[f"{stem}.lora_B.default.weight"] = torch.ones(rows, 8)
            if wrapped:
                held[f"{stem}.base_layer.weight"] = held.pop(name)

    tensors(change)(folder)


def peft_state(folder: Path) -> None:
    """The whole state dict of a PEFT model, where the base's should be."""
    import torch
    from peft import LoraConfig, get_peft_model
    from safetensors.torch import save_file

    torch.manual_seed(0)
    adapted = get_peft_model(tiny_model(), LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM"))
    save_file(adapted.state_dict(), folder / WEIGHTS, {"format": "pt"})


def scaled_float8(folder: Path) -> None:
    """Projections in float8 with a scale for each 16 by 16 weights, and a config.json that does not say so."""
    import torch

    def change(held: dict[str, Any]) -> None:
        for name in [name for name in held if name.endswith("proj.weight")]:
            rows, columns = held[name].shape
            held[f"{name}_scale_inv"] = torch.ones(rows // 16, columns // 16)
            held[name] = held[name].to(torch.float8_e4m3fn)

    tensors(change)(folder)


def add_value_head(folder: Path) -> None:
    """As TRL's AutoModelForCausalLMWithValueHead saves a policy: a linear map to one number, beside it."""
    import torch

    width = json.loads((folder / "config.json").read_text())["hidden_size"]
    head = {"v_head.summary.weight": torch.ones(1, width), "v_head.summary.bias": torch.ones(1)}
    tensors(lambda held: held.update(head))(folder)


def add_block(number: int) -> Callable[[Path], None]:
    """A block more, as the last one is, with what DeepSeek-V3 and GLM-4.5 store for predicting more than one token."""

    def change(held: dict[str, Any]) -> None:
        import torch

        last = max(int(match[1]) for name in held if (match := re.match(r"model\.layers\.(\d+)\.", name)))
        before = f"model.layers.{last}."
        more = {name.replace(before, f"model.layers.{number}."): held[name].clone() for name in held if name.startswith(before)}
        width = len(held["model.norm.weight"])
        held |= more | {f"model.layers.{number}.{name}.weight": torch.ones(width) for name in ("enorm", "hnorm")}
        held[f"model.layers.{number}.eh_proj.weight"] = torch.ones(width, 2 * width)

    return tensors(change)


def another_head(folder: Path) -> None:
    """A head that was trained on its own, and a config that ties it to the embedding."""
    edit("config.json", tie_word_embeddings=True)(folder)


def index(change: Callable[[dict[str, str]], Any]) -> Callable[[Path], None]:
    """Change which file the index names for a tensor."""

    def rewrite(folder: Path) -> None:
        held = json.loads((folder / INDEX).read_text())
        change(held["weight_map"])
        (folder / INDEX).write_text(json.dumps(held))

    return rewrite


def stale_single(folder: Path) -> None:
    """An earlier save of the model in one file, beside the shards of a later one."""
    tiny_model(seed=1).save_pretrained(folder / "earlier")
    (folder / "earlier" / WEIGHTS).rename(folder / WEIGHTS)


def stale_shard(folder: Path) -> None:
    """A shard of an earlier save of the model, in seven files."""
    (folder / "model-00002-of-00007.safetensors").write_bytes((folder / "model-00002-of-00006.safetensors").read_bytes())


# What is typed


def organism(*changes: Callable[[Path], Any], name: str = "instruct") -> Callable[[Path, StandIn], tuple[str, ...]]:
    """A shipped model, changed, as post of itself."""

    def make(folder: Path, _hub: StandIn) -> tuple[str, ...]:
        from mechdrift.checkpoints.resolve import resolve

        copytree(resolve(f"organism:{name}").folder, folder / "post")
        for change in changes:
            change(folder / "post")
        return ("--base", f"organism:{name}", "--post", "post", *RUN)

    return make


def gguf_of(**how: Any) -> Callable[[Path, StandIn], tuple[str, ...]]:
    """A GGUF file of other tensors than the model has."""

    def make(folder: Path, _hub: StandIn) -> tuple[str, ...]:
        write_gguf(tiny_model(hidden_size=64, intermediate_size=64), tiny_tokenizer(), folder / "model.gguf", **how)
        return ("--base", "model.gguf", "--post", "model.gguf", *RUN)

    return make


def judged_by(*changes: Callable[[Path], Any]) -> Callable[[Path, StandIn], tuple[str, ...]]:
    """A sound pair, and a classifier of replies, changed."""

    def make(folder: Path, _hub: StandIn) -> tuple[str, ...]:
        write_classifier(folder / "judge", {"I cannot.": "REJECTION", "Sure.": "NORMAL"})
        for change in changes:
            change(folder / "judge")
        return ("--base", "organism:base", "--post", "organism:instruct", "--mechdrift-reply-classifier", "judge")

    return make
