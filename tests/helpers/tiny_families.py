"""Every causal language model of transformers, as small as its config allows: what is saved of it, and what it is saved as."""

from pathlib import Path
from typing import Any

# What configs call their sizes; each takes those that it knows.
SIZES: dict[str, Any] = {
    "vocab_size": 258,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 1,
    "head_dim": 8,
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "n_group": 1,
    "topk_group": 1,
    "d_model": 32,
    "n_embd": 32,
    "n_layer": 2,
    "n_head": 4,
}
MOST = 5_000_000  # weights: of a config whose sizes have other names the model is as large as the published one


def tiny_of(config_class: Any, model_class: Any) -> Any:
    """A random model; None where the sizes above do not make one, or not a small one."""
    import torch

    try:
        config = config_class(**SIZES)
        if config.is_encoder_decoder:
            return None
        if model_class.config_class is config.sub_configs.get("text_config"):
            config = config.get_text_config()
        with torch.device("meta"):
            count = sum(weight.numel() for weight in model_class(config).parameters())
        return model_class(config) if count < MOST else None
    except Exception:  # each family's config has conditions of its own on how its sizes fit together
        return None


def save(model: Any, folder: Path) -> Path:
    """As its owner would save it, with a tokenizer."""
    from tiny import tiny_tokenizer

    model.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder
