"""Checkpoints that are not whole: tensors missing, without a place, twice, of another shape, or pointers in their place."""

from functools import partial

from broken import INDEX, NORM, WEIGHTS, adapter, edit, file, gguf, model, remove, tensors
from misfit import (
    POINTER,
    add_block,
    add_value_head,
    another_head,
    as_pointer,
    gguf_of,
    index,
    judged_by,
    organism,
    peft_state,
    rename,
    scaled_float8,
    stale_shard,
    stale_single,
    unmerged,
)

from cases.case import Case

UP = "model.layers.1.mlp.up_proj.weight"
EXPERT = "model.layers.1.mlp.experts.2.up_proj.weight"
TENTH = EXPERT.replace("2", "9")
ENDS = ("lm_head.weight", "model.embed_tokens.weight")
SECOND = "model-00002-of-00006.safetensors"
sharded = partial(model, max_shard_size="30KB")
experts = partial(model, family="qwen3_moe")

CASES = (
    Case("whole: adapter", "LoRA left in the model", organism(unmerged), "36 tensors (lora_A, lora_B) have no place in a qwen3"),
    Case("whole: adapter", "with base_layer", organism(partial(unmerged, wrapped=True)), "merge the adapter first: model.merge"),
    Case("whole: adapter", "PEFT's whole state dict", model(peft_state), "merge the adapter first: model.merge"),
    Case(
        "whole: no place",
        "norms of queries and keys in a llama",
        organism(edit("config.json", model_type="llama", architectures=["LlamaForCausalLM"])),
        "12 tensors (k_norm, q_norm) have no place in a llama, first model.layers.0.self_attn.k_norm.weight; expected",
    ),
    Case(
        "whole: no place",
        "scales of float8",
        organism(scaled_float8),
        "42 tensors (weight_scale_inv) have no place in a qwen3, float8 weights without quantization_config",
    ),
    Case(
        "whole: no place",
        "rounded weights",
        model(rename(r"(.*_proj)\.weight", r"\1.qweight")),
        "21 tensors (qweight) have no place in a llama, quantised weights without quantization_config",
    ),
    Case(
        "whole: no place",
        "a reward model's head",
        model(rename("lm_head", "score")),
        "1 tensors (score) have no place in a llama: a reward model or a classifier; expected a language model",
    ),
    Case(
        "whole: no place",
        "an expert too many",
        experts(tensors(lambda held: held.update({TENTH: held[EXPERT].clone()}))),
        f"1 tensors (up_proj) have no place in a qwen3_moe, first {TENTH}",
    ),
    Case(
        "whole: no place",
        "a wrapper's names",
        model(rename("^", "_orig_mod.")),
        "first _orig_mod.lm_head.weight; expected names without _orig_mod.; save the model inside the wrapper",
    ),
    Case(
        "whole: no place",
        "a block that is not declared ignorable",
        model(add_block(3), family="deepseek_v3"),
        "have no place in a deepseek_v3, first model.layers.3.",
    ),
    Case("whole: no place", "in a GGUF file", gguf_of(more="blk.1.attn_q_norm.weight"), "have no place in a llama, first blk.1."),
    #
    Case("whole: missing", "a head that nothing ties", model(tensors(lambda held: held.pop(ENDS[0]))), f"first {ENDS[0]}"),
    Case(
        "whole: missing", "an expert", experts(tensors(lambda held: held.pop(EXPERT))), f"1 tensors missing, first {EXPERT}; expe"
    ),
    Case(
        "whole: missing",
        "more blocks than tensors",
        model(edit("config.json", num_hidden_layers=100_000)),
        "claims num_hidden_layers 100,000, and the weight files have 30 tensors",
    ),
    Case(
        "whole: missing",
        "of a GGUF file",
        gguf_of(without="output_norm.weight"),
        "1 tensors missing, first model.norm.weight",
        slow=True,
    ),
    Case(
        "whole: missing",
        "a classifier's head",
        judged_by(tensors(lambda held: held.pop("classifier.weight"))),
        "1 tensors missing, first classifier.weight; expected",
    ),
    Case(
        "whole: shape",
        "an embedding that was cut",
        model(tensors(lambda held: held.update({name: held[name][:200].clone() for name in ENDS}))),
        "2 tensors of another shape, first lm_head.weight: [200, 32]; expected [258, 32] by config.json",
    ),
    #
    Case(
        "whole: twice",
        "a head that the config ties",
        model(another_head),
        "tie_word_embeddings is true, and lm_head.weight differs from model.embed_tokens.weight; expected one matrix",
    ),
    Case(
        "whole: twice",
        "under two names",
        model(tensors(lambda held: held.update({UP.removeprefix("model."): held[UP].clone()}))),
        "are the same weight of the model; expected every weight once",
    ),
    Case(
        "whole: twice",
        "in two shards",
        sharded(tensors(lambda held: held.update({ENDS[0]: next(iter(held.values())).clone()}), SECOND)),
        f"tensor {ENDS[0]} is in {SECOND} and in model-00005-of-00006.safetensors",
    ),
    #
    Case(
        "whole: index",
        "a tensor in another shard",
        sharded(index(lambda placed: placed.update({NORM: SECOND}))),
        f"{INDEX} and shards disagree on 1 tensors: {NORM} is in model-00006-of-00006.safetensors, not in {SECOND}",
    ),
    Case(
        "whole: index",
        "a tensor that its shard lacks",
        sharded(index(lambda placed: placed.update({"model.more": SECOND}))),
        f"{INDEX} and shards disagree on 1 tensors: model.more is not in {SECOND}",
    ),
    Case(
        "whole: index",
        "a tensor that it does not name",
        sharded(index(lambda placed: placed.pop(NORM))),
        f"disagree on 1 tensors: {NORM} of model-00006-of-00006.safetensors is not in the index",
    ),
    Case("whole: index", "a stale single file", sharded(stale_single), f"both {WEIGHTS} and {INDEX} (of 6 files, first"),
    Case("whole: index", "a shard of another save", sharded(stale_shard), f"1 shards that are not of {INDEX}, first model-00002"),
    Case("whole: index", "lost", sharded(remove(INDEX)), f"6 shards and no {INDEX}, first model-00001-of-00006.safetensors"),
    #
    *(
        Case("whole: LFS pointer", name, sharded(as_pointer(name)), f"model: {name} is a Git LFS pointer, not the file itself")
        for name in ("config.json", "tokenizer.json", INDEX, SECOND)
    ),
    Case("whole: LFS pointer", "an adapter", adapter(as_pointer("adapter_model.safetensors")), "is a Git LFS pointer, not the"),
    Case("whole: LFS pointer", "a GGUF file", gguf(as_pointer("model.gguf")), "model.gguf is a Git LFS pointer, not the file"),
    *(
        Case(
            "whole: LFS pointer",
            f"a file of {option}",
            file(option, name, POINTER.format(digest="0" * 64, size=9)),
            f"{name} is a Git LFS pointer, not the",
        )
        for option, name in (("statements", "own.csv"), ("harmful", "own.parquet"), ("texts", "own.txt"), ("pairs", "own.jsonl"))
    ),
    #
    Case(
        "whole: harmless",
        "a value head of TRL's",
        organism(add_value_head),
        "warning: post: 2 tensors of a value head (v_head) are left out",
        0,
        may_hold=True,
        slow=True,
    ),
    Case(
        "whole: harmless",
        "a block that is declared ignorable",
        model(add_block(61), more=("--mechdrift-plan",), family="deepseek_v3"),
        "mechdrift: base model",
        0,
        may_hold=True,
        slow=True,
    ),
)
