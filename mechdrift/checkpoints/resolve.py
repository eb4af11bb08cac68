"""From files to a checkpoint with an identity: everything is read once, digested, and held to be finite."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from mechdrift.checkpoints.reference import Files, locate
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
    """sha256 of weights, config, tokenizer and template."""

    @property
    def short(self) -> str:
        """Twelve characters that tell checkpoints apart."""
        return hashlib.sha256("".join(self.digests.values()).encode()).hexdigest()[:12]


def resolve(spec: str) -> Checkpoint:
    """Locate, check and fingerprint a checkpoint. Raises InputError."""
    found = locate(spec)
    parameters, digest = _read_weights(found)
    digests = {"weights": digest}
    for name, wanted in IDENTITY_FILES.items():
        digests[name] = _digest([found.folder / file for file in wanted if (found.folder / file).is_file()])
    config = found.config
    try:
        model_type, layers, width = config["model_type"], int(config["num_hidden_layers"]), int(config["hidden_size"])
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{spec}: config.json of a {config.get('model_type')} model lacks {error}",
            "a decoder-only language model",
            "check it",
        ) from error
    return Checkpoint(spec, found.folder, model_type, layers, width, parameters, digests)


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
