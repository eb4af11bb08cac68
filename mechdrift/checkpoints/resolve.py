"""From files to a checkpoint with an identity: everything is read once, digested, and held to be finite."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from mechdrift.checkpoints.adapters import CONFIG, WEIGHTS, check_adapter, refuse_beside_file, refuse_resized, split_adapter
from mechdrift.checkpoints.claims import refuse_impossible_sizes
from mechdrift.checkpoints.end_ids import check_end_ids
from mechdrift.checkpoints.gguf_file import is_gguf, read_gguf
from mechdrift.checkpoints.hub import Hub
from mechdrift.checkpoints.identity import Memory, Progress, Reader, digest_files, joined, read_weights
from mechdrift.checkpoints.parts import CONFIG as CONFIG_PART
from mechdrift.checkpoints.parts import TEMPLATE, TOKENIZER, part_files
from mechdrift.checkpoints.quantised import check_quantised, in_words, method_of
from mechdrift.checkpoints.reading import Content, digest_whole, read_through
from mechdrift.checkpoints.reference import TOKENIZER_FILES, Files, locate, place_of
from mechdrift.checkpoints.shards import weight_files
from mechdrift.checkpoints.stored import notes_on, stored_in
from mechdrift.checkpoints.whole import check_whole
from mechdrift.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


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
    """sha256 of weights, config, generation config, template and tokenizer, and of an adapter."""
    source: str
    """What the spec was taken for: folder, hub, organism, file (GGUF) or adapter."""
    commit: str | None
    """Of a hub model: the full SHA that all its files are of."""
    pinned: str
    """A spec of the same files tomorrow: a branch of the hub replaced by its commit."""
    quantised: str = ""
    """How its weights were rounded, for example `gptq`, `fp8, dequantised` or `gguf Q4_K`; empty where they are exact."""
    gguf: str = ""
    """Name of the GGUF file in the folder, where it is one."""
    adapter: str = ""
    """Folder of the adapter that changes it; no part of its identity."""
    notes: tuple[str, ...] = ()
    """What is stored in its files and left out, one sentence each."""

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
        """Read config and headers before the weights: what is refused is refused at once."""
        from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

        refuse_impossible_sizes(found.spec, found.config, found.weights)
        check_end_ids(found.spec, found.folder, found.config)
        config, layers, width = _shape(found)
        stored, method = stored_in(found.weights), method_of(found.config)
        if method:  # of those the load tells what belongs to them
            check_quantised(found.spec, config, stored, method)
        else:
            check_whole(found.spec, stored, config, MODEL_FOR_CAUSAL_LM_MAPPING)
        contents = self._read(found.spec, found.weights, read_through)
        weights = joined((path.name, content.sha256) for path, content in zip(found.weights, contents, strict=True))
        digests = {"weights": weights} | _digests(found.spec, found.folder)
        parameters = sum(content.parameters for content in contents)
        folder, source, commit, pinned = found.place
        return Checkpoint(
            *(found.spec, folder, str(config.model_type), layers, width, parameters, digests, source, commit, pinned),
            quantised=in_words(method),
            notes=notes_on(found.spec, stored),
        )

    def _adapted(self, spec: str, base: str, adapter: str) -> Checkpoint:
        """A base with an adapter on it: its identity is that of the base and the adapter's bytes."""
        point, place = self.resolve(base), place_of(adapter, self.hub)
        folder = place.folder
        check_adapter(spec, folder)
        if not point.gguf:
            refuse_resized(spec, folder, stored_in(weight_files(point.spec, point.folder)))
        (content,) = self._read(spec, (folder / WEIGHTS,), read_through)
        digests = point.digests | {
            "adapter": joined([(WEIGHTS, content.sha256)]),
            "adapter_config": digest_files(spec, folder, [folder / CONFIG]),
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
            own = _digests(spec, folder)
            digests |= {part: own[part] for part in (TEMPLATE, TOKENIZER)}
        return adapted

    def _file(self, spec: str) -> Checkpoint:
        """A GGUF file: its bytes are its identity, under any name, and what lies beside it that transformers reads too."""
        found = read_gguf(spec)
        refuse_beside_file(spec, found.path.parent)
        (content,) = self._read(spec, (found.path,), partial(digest_whole, parameters=found.parameters))
        quantised = f"gguf {found.quantised}" if found.quantised else ""
        sizes = (found.architecture, found.layers, found.width, found.parameters)
        beside = {part: paths for part, paths in part_files(found.path.parent).items() if paths and part != CONFIG_PART}
        digests = {"weights": content.sha256} | {
            part: digest_files(spec, found.path.parent, paths) for part, paths in beside.items()
        }
        return Checkpoint(
            *(spec, found.path.parent, *sizes, digests, "file", None, spec), quantised=quantised, gguf=found.path.name
        )

    def _read(self, spec: str, paths: tuple[Path, ...], reader: Reader) -> list[Content]:
        progress = self.progress(f"{spec}: reading weights, MB") if self.progress else None
        return read_weights(spec, paths, reader, self.memory, progress)


def resolve(spec: str) -> Checkpoint:
    """One checkpoint outside a run: everything is read. Raises InputError."""
    return Resolver().resolve(spec)


def _digests(spec: str, folder: Path) -> dict[str, str]:
    """Digests of all parts of a folder but its weights."""
    return {part: digest_files(spec, folder, paths) for part, paths in part_files(folder).items()}


def _shape(found: Files) -> tuple["PreTrainedConfig", int, int]:
    """The config, number of blocks and d_model, under whatever names the family's config has for them.

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
        if code := found.config.get("auto_map"):
            raise InputError(
                f"{found.spec}: config.json asks for code of its own (auto_map: {', '.join(code)})",
                "a model that transformers knows by itself: no code of a checkpoint is run",
                "wait for a transformers that has its class",
            ) from error
        raise InputError(
            f"{found.spec}: config.json of a {found.config['model_type']} model: {' '.join(str(error).split())[:200]}",
            "a decoder-only language model that transformers knows",
            "check it: code of the checkpoint's own is not run",
        ) from error
    return config, layers, width
