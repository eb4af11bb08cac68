"""From files to a checkpoint with an identity: everything is read once, digested, and held to be finite."""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

from mechdrift.checkpoints.adapters import CONFIG, WEIGHTS, check_adapter, split_adapter
from mechdrift.checkpoints.gguf_file import is_gguf, read_gguf
from mechdrift.checkpoints.quantised import method_of
from mechdrift.checkpoints.reference import TOKENIZER_FILES, Files, folder_of, locate
from mechdrift.errors import InputError

IDENTITY_FILES = {
    "config": ("config.json",),
    "tokenizer": (
        "tokenizer.json",
        "tokenizer.model",
        "vocab.json",
        "merges.txt",
        "added_tokens.json",
        "special_tokens_map.json",
        "tokenizer_config.json",
    ),
    "template": ("chat_template.jinja", "chat_template.json"),
}
BLOCK = 1 << 24


@dataclass(frozen=True)
class Checkpoint:
    """One model, identified by content."""

    spec: str
    """As typed by the user."""
    folder: Path
    """Where its files lie; no part of its identity."""
    model_type: str
    """transformers' name of the architecture."""
    layers: int
    """Number of blocks."""
    width: int
    """d_model."""
    parameters: int
    """Number of stored weights."""
    digests: dict[str, str]
    """sha256 of weights, config, tokenizer and template, and of an adapter."""
    quantised: str = ""
    """How its weights were rounded, for example `gptq` or `gguf Q4_K`; empty where they are exact."""
    gguf: str = ""
    """Name of the GGUF file in the folder, where it is one."""
    adapter: str = ""
    """Folder of the adapter that changes it; no part of its identity."""

    @property
    def short(self) -> str:
        """Twelve characters that tell checkpoints apart."""
        return hashlib.sha256("".join(self.digests.values()).encode()).hexdigest()[:12]

    @property
    def exact_weights(self) -> bool:
        """Whether its weights are those that were trained: measures of weights are not defined on rounded ones."""
        return not self.quantised

    @property
    def tokenizer_folder(self) -> Path:
        """Where its tokenizer lies: with the adapter if that brings one, which then is the one it was trained with."""
        adapter = Path(self.adapter) if self.adapter else None
        return adapter if adapter and any((adapter / name).is_file() for name in TOKENIZER_FILES) else self.folder


def resolve(spec: str) -> Checkpoint:
    """Locate, check and fingerprint a checkpoint. Raises InputError."""
    if parts := split_adapter(spec):
        return _resolve_adapted(spec, *parts)
    if is_gguf(spec):
        return _resolve_gguf(spec)
    found = locate(spec)
    parameters, digest = _read_weights(found)
    digests = {"weights": digest} | _digests(found.folder, tuple(IDENTITY_FILES))
    config = found.config
    try:
        model_type, layers, width = config["model_type"], int(config["num_hidden_layers"]), int(config["hidden_size"])
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{spec}: config.json of a {config.get('model_type')} model lacks {error}",
            "a decoder-only language model",
            "check it",
        ) from error
    return Checkpoint(spec, found.folder, model_type, layers, width, parameters, digests, method_of(config))


def _resolve_adapted(spec: str, base: str, adapter: str) -> Checkpoint:
    """A base with an adapter on it: its identity is that of the base and the adapter's bytes."""
    point, folder = resolve(base), folder_of(adapter)
    check_adapter(spec, folder)
    parameters, _ = _read_weights(Files(spec, folder, (folder / WEIGHTS,)))
    digests = point.digests | {"adapter": _digest([folder / CONFIG, folder / WEIGHTS])}
    adapted = replace(point, spec=spec, parameters=point.parameters + parameters, digests=digests, adapter=str(folder))
    if adapted.tokenizer_folder == folder:
        digests |= _digests(folder, ("tokenizer", "template"))
    return adapted


def _resolve_gguf(spec: str) -> Checkpoint:
    """A GGUF file: everything is in it, so its bytes are its identity, under any name."""
    found = read_gguf(spec)
    with found.path.open("rb") as handle:
        digests = {"weights": hashlib.file_digest(handle, "sha256").hexdigest()}
    quantised = f"gguf {found.quantised}" if found.quantised else ""
    sizes = (found.architecture, found.layers, found.width, found.parameters)
    return Checkpoint(spec, found.path.parent, *sizes, digests, quantised, found.path.name)


def _digests(folder: Path, names: tuple[str, ...]) -> dict[str, str]:
    """Digests of the named parts of a folder."""
    return {name: _digest([path for file in IDENTITY_FILES[name] if (path := folder / file).is_file()]) for name in names}


def _read_weights(found: Files) -> tuple[int, str]:
    """Number of weights and the digest of all shards. Raises InputError at a weight that is not finite."""
    import torch
    from safetensors import safe_open

    parameters = 0
    for path in found.weights:
        with safe_open(path, framework="pt") as shard:
            for name in shard.keys():  # noqa: SIM118 - a safe_open handle is no mapping
                tensor = shard.get_tensor(name)
                parameters += tensor.numel()
                if tensor.dtype.itemsize == 1 and tensor.is_floating_point():
                    tensor = tensor.to(torch.bfloat16)  # isfinite does not know float8
                if tensor.is_floating_point() and not (finite := torch.isfinite(tensor)).all():
                    raise InputError(
                        f"{found.spec}: {int((~finite).sum()):,} of {tensor.numel():,} weights of {name} are NaN or infinite",
                        "finite weights",
                        "go back to the last sound checkpoint of the run",
                    )
    return parameters, _digest(found.weights)


def _digest(paths: tuple[Path, ...] | list[Path]) -> str:
    """sha256 over the files' names and contents."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(f"{path.name}/{path.stat().st_size}/".encode())
        with path.open("rb") as handle:
            while block := handle.read(BLOCK):
                digest.update(block)
    return digest.hexdigest()
