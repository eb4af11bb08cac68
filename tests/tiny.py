"""Random models of a few thousand weights."""

from typing import Any


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
