"""Shared by all tests: tiny random checkpoints, made by transformers itself."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jaxtyping import install_import_hook

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


def tiny_model(family: str = "llama", seed: int = 0, **overrides: Any) -> Any:
    """A random model of 3 blocks and width 32, its norms' gains not all one."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(seed)
    sizes: dict[str, Any] = {
        "vocab_size": 258,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": 1,
    }
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **sizes | overrides))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(torch.rand_like(parameter) + 0.5 if "norm" in name else torch.randn_like(parameter) * 0.2)
    return model.eval()


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Any) -> Callable[..., Path]:
    """Write a tiny checkpoint into a folder of its own; same arguments, same weights."""

    def write(family: str = "llama", seed: int = 0, max_shard_size: str = "1GB", **overrides: Any) -> Path:
        folder = tmp_path_factory.mktemp(f"{family}-{seed}-")
        tiny_model(family, seed, **overrides).save_pretrained(folder, max_shard_size=max_shard_size)
        tiny_tokenizer.save_pretrained(folder)
        return folder

    return write
