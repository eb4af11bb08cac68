"""From files to a checkpoint with an identity: everything is read once, digested, and held to be finite."""

import hashlib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from mechdrift.checkpoints.adapters import CONFIG, WEIGHTS, check_adapter, split_adapter
from mechdrift.checkpoints.claims import refuse_impossible_sizes
from mechdrift.checkpoints.end_ids import check_end_ids
from mechdrift.checkpoints.gguf_file import is_gguf, read_gguf
from mechdrift.checkpoints.hub import Hub
from mechdrift.checkpoints.identity import Memory, Progress, Reader, digest_files, joined, read_weights
from mechdrift.checkpoints.quantised import method_of
from mechdrift.checkpoints.reading import Content, digest_whole, read_through
from mechdrift.checkpoints.reference import TOKENIZER_FILES, Files, locate, place_of
from mechdrift.checkpoints.shards import tensors
from mechdrift.errors import InputError

# How the families that are known here name the weights of a block.
BLOCK = re.compile(r"(?:model\.|transformer\.|gpt_neox\.)?(?:layers|h)\.(\d+)\.")
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
    """sha256 of weights, config, tokenizer and template, and of an adapter."""
    source: str
    """What the spec was taken for: folder, hub, organism, file (GGUF) or adapter."""
    commit: str | None
    """Of a hub model: the full SHA that all its files are of."""
    pinned: str
    """A spec of the same files tomorrow: a branch of the hub replaced by its commit."""
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
        """Locate, check and fingerprint a checkpoint. Raises InputError, also for files that may not be read."""
        if spec not in self._resolved:
            try:
                if parts := split_adapter(spec):
                    self._resolved[spec] = self._adapted(spec, *parts)
                elif is_gguf(spec):
                    self._resolved[spec] = self._file(spec)
                else:
                    self._resolved[spec] = self._folder(locate(spec, self.hub))
            except OSError as error:
                raise InputError(f"{spec}: {error}", "files that can be read", "check the path and your rights to it") from error
        return self._resolved[spec]

    def _folder(self, found: Files) -> Checkpoint:
        """Read the config before the weights: what is refused is refused at once."""
        refuse_impossible_sizes(found.spec, found.config, found.weights)
        check_end_ids(found.spec, found.folder, found.config)
        model_type, layers, width = _shape(found)
        _refuse_blocks_beyond(found, layers)
        contents = self._read(found.spec, found.weights, read_through)
        weights = joined((path.name, content.sha256) for path, content in zip(found.weights, contents, strict=True))
        digests = {"weights": weights} | _digests(found.spec, found.folder, IDENTITY_FILES)
        parameters = sum(content.parameters for content in contents)
        folder, source, commit, pinned = found.place
        return Checkpoint(
            *(found.spec, folder, model_type, layers, width, parameters, digests, source, commit, pinned),
            quantised=method_of(found.config),
        )

    def _adapted(self, spec: str, base: str, adapter: str) -> Checkpoint:
        """A base with an adapter on it: its identity is that of the base and the adapter's bytes."""
        point, place = self.resolve(base), place_of(adapter, self.hub)
        folder = place.folder
        check_adapter(spec, folder)
        (content,) = self._read(spec, (folder / WEIGHTS,), read_through)
        digests = point.digests | {
            "adapter": joined([(WEIGHTS, content.sha256)]),
            "adapter_config": digest_files(spec, [folder / CONFIG]),
        }
        adapted = replace(
            point,
            spec=spec,
            parameters=point.parameters + content.parameters,
            digests=digests,
            source="adapter",
            commit=None,
            pinned=f"{point.pinned}+{place.pinned}",
            adapter=str(folder),
        )
        if adapted.tokenizer_folder == folder:
            digests |= _digests(spec, folder, ("tokenizer", "template"))
        return adapted

    def _file(self, spec: str) -> Checkpoint:
        """A GGUF file: everything is in it, so its bytes are its identity, under any name."""
        found = read_gguf(spec)
        (content,) = self._read(spec, (found.path,), partial(digest_whole, parameters=found.parameters))
        quantised = f"gguf {found.quantised}" if found.quantised else ""
        sizes = (found.architecture, found.layers, found.width, found.parameters)
        digests = {"weights": content.sha256}
        return Checkpoint(
            *(spec, found.path.parent, *sizes, digests, "file", None, spec), quantised=quantised, gguf=found.path.name
        )

    def _read(self, spec: str, paths: tuple[Path, ...], reader: Reader) -> list[Content]:
        progress = self.progress(f"{spec}: reading weights, MB") if self.progress else None
        return read_weights(spec, paths, reader, self.memory, progress)


def resolve(spec: str) -> Checkpoint:
    """One checkpoint outside a run: everything is read. Raises InputError."""
    return Resolver().resolve(spec)


def _refuse_blocks_beyond(found: Files, layers: int) -> None:
    """Raise InputError for weights of blocks that the config does not have: transformers would leave them out and say nothing."""
    names = [tensor.name for path in found.weights for tensor in tensors(path)]
    deepest = max((int(match[1]) for name in names if (match := BLOCK.match(name))), default=-1)
    if deepest >= layers:
        raise InputError(
            f"{found.spec}: config.json has {layers} blocks, and the weights go up to block {deepest}",
            "the config of these weights",
            "restore the config.json that was saved with them",
        )


def _digests(spec: str, folder: Path, names: Iterable[str]) -> dict[str, str]:
    """Digests of the named parts of a folder."""
    return {
        name: digest_files(spec, [path for file in IDENTITY_FILES[name] if (path := folder / file).is_file()]) for name in names
    }


def _shape(found: Files) -> tuple[str, int, int]:
    """Model type, number of blocks and d_model, under whatever names the family's config has for them.

    Raises InputError for what is no decoder-only language model that transformers knows.
    """
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(found.folder, local_files_only=True, trust_remote_code=False)
        text = config.get_text_config(decoder=True)
        if config.is_encoder_decoder:
            raise ValueError("an encoder-decoder")
        layers, width = int(text.num_hidden_layers), int(text.hidden_size)
        if layers < 1 or width < 1:
            raise ValueError(f"{layers} blocks of width {width}")
    except Exception as error:  # each family's class does its own arithmetic with what a stranger wrote
        raise InputError(
            f"{found.spec}: config.json of a {found.config['model_type']} model: {' '.join(str(error).split())[:200]}",
            "a decoder-only language model that transformers knows",
            "check it: code of the checkpoint's own is not run",
        ) from error
    return str(config.model_type), layers, width
