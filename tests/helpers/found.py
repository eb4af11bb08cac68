"""Families that the table does not list, as tiny random models, and what their blocks add."""

from typing import Any

import torch
import transformers

SIZES: dict[str, Any] = {
    "vocab_size": 258,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 1,
}
HEAD = {"head_dim": 8}
LINEAR = {"linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 16, "linear_value_head_dim": 16}
SCALES = {"residual_multiplier": 0.22, "embedding_multiplier": 12.0, "logits_scaling": 8.0, "attention_multiplier": 0.0625}
OPT = {"ffn_dim": 48, "word_embed_proj_dim": 32}
EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 16}
PRE, POST = ("self_attn", "mlp"), ("post_attention_layernorm", "post_feedforward_layernorm")
# By transformers' own code, what each block adds to its input: `hidden_states = residual + ...`.
FOUND: dict[str, tuple[dict[str, Any], set[tuple[str, ...]]]] = {
    "bloom": ({"n_layer": 4, "n_head": 4}, {("self_attention.dense", "mlp.dense_4h_to_h")}),
    "cohere": ({}, {PRE}),
    "gemma": (HEAD, {PRE}),
    "glm4": (HEAD, {("post_self_attn_layernorm", "post_mlp_layernorm")}),
    "gpt_oss": (HEAD | EXPERTS, {PRE}),
    "granite": (SCALES, {PRE}),
    "olmo3": ({"sliding_window": 16}, {POST}),
    "opt": (OPT, {("self_attn", "fc2")}),
    "phi": ({}, {PRE}),
    "qwen3_5_text": (HEAD | LINEAR, {PRE, ("linear_attn", "mlp")}),
    "smollm3": ({}, {PRE}),
    "stablelm": ({}, {PRE}),
}


def drawn(model: Any, seed: int = 1) -> Any:
    """Every weight drawn anew: constants that start at 1 or 0 hide what they are for."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(parameter + 0.1 * noise if parameter.ndim < 2 else noise * 0.2)
    return model.eval()


def model_of(family: str, seed: int = 0) -> Any:
    """A tiny random model of one of FOUND."""
    torch.manual_seed(seed)
    config = transformers.AutoConfig.for_model(family, **SIZES | FOUND[family][0])
    return drawn(transformers.AutoModelForCausalLM.from_config(config), seed + 1)


def prompts() -> list[list[int]]:
    """Of three lengths."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(2, 258, (length,), generator=generator).tolist() for length in (3, 8, 25)]
