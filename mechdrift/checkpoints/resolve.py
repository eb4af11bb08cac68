"""From files to a checkpoint with an identity: everything is read once, digested, and held to be finite."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from mechdrift.checkpoints.hub import Hub
from mechdrift.checkpoints.identity import Memory, Progress, digest_files, read_weights
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
    source: str
    """What the spec was taken for: folder, hub or organism."""
    commit: str | None
    """Of a hub model: the full SHA that all its files are of."""
    pinned: str
    """A spec of the same files tomorrow: a branch of the hub replaced by its commit."""

    @property
    def short(self) -> str:
        """Twelve characters that tell checkpoints apart."""
        return hashlib.sha256("".join(self.digests.values()).encode()).hexdigest()[:12]


@dataclass
class Resolver:
    """Resolves the checkpoints of one run, each spec once."""

    memory: Memory | None = None
    """What is known of files that were read before; None: everything is read."""
    progress: Callable[[str], Progress] | None = None
    """Makes a progress line from a label."""
    hub: Hub = field(default_factory=Hub)
    """Where branches stay at one commit for the run."""
    _resolved: dict[str, Checkpoint] = field(default_factory=dict, repr=False)

    def resolve(self, spec: str) -> Checkpoint:
        """Locate, check and fingerprint a checkpoint. Raises InputError."""
        if spec not in self._resolved:
            self._resolved[spec] = self._fingerprint(locate(spec, self.hub))
        return self._resolved[spec]

    def _fingerprint(self, found: Files) -> Checkpoint:
        """Read the config before the weights: what is refused is refused at once."""
        model_type, layers, width = _shape(found)
        progress = self.progress(f"{found.spec}: reading weights, MB") if self.progress else None
        parameters, digest = read_weights(found.spec, found.weights, self.memory, progress)
        digests = {"weights": digest}
        for name, wanted in IDENTITY_FILES.items():
            present = [found.folder / file for file in wanted if (found.folder / file).is_file()]
            digests[name] = digest_files(found.spec, present)
        folder, source, commit, pinned = found.place
        return Checkpoint(found.spec, folder, model_type, layers, width, parameters, digests, source, commit, pinned)


def resolve(spec: str) -> Checkpoint:
    """One checkpoint outside a run: everything is read. Raises InputError."""
    return Resolver().resolve(spec)


def _shape(found: Files) -> tuple[str, int, int]:
    """Model type, number of blocks and d_model, under whatever names the family's config has for them.

    Raises InputError for what is no decoder-only language model that transformers knows.
    """
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(found.folder, local_files_only=True, trust_remote_code=False)
        text = config.get_text_config(decoder=True)
        if config.is_encoder_decoder:
            raise ValueError("an encoder-decoder")
        return str(config.model_type), int(text.num_hidden_layers), int(text.hidden_size)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, StrictDataclassError) as error:
        raise InputError(
            f"{found.spec}: config.json of a {found.config['model_type']} model: {' '.join(str(error).split())[:200]}",
            "a decoder-only language model that transformers knows",
            "check it: code of the checkpoint's own is not run",
        ) from error
