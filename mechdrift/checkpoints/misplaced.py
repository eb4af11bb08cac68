"""What is wrong with a checkpoint that is not whole, and what to type next, by the names of its tensors."""

import re
from collections.abc import Iterable

from mechdrift.checkpoints.stored import Stored, has_float8
from mechdrift.errors import InputError

KINDS = 3  # named in a message
# PEFT's names for what it puts beside a weight, and around one.
ADAPTER = re.compile(
    r"(^base_model\.model\.|\.base_layer\.|\.(modules_to_save|original_module)\.|"
    r"[._](lora|ia3|hada|lokr|oft|boft|vera|vblora|fourierft|hra|ln_tuning|adalora)_\w)"
)
# What methods store beside a rounded weight, or in its place.
ROUNDED = re.compile(
    r"\.(q?scales|qweight|qzeros|g_idx|absmax|quant_map|quant_state\.\w+|nested_absmax|nested_quant_map|SCB|"
    r"weight_(packed|scale|scale_inv|scale_2|shape|zero_point|g_idx)|(input|output|activation)_scale|\w+_(blocks|scales))$"
)
REWARD = re.compile(r"(score|classifier|value_head|reward_head)\.")
# What torch.compile, data parallel training and TRL put around a model, and so before each name.
WRAPPER = re.compile(r"(_orig_mod|module|_fsdp_wrapped_module|pretrained_model)\.")
EMPTY = {"weight", "bias", "default"}  # parts of a name that say nothing of a tensor's kind


def misplaced(spec: str, model: str, names: Iterable[str], stored: Stored, quantised: str = "") -> InputError:
    """The error for tensors without a place in a model of this type. quantised: the method that reads its weights, if any."""
    names = in_order(names)
    found = f"{spec}: {len(names)} tensors ({_kinds(names)}) have no place in a {model}"
    first = f", first {names[0]}"
    if any(ADAPTER.search(name) for name in names):
        return InputError(
            f"{found}{first}", "merged weights", "merge the adapter first: model.merge_and_unload().save_pretrained(FOLDER)"
        )
    if quantised and any(ROUNDED.search(name) for name in names):
        return InputError(
            f"{found} that is quantised ({quantised}){first}",
            "what its quantization_config describes",
            "restore the config.json that was saved with them, or compare the unquantised original",
        )
    if any(ROUNDED.search(name) for name in names):
        kind = "float8" if has_float8(stored) else "quantised"
        return InputError(
            f"{found}, {kind} weights without quantization_config{first}",
            "the config.json that was saved with them",
            "restore its quantization_config",
        )
    if wrapper := WRAPPER.match(names[0]):
        return InputError(f"{found}{first}", f"names without {wrapper[0]}", "save the model inside the wrapper")
    if all(REWARD.match(name) for name in names):
        return InputError(f"{found}: a reward model or a classifier", "a language model", "name the model that it judges")
    return InputError(f"{found}{first}", "the tensors of config.json's model", "restore the config.json that was saved with them")


def missing(spec: str, names: Iterable[str]) -> InputError:
    """The error for weights that are in no file: transformers would draw them at random."""
    names = in_order(names)
    return InputError(
        f"{spec}: {len(names)} tensors missing, first {names[0]}",
        "every weight of the config",
        "save it again, or restore the config.json that was saved with it",
    )


def reshaped(spec: str, sizes: Iterable[tuple[str, Iterable[int], Iterable[int]]]) -> InputError:
    """The error for tensors whose shapes are not those that the config says. sizes: (name, stored, by the config)."""
    wrong = {name: (list(stored), list(claimed)) for name, stored, claimed in sizes}
    first = in_order(wrong)[0]
    stored, claimed = wrong[first]
    return InputError(
        f"{spec}: {len(wrong)} tensors of another shape, first {first}: {stored}",
        f"{claimed} by config.json",
        "restore the config.json that was saved with these weights",
    )


def in_order(names: Iterable[str]) -> list[str]:
    """Names sorted so that block 2 comes before block 10."""
    return sorted(names, key=lambda name: [part.zfill(9) if part.isdigit() else part for part in name.split(".")])


def _kinds(names: list[str]) -> str:
    """What the tensors are, whichever block they are of: `lora_A, lora_B`."""
    kinds = list(dict.fromkeys(_kind(name) for name in names))
    return ", ".join(kinds[:KINDS]) + (", ..." if len(kinds) > KINDS else "")


def _kind(name: str) -> str:
    """The part of a name that says what a tensor is."""
    parts = [part for part in name.split(".") if not part.isdigit()]
    while len(parts) > 1 and parts[-1] in EMPTY:
        parts.pop()
    return parts[-1]
