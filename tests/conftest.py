"""Shared by all tests: tiny random checkpoints, made by transformers itself."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jaxtyping import install_import_hook
from tiny import tiny_model

# Shapes in the measures' signatures are checked while their tests run.
install_import_hook(["mechdrift.measures", "mechdrift.stats"], "shape_checker.check")

pytest_plugins = ["pytester"]


@pytest.fixture(scope="session")
def tiny_tokenizer() -> Any:
    """A byte-level tokenizer that prepends a BOS, as Llama's does."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {"<bos>": 0, "<eos>": 1} | {letter: i for i, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()), 2)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.add_special_tokens(["<bos>", "<eos>"])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 0)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<bos>", eos_token="<eos>", pad_token="<eos>")


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Any) -> Callable[..., Path]:
    """Write a tiny checkpoint into a folder of its own; same arguments, same weights."""

    def write(family: str = "llama", seed: int = 0, max_shard_size: str = "1GB", **overrides: Any) -> Path:
        folder = tmp_path_factory.mktemp(f"{family}-{seed}-")
        tiny_model(family, seed, **overrides).save_pretrained(folder, max_shard_size=max_shard_size)
        tiny_tokenizer.save_pretrained(folder)
        return folder

    return write
