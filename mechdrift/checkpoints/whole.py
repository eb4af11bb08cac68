"""A checkpoint is whole: its tensors are those of its model, none missing, none without a place, none twice.

Held before anything is read through, by transformers' own loading of names and shapes onto the meta device, which knows what each
family renames, merges and ignores; and once more by what the real load says of itself.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from mechdrift.checkpoints.misplaced import in_order, misplaced, missing, reshaped
from mechdrift.checkpoints.stored import Stored, are_equal, is_computed, is_harmless
from mechdrift.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel


def check_whole(spec: str, stored: Stored, config: "PreTrainedConfig", classes: Mapping[Any, Any]) -> None:
    """Raise InputError unless the files hold the tensors of the model that the config describes, each once and of its shape.

    classes: transformers' mapping from configs to models, for causal language models or for classifiers. No weight is read, but
    where two that the config ties are both stored. Takes a tenth of a second; 8 s for the 45,000 tensors of a DeepSeek-V3.
    """
    name = config.model_type
    if (layers := _blocks(config)) > len(stored):  # each has one at least; no config may claim a model that cannot be built
        raise InputError(
            f"{spec}: config.json claims {layers} blocks, and there are {len(stored)} tensors",
            "the config of these weights",
            "restore the config.json that was saved with them",
        )
    try:
        model, info = _load_shapes(stored, config, classes)
    except Exception as error:  # from each family's own arithmetic with a config that does not fit
        raise _by_name(spec, stored, config, classes) or _not_loadable(spec, name, error) from error
    places = _places(model, stored)
    if beyond := _beyond(model, info, places, stored):
        raise misplaced(spec, name, beyond, stored)
    if info["missing_keys"]:
        raise _by_name(spec, stored, config, classes) or missing(spec, info["missing_keys"])
    if info["mismatched_keys"]:
        raise _by_name(spec, stored, config, classes) or reshaped(spec, info["mismatched_keys"])
    _refuse_twice(spec, [places[name] for name in model.state_dict() if name in places])
    for target, source in model.all_tied_weights_keys.items():
        if target in places and source in places and not are_equal(stored, places[target][0], places[source][0]):
            raise _untied(spec, places[target][0], places[source][0])


def check_loaded(spec: str, model: "PreTrainedModel", info: dict[str, Any], stored: Stored, quantised: str = "") -> None:
    """Raise InputError unless a model in memory has all its weights from its files, and they have no others.

    info: transformers' loading info. stored: what the files hold, empty where that is no safetensors. Of quantised files nothing
    else tells: what belongs to them is known to the method that reads them, which is named.
    """
    name = model.config.model_type
    if beyond := _beyond(model, info, _places(model, stored), stored):
        raise misplaced(spec, name, beyond, stored, quantised)
    if info["missing_keys"]:
        raise missing(spec, info["missing_keys"])
    if info["mismatched_keys"]:
        raise reshaped(spec, info["mismatched_keys"])
    tied = model.get_expanded_tied_weights_keys(all_submodels=True)
    for target in in_order(tied.keys() - model.all_tied_weights_keys.keys()):  # transformers unties what is not equal
        raise _untied(spec, target, tied[target])


def _blocks(config: "PreTrainedConfig") -> int:
    """How many blocks the config claims."""
    return int(getattr(config.get_text_config(decoder=True), "num_hidden_layers", 0) or 0)


def _class_of(config: "PreTrainedConfig", classes: Mapping[Any, Any]) -> tuple[Any, "PreTrainedConfig"]:
    """The class that transformers takes for a config, and the config that it takes: of some, that of the text model inside."""
    if type(config) not in classes:
        raise ValueError(f"transformers has no such model of type {config.model_type}")
    model_class = classes[type(config)]
    within = config.sub_configs.get("text_config")
    return model_class, config.get_text_config() if within and model_class.config_class is within else config


def _load_shapes(
    stored: Stored, config: "PreTrainedConfig", classes: Mapping[Any, Any]
) -> tuple["PreTrainedModel", dict[str, Any]]:
    """A model without memory for its weights, and what transformers says of the tensors that it was given."""
    import torch

    model_class, taken = _class_of(config, classes)
    shapes = {name: torch.empty(place.tensor.shape, dtype=torch.float32, device="meta") for name, place in stored.items()}
    with quiet(), torch.no_grad():
        model, info = model_class.from_pretrained(
            None,
            config=taken,
            state_dict=shapes,
            device_map={"": "meta"},
            dtype=torch.float32,
            attn_implementation="eager",
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are in the info
        )
    return model, info


@contextmanager
def quiet() -> Iterator[None]:
    """Silence transformers' reports, as of what is missing, for people who fine-tune: here what is wrong is an error."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def _places(model: "PreTrainedModel", stored: Stored) -> dict[str, list[str]]:
    """Names in the files by names in the model, as transformers renames them; without what it merges, which is not renamed."""
    from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key

    steps = model._weight_conversions or []
    renamings = [step for step in steps if isinstance(step, WeightRenaming)]
    converters = [step for step in steps if isinstance(step, WeightConverter)]
    state, prefix = model.state_dict(), model.base_model_prefix
    places: dict[str, list[str]] = defaultdict(list)
    for name in stored:
        renamed, merged = rename_source_key(name, renamings, converters, prefix, state)
        if renamed not in state and name in state:  # as transformers does
            renamed, merged = rename_source_key(name, [], [], prefix, state)
        if merged is None or renamed not in state:
            places[renamed].append(name)
    return places


def _beyond(model: "PreTrainedModel", info: dict[str, Any], places: dict[str, list[str]], stored: Stored) -> list[str]:
    """The tensors without a place that matter, as the files name them."""
    names = [name for key in _unexpected(model, info) for name in places.get(key, [key])]
    return [name for name in names if not is_harmless(name, stored)]


def _unexpected(model: "PreTrainedModel", info: dict[str, Any]) -> list[str]:
    """The tensors without a place, but for what the model computes for itself, which older versions stored."""
    buffers = {name for name, _ in model.named_buffers()}
    return in_order(name for name in info["unexpected_keys"] if name not in buffers and not is_computed(name))


def _by_name(spec: str, stored: Stored, config: "PreTrainedConfig", classes: Mapping[Any, Any]) -> InputError | None:
    """What is missing, or has no place, by the names that a save writes.

    Of what is merged on load transformers says that the whole does not fit, not which part is missing; of tied weights it names
    both. None for files in another layout, whose names are not comparable, and where no model can be built.
    """
    import torch
    from transformers.core_model_loading import revert_weight_conversion

    try:
        model_class, taken = _class_of(config, classes)
        with quiet(), torch.device("meta"), torch.no_grad():
            model = model_class(taken)
            tied = model.all_tied_weights_keys
            state = {name: tensor for name, tensor in model.state_dict().items() if name not in tied}
            written = revert_weight_conversion(model, state).keys()
    except Exception:  # that it cannot be built is for the caller to say
        return None
    if 2 * len(written & stored.keys()) < len(written):
        return None
    if lacking := written - stored.keys():
        return missing(spec, lacking)
    beyond = stored.keys() - written - tied.keys()
    if ignored := model._keys_to_ignore_on_load_unexpected:
        beyond = {name for name in beyond if not re.search("|".join(f"({pattern})" for pattern in ignored), name)}
    others = _unexpected(model, {"unexpected_keys": beyond})
    others = [name for name in others if not is_harmless(name, stored)]
    return misplaced(spec, config.model_type, others, stored) if others else None


def _refuse_twice(spec: str, places: list[list[str]]) -> None:
    """Raise InputError for two stored tensors of one place, of which transformers would take either."""
    for names in places:
        if len(names) > 1:
            raise InputError(
                f"{spec}: {names[0]} and {names[1]} are the same weight of the model",
                "every weight once",
                "remove those that are stale",
            )


def _untied(spec: str, one: str, other: str) -> InputError:
    """Two weights that the config ties differ."""
    return InputError(
        f"{spec}: tie_word_embeddings is true, and {one} differs from {other}",
        "one matrix for both",
        "set tie_word_embeddings to false in config.json if both were trained, or save it again",
    )


def _not_loadable(spec: str, name: str, error: Exception) -> InputError:
    """No model of this kind can be made of it."""
    return InputError(
        f"{spec}: does not load as {name} ({' '.join(str(error).split())[:300]})",
        "a causal language model that transformers knows",
        "check config.json against the weights",
    )
