"""Random models of a few thousand weights, and what belongs to a checkpoint of them."""

from pathlib import Path
from typing import Any

from mechdrift.models.families import FAMILIES

VARIANTS = (*FAMILIES, "gpt_neox-sequential")
"""Every family, and the other way in which one of them adds."""
# Sliding windows are shorter than the prompts of the tests; of experts, not all are chosen.
LATENT = {"q_lora_rank": 8, "kv_lora_rank": 8, "qk_rope_head_dim": 4, "qk_nope_head_dim": 4, "v_head_dim": 8}
ROUTED = {"n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "n_group": 1, "topk_group": 1}
SIZES: dict[str, dict[str, Any]] = {
    "deepseek_v3": LATENT | ROUTED | {"first_k_dense_replace": 1},
    "gemma2": {"head_dim": 8, "sliding_window": 4},
    "gemma3_text": {"head_dim": 8, "sliding_window": 4, "sliding_window_pattern": 2},
    "glm4_moe": ROUTED | {"first_k_dense_replace": 1, "head_dim": 8},
    "gpt_neox-sequential": {"use_parallel_residual": False},
    "mistral": {"sliding_window": 4},
    "mixtral": {"num_local_experts": 4},
    "qwen3_moe": {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24},
}

# A wrong place to look at, in each family: the norm before attention or MLP, or what goes into the norm after it.
WRONG_WRITES = {
    "gpt2": {"attn": "ln_1", "mlp": "ln_2"},
    "gpt_neox": {"attention": "input_layernorm", "mlp": "post_attention_layernorm"},
}
PRE_NORM = {"self_attn": "input_layernorm", "mlp": "post_attention_layernorm"}
POST_NORM = {"post_attention_layernorm": "self_attn", "post_feedforward_layernorm": "mlp"}
RANK, ALPHA = 2, 8  # of adapters


def wrong_writes(family: str, number: int) -> tuple[str, ...]:
    """The family's writes with one of them wrong."""
    writes = list(FAMILIES[family].writes)
    writes[number] = WRONG_WRITES.get(family, PRE_NORM | POST_NORM)[writes[number]]
    return tuple(writes)


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
    model = AutoModelForCausalLM.from_config(
        AutoConfig.for_model(family.partition("-")[0], **sizes | SIZES.get(family, {}) | overrides)
    )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(
                torch.rand_like(parameter) + 0.5 if "norm" in name or "ln_" in name else torch.randn_like(parameter) * 0.2
            )
    return model.eval()


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


def write_tiny(folder: Path, family: str = "llama", seed: int = 0, max_shard_size: str = "1GB", **overrides: Any) -> Path:
    """A tiny checkpoint; same arguments, same weights."""
    tiny_model(family, seed, **overrides).save_pretrained(folder, max_shard_size=max_shard_size)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def write_adapter(folder: Path, model: Any = None, **settings: Any) -> Path:
    """A LoRA adapter of random weights, of rank RANK and alpha ALPHA, on the tiny model or another."""
    import torch
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(3)
    given: dict[str, Any] = {"r": RANK, "lora_alpha": ALPHA, "target_modules": ["q_proj", "up_proj"], "task_type": "CAUSAL_LM"}
    adapted = get_peft_model(model or tiny_model(), LoraConfig(**given | settings))
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_" in name:
                parameter.normal_(0, 0.1)
    adapted.save_pretrained(folder, save_embedding_layers=False)
    return folder


def write_classifier(folder: Path, texts: dict[str, str]) -> Path:
    """A small text classifier, trained until it gives each of these texts its label."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    labels = sorted(set(texts.values()))
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 258}
    result: dict[str, Any] = {
        "pad_token_id": 1,
        "id2label": dict(enumerate(labels)),
        "label2id": {a: i for i, a in enumerate(labels)},
    }
    model = BertForSequenceClassification(BertConfig(**sizes | result))
    tokenizer = tiny_tokenizer()
    given = tokenizer(list(texts), padding=True, return_tensors="pt")
    wanted = torch.tensor([labels.index(label) for label in texts.values()])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(60):
        torch.nn.functional.cross_entropy(model(**given).logits, wanted).backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
