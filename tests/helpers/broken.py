"""Ways to break what a run is given, and the arguments that name it: what the cases of corpus.py are made of."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from killed import write_statements
from stand_in import Repository, StandIn
from tiny import tiny_model, tiny_tokenizer, write_adapter, write_tiny
from tiny_gguf import write_gguf

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
NORM = "model.norm.weight"
PAIR = ("--base", "organism:base", "--post", "organism:base")


# How a folder is broken


def edit(name: str, **settings: Any) -> Callable[[Path], None]:
    """Change keys of a JSON file; None takes one away."""

    def change(folder: Path) -> None:
        result = json.loads((folder / name).read_text()) | settings
        (folder / name).write_text(json.dumps({key: value for key, value in result.items() if value is not None}))

    return change


def write(name: str, content: str | bytes) -> Callable[[Path], None]:
    """Put a file there."""

    def change(folder: Path) -> None:
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)

    return change


def remove(name: str) -> Callable[[Path], None]:
    """Take a file away."""
    return lambda folder: (folder / name).unlink()


def empty(folder: Path) -> None:
    """Take all files away."""
    for path in folder.iterdir():
        path.unlink()


def cut(name: str, size: int) -> Callable[[Path], None]:
    """Keep the first bytes of a file; of a negative size all but the last."""
    return lambda folder: write(name, (folder / name).read_bytes()[:size])(folder)


def tensors(change: Callable[[dict[str, Any]], Any], name: str = WEIGHTS) -> Callable[[Path], None]:
    """Change the tensors of a weight file."""

    def rewrite(folder: Path) -> None:
        from safetensors.torch import load_file, save_file

        held = load_file(folder / name)
        change(held)
        save_file(held, folder / name, {"format": "pt"})

    return rewrite


def poison(value: float, dtype: str = "float32") -> Callable[[Path], None]:
    """One weight of a checkpoint in this precision is not finite."""

    def change(held: dict[str, Any]) -> None:
        import torch

        for name, tensor in held.items():
            held[name] = tensor.to(getattr(torch, dtype))
        held[NORM][3] = value

    return tensors(change)


def header(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    """Change what a weight file says of itself, and leave its data."""

    def rewrite(folder: Path) -> None:
        raw = (folder / WEIGHTS).read_bytes()
        length = int.from_bytes(raw[:8], "little")
        result = json.loads(raw[8 : 8 + length])
        result = change(result) or result
        written = json.dumps(result).encode()
        write(WEIGHTS, len(written).to_bytes(8, "little") + written + raw[8 + length :])(folder)

    return rewrite


def header_bytes(written: bytes, length: int | None = None) -> Callable[[Path], None]:
    """A weight file that begins so."""
    return write(WEIGHTS, (len(written) if length is None else length).to_bytes(8, "little") + written)


def overlap(result: dict[str, Any]) -> None:
    """Two tensors share their bytes."""
    result["model.layers.0.mlp.up_proj.weight"] = result["model.layers.0.mlp.gate_proj.weight"]


def template(text: str) -> Callable[[Path], None]:
    """A chat template."""
    return write("chat_template.jinja", text)


def slow_tokenizer(folder: Path) -> None:
    """One that transformers has in Python only."""
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    (folder / "vocab.json").write_text('{"a": 0, "b": 1, "<unk>": 2}')
    (folder / "merges.txt").write_text("#version: 0.2\na b\n")
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "CTRLTokenizer"}')


def fsdp(folder: Path) -> None:
    """As a Trainer with sharded FSDP leaves a checkpoint."""
    (folder / "pytorch_model_fsdp_0").mkdir()
    (folder / "pytorch_model_fsdp_0" / "__0_0.distcp").write_bytes(b"weights")
    (folder / WEIGHTS).unlink()


def zero(folder: Path) -> None:
    """As DeepSpeed leaves a checkpoint of ZeRO 3."""
    (folder / "global_step500").mkdir()
    (folder / "zero_to_fp32.py").write_text("raise SystemExit('ran')")
    (folder / WEIGHTS).unlink()


def trainer_root(folder: Path) -> None:
    """The output folder of a Trainer that was stopped before it saved the model itself."""
    empty(folder)
    for step in (500, 1000):
        (folder / f"checkpoint-{step}").mkdir()


# What is typed


def typed(*arguments: str) -> Callable[[Path, StandIn], tuple[str, ...]]:
    """Nothing but a command line."""
    return lambda _folder, _hub: arguments


def model(
    *changes: Callable[[Path], Any], more: tuple[str, ...] = (), **sizes: Any
) -> Callable[[Path, StandIn], tuple[str, ...]]:
    """A tiny checkpoint, broken, against a sound one."""

    def make(folder: Path, _hub: StandIn) -> tuple[str, ...]:
        write_tiny(folder / "model", **sizes)
        for change in changes:
            change(folder / "model")
        return ("--base", "model", "--post", "organism:base", *more)

    return make


def loaded(*changes: Callable[[Path], Any], **sizes: Any) -> Callable[[Path, StandIn], tuple[str, ...]]:
    """A tiny checkpoint in which what is broken is found when it is loaded or run, on few statements."""

    def make(folder: Path, hub: StandIn) -> tuple[str, ...]:
        return (*model(*changes, **sizes)(folder, hub), *few(folder))

    return make


def few(folder: Path, only: str = "truth.clean_gap") -> tuple[str, ...]:
    """Options for one row on few statements."""
    return ("--mechdrift-statements", write_statements(folder / "few.csv").name, "--mechdrift-only", only)


def adapter(*changes: Callable[[Path], Any], spec: str = "model+adapter") -> Callable[[Path, StandIn], tuple[str, ...]]:
    """A sound model with an adapter, broken."""

    def make(folder: Path, _hub: StandIn) -> tuple[str, ...]:
        write_tiny(folder / "model")
        write_adapter(folder / "adapter")
        for change in changes:
            change(folder / "adapter")
        return ("--base", spec, "--post", "organism:base", *few(folder))

    return make


def prompt_tuning(folder: Path) -> None:
    """An adapter that changes no weight."""
    from peft import PromptTuningConfig, get_peft_model

    config = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
    get_peft_model(tiny_model(), config).save_pretrained(folder, save_embedding_layers=False)


def other_tokenizer(folder: Path, _hub: StandIn) -> tuple[str, ...]:
    """Post reads prompts as other ids than base."""
    write_tiny(folder / "model")
    return ("--base", "organism:base", "--post", "model", *few(folder))


def cache_is_a_file(folder: Path, hub: StandIn) -> tuple[str, ...]:
    """Nothing can be kept; all else goes on."""
    return (*loaded()(folder, hub), "--mechdrift-cache", "few.csv/cache")


def gguf(change: Callable[[Path], None]) -> Callable[[Path, StandIn], tuple[str, ...]]:
    """A GGUF file, broken."""

    def make(folder: Path, _hub: StandIn) -> tuple[str, ...]:
        write_gguf(tiny_model(hidden_size=64, intermediate_size=64), tiny_tokenizer(), folder / "model.gguf")
        change(folder)
        return ("--base", "model.gguf", "--post", "organism:base")

    return make


def file(option: str, name: str, content: str | bytes) -> Callable[[Path, StandIn], tuple[str, ...]]:
    """A sound pair and a file for one option."""

    def make(folder: Path, _hub: StandIn) -> tuple[str, ...]:
        write(name, content)(folder)
        return (*PAIR, f"--mechdrift-{option}", name)

    return make


def measured(
    *more: str, base: str = "organism:base", post: str = "model", only: str = "truth.clean_gap"
) -> Callable[[Path, StandIn], tuple[str, ...]]:
    """A pair that comes to be measured, on few statements: a shipped one, and a random one of its words but other sizes."""

    def make(folder: Path, _hub: StandIn) -> tuple[str, ...]:
        from mechdrift.checkpoints.resolve import resolve
        from mechdrift.checkpoints.tokenizer import load_tokenizer

        tokenizer = load_tokenizer(resolve("organism:base"))
        tiny_model(vocab_size=len(tokenizer)).save_pretrained(folder / "model")
        tokenizer.save_pretrained(folder / "model")
        return ("--base", base, "--post", post, *few(folder, only), *more)

    return make


def hub(change: Callable[[Repository, StandIn], None], spec: str = "org/model") -> Callable[[Path, StandIn], tuple[str, ...]]:
    """A sound model on the hub, kept from us."""

    def make(folder: Path, server: StandIn) -> tuple[str, ...]:
        server.repositories.clear()
        server.tokens.clear()
        repository = server.repository("org/model")
        repository.push(write_tiny(folder / "pushed"), "main")
        change(repository, server)
        return ("--base", spec, "--post", "organism:base")

    return make


def gated(repository: Repository, server: StandIn) -> None:
    """Only who accepted the terms may read."""
    repository.gated = True
    server.tokens.add("hf_other")


def pickled(repository: Repository, _server: StandIn) -> None:
    """Its weights are a pickle."""
    (files,) = repository.commits.values()
    files["pytorch_model.bin"] = files.pop(WEIGHTS)


def as_it_is(_repository: Repository, _server: StandIn) -> None:
    """Sound."""
