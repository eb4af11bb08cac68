"""PEFT adapters: `BASE+ADAPTER`, an adapter's files checked, and its change put into the base model."""

import os
import re
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mechdrift.checkpoints.claims import refuse_impossible_rank
from mechdrift.checkpoints.lfs import refuse_pointers
from mechdrift.checkpoints.parts import small_files
from mechdrift.checkpoints.shards import check_shard, read_header, tensors
from mechdrift.checkpoints.stored import Stored
from mechdrift.checkpoints.untrusted import read_json
from mechdrift.errors import InputError, is_out_of_memory

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

OWN = ".base_layer.weight"
"""Of a layer that the adapter changes: the weight that it changes, which PEFT saves too for embedding and head."""
PREFIX = "base_model.model."
"""Of all names that PEFT saves."""
CONFIG, WEIGHTS, PICKLE = "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"
# They put vectors beside the prompt or into attention: there is no weight that they could be merged into.
PROMPT_LEARNING = {
    "ADAPTION_PROMPT",
    "CARTRIDGE",
    "CPT",
    "MULTITASK_PROMPT_TUNING",
    "P_TUNING",
    "PREFIX_TUNING",
    "PROMPT_TUNING",
}


def split_adapter(spec: str) -> tuple[str, str] | None:
    """(base, adapter) of `BASE+ADAPTER`; None for any other spec. A path that exists is a path, whatever its name."""
    if "+" not in spec or os.path.exists(os.path.expanduser(spec)):
        return None
    parts = spec.split("+")
    splits = [("+".join(parts[:at]), "+".join(parts[at:])) for at in range(1, len(parts))]
    return next((split for split in splits if os.path.isdir(os.path.expanduser(split[1]))), splits[-1])


def refuse_adapter(spec: str, folder: Path) -> None:
    """Raise InputError for an adapter given as a checkpoint: alone, or lying beside weights.

    transformers would load the base that the adapter names by itself, or merge nothing and say nothing.
    """
    if not (folder / CONFIG).is_file():
        return
    if (folder / "config.json").is_file():
        raise InputError(
            f"{spec}: holds both a model and an adapter",
            "one of the two",
            f"move {CONFIG} away, or type BASE+{spec} for the adapter",
        )
    named = _config(spec, folder).get("base_model_name_or_path")
    raise InputError(f"{spec}: is an adapter, made on {named!r}", "a model to put it on", f"type BASE+{spec}")


def refuse_beside_file(spec: str, folder: Path) -> None:
    """Raise InputError for an adapter that lies beside a model in one file: transformers would put it on the model unasked."""
    if (folder / CONFIG).is_file():
        raise InputError(f"{spec}: {CONFIG} lies beside it", "the file alone", f"move {CONFIG} away, or type {spec}+{folder}")


def check_adapter(spec: str, folder: Path) -> None:
    """Raise InputError unless the folder is a whole adapter of a causal language model, of a kind that changes its weights."""
    if not (folder / CONFIG).is_file():
        raise InputError(f"{spec}: no {CONFIG} in {folder}", "an adapter as PEFT's save_pretrained writes it", "check the path")
    refuse_pointers(spec, small_files(folder))
    config = _config(spec, folder)
    kind, task = config.get("peft_type"), config.get("task_type")
    if kind in PROMPT_LEARNING:
        raise InputError(
            f"{spec}: an adapter of type {kind}",
            "one that changes weights, as LORA does",
            "compare a model that was trained otherwise",
        )
    if task not in (None, "CAUSAL_LM"):
        raise InputError(f"{spec}: an adapter for the task {task}", "CAUSAL_LM", "compare adapters of language models")
    if not (folder / WEIGHTS).is_file():
        if (folder / PICKLE).is_file():
            raise InputError(
                f"{spec}: {PICKLE}: weights as pickle only",
                f"{WEIGHTS}: unpickling runs whatever code the file holds",
                "convert it: model.save_pretrained(folder) of a current PEFT writes safetensors",
            )
        raise InputError(f"{spec}: no {WEIGHTS} in it", "the adapter's weights", "copy the adapter again")
    check_shard(spec, folder / WEIGHTS)
    refuse_impossible_rank(spec, config, folder / WEIGHTS)
    if find_spec("peft") is None:
        raise InputError(f"{spec}: an adapter, and peft is not installed", "peft", "pip install 'mechdrift[adapters]'")


def _config(spec: str, folder: Path) -> dict[str, Any]:
    """adapter_config.json."""
    try:
        config = read_json(folder / CONFIG)
    except ValueError as error:
        raise InputError(f"{spec}: {CONFIG} is not JSON ({error})", "an adapter's config", "copy the adapter again") from error
    if not isinstance(config, dict) or not isinstance(config.get("peft_type"), str):
        raise InputError(f"{spec}: {CONFIG} names no peft_type", "an adapter's config", "save the adapter again")
    return config


def refuse_resized(spec: str, folder: Path, stored: Stored) -> None:
    """Raise InputError where the adapter was made on a base of another vocabulary: it holds the whole matrix, of other rows."""
    for tensor in tensors(folder / WEIGHTS):
        name = tensor.name.removeprefix(PREFIX).replace(OWN, ".weight")
        if name in stored and (rows := tensor.shape[0]) != (held := stored[name].tensor.shape[0]):
            raise InputError(
                f"{spec}: {name} has {rows} rows in the adapter, {held} in the base",
                "a base of the same vocabulary",
                f"resize the base as for training (resize_token_embeddings({rows})), and save it with the tokenizer",
            )


def _own_weights(adapted: Any) -> set[str]:
    """The base's weights under the adapter's layers, by the names that PEFT saves them by."""
    return {f"{name}{OWN}" for name, module in adapted.named_modules() if hasattr(module, "base_layer")}


def _onto(model: "PreTrainedModel", names: set[str]) -> "tuple[Any, str, str]":
    """What of a model the adapter was made on, and by which expression its names, behind PREFIX, become those there.

    A decoder alone and one inside a model that reads more than text have the same layers under other names.
    """
    inside = any(".language_model." in f".{name}." for name, _ in model.named_modules())
    theirs = any(".language_model." in name for name in names)
    if inside and not theirs:
        return model.get_decoder(), r"^model\.", ""
    if theirs and not inside:
        return model, r"\.language_model\.", "."
    return model, "", ""


def _require_loaded(loaded: "dict[str, Tensor]", folder: Path, there: dict[str, str]) -> None:
    """Raise ValueError for a tensor that PEFT left as it was drawn: of one under a name that it does not know it only warns."""
    from safetensors.torch import load_file

    for name, tensor in load_file(folder / WEIGHTS).items():
        found = loaded.get(there[name])
        if found is not None and not found.cpu().float().equal(tensor.float()):
            raise ValueError(f"{name} was not loaded")


def _has_bias_without_place(adapted: Any) -> bool:
    """Whether a layer gets a bias (lora_bias) that its own weight has none beside."""
    changed = [module for module in adapted.modules() if any(getattr(module, "lora_bias", {}).values())]
    return any(getattr(module.base_layer, "bias", None) is None for module in changed)


def put_on(spec: str, model: "PreTrainedModel", folder: Path, merge: bool) -> "PreTrainedModel":
    """The model with the adapter merged into its weights, or attached to them; the model given is changed.

    Merged as whoever saves the merged model does it: in float32 to rounding; in bfloat16 a change of less than about 2^-9 of
    its weight is lost. Attached it stays where the weights cannot be added to (quantised ones), where one matrix is both
    embedding and head (merged into the one it would change the other, which it does not in training), and where it brings a bias
    that the layer has no place for. Raises InputError where adapter and model do not fit.
    """
    from peft import PeftConfig, PeftModel
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils import get_peft_model_state_dict

    named = _config(spec, folder).get("base_model_name_or_path")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what peft warns of, a key that is missing, is an error below
        try:
            given = set(read_header(folder / WEIGHTS)) - {"__length__", "__metadata__"}
            onto, pattern, other = _onto(model, given)
            mapping, config = {pattern: other} if pattern else None, PeftConfig.from_pretrained(str(folder))
            if mapping:
                config.task_type = None  # a decoder alone does not generate
                if isinstance(config.target_modules, str):
                    config.target_modules = config.target_modules.replace("language_model", "")
            adapted = PeftModel.from_pretrained(
                onto, str(folder), config=config, torch_device=str(model.device), key_mapping=mapping
            )
            loaded = get_peft_model_state_dict(adapted, save_embedding_layers=False)
            wanted, possible = set(loaded), set(get_peft_model_state_dict(adapted, save_embedding_layers=True))
            there = {name: f"{PREFIX}{re.sub(pattern, other, name.removeprefix(PREFIX))}" if pattern else name for name in given}
            given = set(there.values())
            possible |= _own_weights(adapted)  # embedding and head, which PEFT saves whole unless it is told not to
            if not wanted <= given <= possible:
                first = sorted((wanted - given) | (given - possible))[0]
                raise ValueError(
                    f"{len(given - possible)} of its tensors have no place there, {len(wanted - given)} are lacking: {first}"
                )
            _require_loaded(loaded, folder, there)
            ends = (model.get_input_embeddings(), model.get_output_embeddings())
            tied = model.config.tie_word_embeddings and any(isinstance(end, BaseTunerLayer) for end in ends)
            if merge and not tied and not _has_bias_without_place(adapted):
                adapted.merge_and_unload(safe_merge=True)
            else:
                adapted.get_base_model()
        except (ValueError, RuntimeError, KeyError, TypeError, AttributeError, NotImplementedError, ImportError) as error:
            if is_out_of_memory(error):
                raise
            raise InputError(
                f"{spec}: the adapter, made on {named!r}, does not fit ({' '.join(str(error).split())[:300]})",
                "an adapter of this base",
                "type the base that it was trained on",
            ) from error
    return model.eval()
