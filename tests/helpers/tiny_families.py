"""Every causal language model of transformers, as small as its config allows: what is saved of it, and what it is saved as."""

from pathlib import Path
from typing import Any

# What configs call their sizes; each takes those that it knows.
SIZES: dict[str, Any] = {
    **dict.fromkeys(("vocab_size", "vocab_size_per_layer_input"), 258),
    **dict.fromkeys(("hidden_size", "d_model", "n_embd", "dim", "embedding_size", "word_embed_proj_dim", "lru_width"), 32),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "n_inner", "d_ff", "decoder_ffn_dim", "ffn_hidden_size"), 48),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "num_layers", "n_layers", "decoder_layers"), 4),
    **dict.fromkeys(("num_attention_heads", "n_head", "num_heads", "n_heads", "decoder_attention_heads"), 4),
    **dict.fromkeys(("num_key_value_heads", "n_kv_heads", "encoder_layers"), 2),
    **dict.fromkeys(("max_position_embeddings", "n_positions"), 512),
    "encoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 1,
    **dict.fromkeys(("head_dim", "attention_head_dim", "global_head_dim"), 8),
    "rotary_dim": 4,
    "sliding_window": 6,
    "query_pre_attn_scalar": 8,
    "hidden_size_per_layer_input": 8,
    "num_kv_shared_layers": 2,
    # Mixtures of experts; not all are chosen.
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"), 4),
    **dict.fromkeys(("num_experts_per_tok", "moe_k", "moe_topk"), 2),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size"), 16),
    **dict.fromkeys(("n_group", "topk_group", "first_k_dense_replace", "moe_layer_start_index", "num_shared_experts"), 1),
    "moe_num_shared_experts": 1,
    # Keys and values through a narrow matrix.
    **dict.fromkeys(("q_lora_rank", "kv_lora_rank", "v_head_dim"), 8),
    **dict.fromkeys(("qk_rope_head_dim", "qk_nope_head_dim"), 4),
    # Linear attention and state-space blocks.
    **dict.fromkeys(("linear_num_key_heads", "linear_num_value_heads"), 2),
    **dict.fromkeys(("linear_key_head_dim", "linear_value_head_dim", "mamba_head_dim"), 16),
    **dict.fromkeys(("mamba_num_heads", "time_step_rank", "mamba_dt_rank", "conv_kernel"), 4),
    **dict.fromkeys(("mamba_n_heads", "mamba_d_head", "mamba_d_state", "state_size", "ssm_state_size"), 8),
    "linear_num_heads": 4,
    "linear_head_dim": 8,
    "mamba_d_ssm": 64,
    **dict.fromkeys(("mamba_n_groups", "n_groups"), 1),
    **dict.fromkeys(("mamba_expand", "expand"), 2),
}
LATENT = "qk_rope_head_dim"  # configs that have it take its size for head_dim
ROPE = {"rope_type": "default", "rope_theta": 1e4}
INDEXER = {"indexer_n_heads": 2, "indexer_kv_heads": 1, "indexer_head_dim": 8, "indexer_budget": 8, "indexer_compress_ratio": 2}
KINDS = ["sliding_attention", "full_attention"] * 2
MORE: dict[str, dict[str, Any]] = {
    "cohere_compass_text": {"layer_types": KINDS, "rope_parameters": dict.fromkeys(KINDS, ROPE)},
    "dots1": {"n_shared_experts": 1},
    "falcon": {"head_dim": ...},
    **{name: {"layer_types": KINDS} for name in ("gemma4", "gemma4_text", "gemma4_unified", "gemma4_unified_text")},
    "gpt_neo": {"attention_types": [[["global", "local"], 2]]},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 2, "num_dense_layers": 1},
    "mamba2": {"num_heads": 8},
    "reformer": {"is_decoder": True},
    "xlnet": {"max_position_embeddings": ...},
    "xlstm": {"v_head_dim": ...},
    "zamba2": {"layer_types": ["mamba", "hybrid"] * 2},
    **dict.fromkeys(("qwen4_exp", "qwen4_exp_text"), INDEXER),
    "zaya": {"num_experts_per_tok": 1},
}
"""By model type, where the sizes above do not go together; ... leaves one out."""
MOST = 10_000_000  # weights: of a config whose sizes have other names the model is as large as the published one


def causal_types() -> list[str]:
    """Every type that transformers has a causal language model of."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    return sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)


def _sizes_of(config: Any) -> dict[str, Any]:
    sizes = {name: value for name, value in SIZES.items() if _knows(config, name)}
    return sizes | ({"head_dim": sizes[LATENT], "num_key_value_heads": 4} if LATENT in sizes else {})


def _knows(config: Any, name: str) -> bool:
    try:
        return hasattr(config, name)
    except Exception:  # of a size that differs from layer to layer
        return True


def tiny_causal(model_type: str) -> Any:
    """A random model of a type; raises whatever its config or its class does where the sizes do not make one."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    config_class = type(AutoConfig.for_model(model_type))
    usual = config_class()
    if usual.is_encoder_decoder:
        raise ValueError("an encoder-decoder")
    text = usual.get_text_config(decoder=True)
    given = _sizes_of(text) | MORE.get(model_type, {})
    sizes = {name: value for name, value in given.items() if value is not ...}
    if text is not usual:
        others = {name: getattr(usual, name, None) for name in config_class.sub_configs}
        inside = next(name for name, other in others.items() if other is text)
        sizes = {name: _sizes_of(other) for name, other in others.items() if other is not None and name != inside} | {
            inside: sizes
        }
    config = config_class(**sizes)
    with torch.device("meta"):
        count = sum(weight.numel() for weight in AutoModelForCausalLM.from_config(config).parameters())
    if count > MOST:
        raise ValueError(f"{count} weights: some of its sizes have other names")
    return AutoModelForCausalLM.from_config(config).eval()


def tiny_or_none(model_type: str) -> Any:
    """The same, or None where the sizes do not make one."""
    try:
        return tiny_causal(model_type)
    except Exception:  # each family's config has conditions of its own on how its sizes fit together
        return None


def save(model: Any, folder: Path) -> Path:
    """As its owner would save it, with a tokenizer."""
    from tiny import tiny_tokenizer

    model.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder
