"""Whole checkpoints of every causal language model of transformers that can be built small."""

import gc
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_families import save, tiny_of
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

from mechdrift.checkpoints.misplaced import in_order
from mechdrift.checkpoints.resolve import resolve
from mechdrift.errors import InputError

WEIGHTS = "model.safetensors"
BUILT = 130  # of 189 in transformers 5.23; the others have sizes under names of their own, or are encoder-decoders


def wrong(folder: Path) -> str:
    """What is not as it should be: sound as saved, refused with one tensor less and with one more; empty where all is."""
    resolve(str(folder))
    held = load_file(folder / WEIGHTS)
    names = in_order(held)
    name = next(name for name in names[len(names) // 2 :] + names if name.endswith("weight"))
    taken = held.pop(name)
    save_file(held, folder / WEIGHTS, {"format": "pt"})
    with pytest.raises(InputError) as caught:
        resolve(str(folder))
    if f"1 tensors missing, first {name};" not in str(caught.value):
        return f"without {name}: {caught.value}"
    save_file(held | {name: taken, f"{name}_of_mine": torch.ones(3)}, folder / WEIGHTS, {"format": "pt"})
    with pytest.raises(InputError) as caught:
        resolve(str(folder))
    return "" if f"first {name}_of_mine" in str(caught.value) else f"with one more: {caught.value}"


def test_every_family_is_whole_as_saved_and_not_with_a_tensor_less_or_more(tmp_path: Path) -> None:
    found = {}
    for config_class, model_class in MODEL_FOR_CAUSAL_LM_MAPPING.items():
        torch.manual_seed(0)
        model = tiny_of(config_class, model_class)
        if model is not None:
            folder = save(model, tmp_path / config_class.model_type)
            found[config_class.model_type] = wrong(folder)
            shutil.rmtree(folder)
            gc.collect()
    assert len(found) >= BUILT
    assert not {family: what for family, what in found.items() if what}
