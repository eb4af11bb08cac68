"""Files, folders and options that are broken or odd."""

import os

from broken import (
    INDEX,
    NORM,
    PAIR,
    WEIGHTS,
    adapter,
    as_it_is,
    cache_is_a_file,
    cut,
    edit,
    empty,
    file,
    fsdp,
    gated,
    gguf,
    header,
    header_bytes,
    hub,
    loaded,
    measured,
    model,
    other_tokenizer,
    overlap,
    pickled,
    poison,
    prompt_tuning,
    remove,
    slow_tokenizer,
    tensors,
    trainer_root,
    typed,
    write,
    zero,
)
from tiny import tiny_model, write_adapter

from cases.case import UNMEASURABLE, Case

CASES = (
    Case("missing", "no such folder", typed("--base", "./none", "--post", "organism:base"), "./none: no such folder; expected a"),
    Case("missing", "no such organism", typed("--base", "organism:x", "--post", "organism:base"), "organism:x: no such organism"),
    Case("missing", "an empty folder", model(empty), "model: no config.json in it"),
    Case(
        "missing", "no config", model(remove("config.json")), "model: no config.json in it; expected a folder as save_pretrained"
    ),
    Case("missing", "no weights", model(remove(WEIGHTS)), "model: no weights in it; expected model.safetensors or"),
    Case("missing", "no tokenizer", model(remove("tokenizer.json")), "model: no tokenizer in it (a trainer writes one if"),
    Case(
        "missing",
        "a shard of the index",
        model(remove("model-00002-of-00006.safetensors"), max_shard_size="30KB"),
        "1 of 6 shards missing, first model-00002",
    ),
    Case("missing", "a tensor", loaded(tensors(lambda held: held.pop(NORM))), f"1 tensors missing, first {NORM}; expected every"),
    Case("missing", "a file for a folder", model(more=("--stage", "x=model/config.json")), "model/config.json: is a file"),
    #
    Case("truncated", "weights", model(cut(WEIGHTS, 20_000)), "model.safetensors is 20,000 bytes long; expected"),
    Case("truncated", "the header of the weights", model(cut(WEIGHTS, 100)), "header cut at byte 92"),
    Case("truncated", "weights of no byte", model(cut(WEIGHTS, 0)), "no safetensors file (0 bytes long)"),
    Case("truncated", "config.json", model(cut("config.json", 50)), "config.json is not JSON"),
    Case("truncated", "tokenizer.json", model(cut("tokenizer.json", 500)), "tokenizer does not load"),
    Case("truncated", "the index", model(cut(INDEX, 50), max_shard_size="30KB"), f"{INDEX} is broken"),
    #
    Case("corrupt header", "a length beyond all files", model(header_bytes(b"{}", 2**62)), "first 8 bytes are no header length"),
    Case("corrupt header", "not JSON", model(header_bytes(b"\xff{]" * 50)), "model.safetensors is no safetensors file"),
    Case("corrupt header", "a list", model(header_bytes(b"[]")), "its header is not an object"),
    Case("corrupt header", "nested without end", model(header_bytes(b"[" * 200_000)), "no safetensors file (nested too deep)"),
    Case("corrupt header", "a tensor that is a number", model(header(lambda result: {"a": 1})), "its header is broken"),
    Case(
        "corrupt header",
        "places that are words",
        model(header(lambda result: {NORM: result[NORM] | {"data_offsets": "ab"}})),
        "no safetensors file",
    ),
    Case(
        "corrupt header",
        "more data than it says",
        model(header(lambda result: result.pop(NORM) and None)),
        "bytes long; expected",
    ),
    Case(
        "corrupt header",
        "bytes after the data",
        model(lambda f: write(WEIGHTS, (f / WEIGHTS).read_bytes() + b"x")(f)),
        "cut or added to",
    ),
    Case("corrupt header", "tensors that overlap", model(header(overlap)), "no safetensors file (tensor"),
    Case(
        "corrupt header",
        "an unknown dtype",
        model(header(lambda result: result[NORM].update(dtype="Q9"))),
        "its header is broken: KeyError('Q9')",
    ),
    Case(
        "corrupt header",
        "a shape that is not its bytes'",
        model(header(lambda result: result[NORM].update(shape=[7]))),
        "7 elements of F32 in 128 bytes",
    ),
    Case(
        "corrupt header",
        "an index that points outside",
        model(write(INDEX, '{"weight_map": {"a": "../b.safetensors"}}'), remove(WEIGHTS)),
        "points outside the folder",
    ),
    Case("corrupt header", "an index of nothing", model(write(INDEX, '{"weight_map": {}}'), remove(WEIGHTS)), "names no file"),
    #
    Case("bad config", "a list", model(write("config.json", "[]")), "names no model_type"),
    Case(
        "bad config",
        "nested without end",
        model(write("config.json", "[" * 200_000)),
        "config.json is not JSON (nested too deep)",
    ),
    Case("bad config", "an unknown model_type", model(edit("config.json", model_type="own")), "config.json of a own model"),
    Case(
        "bad config", "an encoder-decoder", model(write("config.json", '{"model_type": "t5"}')), "an encoder-decoder; expected a"
    ),
    Case("bad config", "model_type is a number", model(edit("config.json", model_type=3)), "config.json"),
    Case("bad config", "hidden_size is a word", model(edit("config.json", hidden_size="wide")), "config.json of a llama model"),
    Case("bad config", "no heads", loaded(edit("config.json", num_attention_heads=0)), "llama"),
    Case("bad config", "fewer blocks than none", model(edit("config.json", num_hidden_layers=-1)), "-1 blocks of width 32"),
    Case("bad config", "an unknown activation", loaded(edit("config.json", hidden_act="own")), "model: does not load as llama"),
    Case("bad config", "an unknown rope", loaded(edit("config.json", rope_parameters={"rope_type": "own"})), "llama"),
    Case(
        "bad config",
        "tokenizer_config.json is a list",
        model(write("tokenizer_config.json", "[]")),
        "tokenizer_config.json is no JSON object",
    ),
    #
    Case("not finite", "NaN in float32", model(poison(float("nan"))), f"1 of 32 weights of {NORM} are NaN or infinite"),
    Case("not finite", "NaN in float16", model(poison(float("nan"), "float16")), f"1 of 32 weights of {NORM} are NaN"),
    Case("not finite", "NaN in bfloat16", model(poison(float("nan"), "bfloat16")), f"1 of 32 weights of {NORM} are NaN"),
    Case("not finite", "-infinity", model(poison(-float("inf"))), f"1 of 32 weights of {NORM} are NaN or infinite"),
    Case(
        "not finite",
        "finite weights, infinite outputs",
        loaded(tensors(lambda held: [tensor.mul_(1e30) for name, tensor in held.items() if "layers.0.mlp" in name])),
        "is not finite in torch.float32",
        UNMEASURABLE,
    ),
    #
    Case("pickle", "weights", model(lambda f: (f / WEIGHTS).rename(f / "pytorch_model.bin")), "model: weights as pickle only"),
    Case(
        "pickle", "weights under a safetensors name", model(write(WEIGHTS, b"PK\x03\x04" + b"pickle" * 50)), "no safetensors file"
    ),
    Case(
        "pickle",
        "an adapter",
        adapter(lambda f: (f / "adapter_model.safetensors").rename(f / "adapter_model.bin")),
        "weights as pickle only",
    ),
    #
    Case(
        "wrong width",
        "hidden_size",
        model(edit("config.json", hidden_size=48, head_dim=8)),
        "tensors of another shape, first lm_head",
    ),
    Case(
        "wrong width",
        "intermediate_size",
        model(edit("config.json", intermediate_size=40)),
        "9 tensors of another shape",
    ),
    Case(
        "wrong width",
        "more blocks than weights",
        loaded(edit("config.json", num_hidden_layers=4)),
        "9 tensors missing, first model.layers.3",
    ),
    Case(
        "wrong width",
        "fewer blocks than weights",
        model(edit("config.json", num_hidden_layers=2)),
        "9 tensors (input_layernorm, down_proj, gate_proj, ...) have no place in a llama, first model.layers.2.input_layernorm",
    ),
    Case(
        "wrong width",
        "a smaller vocabulary in the config",
        model(edit("config.json", vocab_size=100)),
        "2 tensors of another shape, first lm_head.weight: [258, 32]; expected [100, 32] by config.json",
    ),
    Case(
        "wrong width", "post of another width", measured(only="truth.direction_similarity"), "layers x width differ", UNMEASURABLE
    ),
    #
    Case("foreign tokenizer", "an empty one", model(write("tokenizer.json", "{}")), "tokenizer does not load"),
    Case(
        "foreign tokenizer",
        "a kind that tokenizers does not know",
        model(edit("tokenizer.json", model={"type": "Own"})),
        "tokenizer does not load",
    ),
    Case("foreign tokenizer", "a slow one", model(slow_tokenizer), "tokenizer"),
    Case(
        "foreign tokenizer",
        "more tokens than the model has",
        loaded(vocab_size=100),
        "and its model has a vocabulary of 100; expected a tokenizer and a model that",
    ),
    Case(
        "foreign tokenizer", "other ids than base's", other_tokenizer, "token ids differ between base and post on", UNMEASURABLE
    ),
    #
    Case("bad adapter", "of another width", adapter(lambda f: write_adapter(f, tiny_model(hidden_size=48))), "does not fit"),
    Case("bad adapter", "cut", adapter(cut("adapter_model.safetensors", -10)), "adapter_model.safetensors is"),
    Case("bad adapter", "its config is not JSON", adapter(write("adapter_config.json", "{")), "adapter_config.json is not JSON"),
    Case(
        "bad adapter",
        "a config nested without end",
        adapter(write("adapter_config.json", "[" * 200_000)),
        "adapter_config.json is not JSON (nested too deep)",
    ),
    Case(
        "bad adapter",
        "its type is a list",
        adapter(edit("adapter_config.json", peft_type=["LORA"])),
        "adapter_config.json names no peft_type",
    ),
    Case("bad adapter", "an unknown type", adapter(edit("adapter_config.json", peft_type="OWN")), "does not fit"),
    Case("bad adapter", "a prompt, not weights", adapter(prompt_tuning), "an adapter of type PROMPT_TUNING; expected one that"),
    Case(
        "bad adapter",
        "for another task",
        adapter(edit("adapter_config.json", task_type="SEQ_CLS")),
        "for the task SEQ_CLS; expected",
    ),
    Case("bad adapter", "alone", adapter(spec="adapter"), "type BASE+adapter"),
    Case("bad adapter", "no such folder", adapter(spec="model+./none"), "./none: no such folder"),
    Case(
        "bad adapter",
        "NaN",
        adapter(tensors(lambda held: next(iter(held.values())).fill_(float("nan")), "adapter_model.safetensors")),
        "are NaN or infinite",
    ),
    #
    Case("bad data file", "no such statements", typed(*PAIR, "--mechdrift-statements", "none.csv"), "none.csv: not found"),
    Case("bad data file", "no such instructions", typed(*PAIR, "--mechdrift-harmful", "none.csv"), "none.csv: not found"),
    Case("bad data file", "an empty name", typed(*PAIR, "--mechdrift-harmless", ""), "check --mechdrift-harmless"),
    Case("bad data file", "no instruction", file("harmful", "own.csv", "goal,target\n"), "own.csv: no rows"),
    Case("bad data file", "too few instructions", file("harmful", "own.csv", "goal\nA.\nB.\n"), "split is empty"),
    Case("bad data file", "which column", file("harmless", "own.csv", "a,b\nA.,B.\n"), "type own.csv:COLUMN"),
    Case("bad data file", "no text", file("harmful", "own.jsonl", '{"goal": 1}\n'), "line 1: int in column goal"),
    Case("bad data file", "a NUL byte", file("harmful", "own.csv", b"goal\nA.\0\n"), "line 2: a NUL byte"),
    Case(
        "bad data file",
        "an open quote",
        file("harmful", "own.csv", 'goal\n"' + "A.\n" * 5000),
        "14,999 characters; expected a text of at most",
    ),
    Case(
        "bad data file",
        "one side only",
        file("harmless", "own.json", '[{"instruction": "Sum up.", "input": "A text.", "output": ""}]'),
        "none left (1 has an input)",
    ),
    Case("bad data file", "statements are a folder", typed(*PAIR, "--mechdrift-statements", "."), "a folder with 0 data files"),
    Case("bad data file", "no statement", file("statements", "own.csv", ""), "own.csv: no rows"),
    Case("bad data file", "no column of that name", file("statements", "own.csv", "text,label\nA.,1\n"), "line 2: no statement"),
    Case(
        "bad data file",
        "a label that is neither",
        file("statements", "own.csv", "statement,label\nA.,maybe\n"),
        "line 2: label 'maybe'",
    ),
    Case("bad data file", "one label only", file("statements", "own.csv", "statement,label\nA.,1\nB.,1\n"), "has one label only"),
    Case("bad data file", "not UTF-8", file("statements", "own.csv", b"statement,label\nCaf\xe9.,1\n"), "expected UTF-8 CSV"),
    Case(
        "bad data file",
        "more cells than columns",
        file("statements", "own.csv", "statement,label\nA.,1,2,3\nB.,0\n"),
        "line 2: more cells than columns",
    ),
    Case(
        "bad data file", "fewer cells than columns", file("statements", "own.csv", "statement,label\nA.\n"), "line 2: label None"
    ),
    Case(
        "bad data file",
        "a JSONL line nested without end",
        file("statements", "own.jsonl", "[" * 200_000),
        "own.jsonl, line 1: nested too deep",
    ),
    Case(
        "bad data file",
        "a JSONL statement that is a list",
        file("statements", "own.jsonl", '{"statement": [1], "label": 1}\n'),
        "line 1: list in column statement; expected text",
    ),
    Case("bad data file", "a name twice", file("statements", "own.csv", "statement,label,label\n"), "'label' stands twice"),
    Case("bad data file", "mostly empty", file("harmful", "own.csv", "goal,target\n,a\n,b\nA.,c\n"), "empty in 2 of 3 rows"),
    Case(
        "bad data file",
        "a label that may be either side",
        file("harmful", "own.csv", "prompt,label\nA.,0\nB.,1\n"),
        "type 'own.csv[label=0]' or 'own.csv[label=1]'",
    ),
    Case("bad data file", "half a gzip file", file("texts", "own.csv.gz", b"\x1f\x8b\x08\0"), "expected a whole gzip file"),
    Case("bad data file", "texts that are none", file("texts", "own.txt", "\n \n"), "own.txt: no text"),
    Case("bad data file", "a text with a NUL", file("texts", "own.txt", b"A.\nB\x00.\n"), "line 2: a NUL byte"),
    Case(
        "bad data file", "no such pairs", typed(*PAIR, "--mechdrift-pairs", "none.csv"), "none.csv: not found; expected FILE; CSV"
    ),
    Case("bad data file", "no pair", file("pairs", "own.csv", "clean,corrupt\n"), "pairs file own.csv: no rows"),
    Case(
        "bad data file",
        "a pair with a NUL",
        file("pairs", "own.csv", b"clean,corrupt\nA\x00.,B.\n"),
        "line 2: clean holds the character",
    ),
    Case(
        "bad data file", "half an answer", file("pairs", "own.csv", "clean,corrupt,correct,other\nA,B,c,\n"), "two different ans"
    ),
    Case("bad data file", "a profile that is not TOML", file("profile", "own.toml", "rows ="), "profile own.toml"),
    Case("bad data file", "a profile that is not UTF-8", file("profile", "own.toml", b"# \xe9\n[rows]\n"), "profile own.toml"),
    Case(
        "bad data file",
        "a profile's row is a number",
        file("profile", "own.toml", "[rows]\n'truth.clean_gap' = 1\n"),
        "profile own.toml",
    ),
    Case("bad data file", "a profile's rows are a list", file("profile", "own.toml", "rows = [1]\n"), "profile own.toml"),
    Case(
        "bad data file",
        "a profile with a finding that is none",
        file("profile", "own.toml", "[rows.'truht.clean_gap']\nrole = 'report'\n"),
        "no such finding; expected one of confidence.",
    ),
    Case(
        "bad data file",
        "a gate without a limit",
        file("profile", "own.toml", "[rows.'truth.clean_gap']\nrole = 'gate'\n"),
        "a gate without a limit",
    ),
    Case("bad data file", "a hand-set that is not TOML", file("hand-set", "own.toml", "truth_layer ="), "hand-set own.toml"),
    Case("bad data file", "a hand-set that is not UTF-8", file("hand-set", "own.toml", b"# \xe9\n"), "hand-set own.toml"),
    Case(
        "bad data file",
        "a hand-set with an unknown key",
        file("hand-set", "own.toml", "layer = 1\n"),
        "key 'layer'; expected only",
    ),
    Case(
        "bad data file",
        "a hand-set of lists in a list",
        file("hand-set", "own.toml", "steering_positions = [['period']]\n"),
        "steering_positions",
    ),
    Case(
        "bad data file",
        "a hand-set's block is not there",
        file("hand-set", "own.toml", "truth_layer = 99\n"),
        "block 99; expected 0 to 5",
    ),
    #
    Case(
        "bad option",
        "half a pair",
        typed("--base", "organism:base"),
        "--post is missing; expected both; type: pytest --base SPEC",
    ),
    Case("bad option", "the other half", typed("--post", "organism:base"), "mechdrift: --base is missing"),
    Case("bad option", "stages and no pair", typed("--stage", "sft=a"), "mechdrift: --base is missing; expected both"),
    Case("bad option", "a stage without a spec", typed(*PAIR, "--stage", "sft="), "'sft=': expected NAME=SPEC"),
    Case("bad option", "a stage without a name", typed(*PAIR, "--stage", "a/b"), "'a/b': expected NAME=SPEC, as in sft=runs/sft"),
    Case("bad option", "a space in a stage's name", typed(*PAIR, "--stage", "a b=c"), "'a b=c': expected NAME=SPEC"),
    Case(
        "bad option", "a stage called post", typed(*PAIR, "--stage", "post=c"), "post is given with --post; expected another name"
    ),
    Case(
        "bad option",
        "a stage twice",
        typed(*PAIR, "--stage", "x=c", "--mechdrift-stage", "x=d"),
        "--stage x is given twice; expected",
    ),
    Case("bad option", "a stage that is not there", typed(*PAIR, "--stage", "x=./none"), "mechdrift: ./none: no such folder"),
    Case("bad option", "an empty spec", typed("--base", "", "--post", "organism:base"), "mechdrift: --base is missing"),
    Case(
        "bad option",
        "a spec longer than a name may be",
        typed("--base", "x" * 300, "--post", "organism:base"),
        "File name too long",
    ),
    Case(
        "bad option",
        "a user that is not there",
        typed("--base", "~nobody-of-that-name/x", "--post", "organism:base"),
        "no such folder",
    ),
    Case("bad option", "device", typed(*PAIR, "--mechdrift-device", "tpu"), "expected auto, cpu, cuda, cuda:N, map or tp"),
    Case("bad option", "a GPU that is not there", typed(*PAIR, "--mechdrift-device", "cuda:99"), "GPUs here; expected one that"),
    Case("bad option", "dtype", typed(*PAIR, "--mechdrift-dtype", "int8"), "expected one of auto, float32"),
    Case("bad option", "generator", typed(*PAIR, "--mechdrift-generator", "hf"), "expected one of auto, transformers, vllm"),
    Case("bad option", "vLLM's arguments", typed(*PAIR, "--mechdrift-vllm-args", "tp=2"), "expected a JSON object, as in"),
    Case(
        "bad option",
        "vLLM's arguments that are ours",
        typed(*PAIR, "--mechdrift-vllm-args", '{"dtype": "half"}'),
        "--mechdrift-vllm-args: dtype; expected options that mechdrift does not set; leave them out",
    ),
    Case("bad option", "batch", typed(*PAIR, "--mechdrift-batch", "0"), "expected a positive number of tokens"),
    Case(
        "bad option", "a batch that only looks like a number", typed(*PAIR, "--mechdrift-batch", "\u00b2"), "expected a positive"
    ),
    Case("bad option", "seed", typed(*PAIR, "--mechdrift-seed", "-1"), "expected 0 or a positive whole number"),
    Case("bad option", "profile", typed(*PAIR, "--mechdrift-profile", "x"), "profile 'x': unknown; expected one of base-to-post"),
    Case("bad option", "hand-set", typed(*PAIR, "--mechdrift-hand-set", "x"), "hand-set 'x': unknown; expected one of"),
    Case("bad option", "only", typed(*PAIR, "--mechdrift-only", "truht"), "'truht': no such finding; expected one of confidence"),
    #
    Case("hub refuses", "no such model", hub(as_it_is, "org/none"), "no org/none on the hub that is public; expected"),
    Case("hub refuses", "no such revision", hub(as_it_is, "org/model@v9"), "org/model has no revision v9; expected a branch"),
    Case("hub refuses", "a name that it does not allow", hub(as_it_is, "org/a--b"), "no name that the hub allows"),
    Case("hub refuses", "gated, no token", hub(gated), "org/model: gated, and there is no token here; expected access"),
    Case(
        "hub refuses",
        "gated, another's token",
        hub(gated),
        "gated, and your token has no access to it",
        environment={"HF_TOKEN": "hf_other"},
    ),
    Case(
        "hub refuses",
        "a bad token",
        hub(as_it_is),
        "the hub refuses the token; expected a valid one",
        environment={"HF_TOKEN": "hf_bad"},
    ),
    Case("hub refuses", "pickle only", hub(pickled), "no safetensors in org/model at"),
    Case(
        "hub refuses",
        "no connection wanted, no cache",
        hub(as_it_is),
        "HF_HUB_OFFLINE is set, and",
        environment={"HF_HUB_OFFLINE": "1"},
    ),
    Case("hub refuses", "no answer", hub(as_it_is), "did not give it (", environment={"HF_ENDPOINT": "http://127.0.0.1:9"}),
    #
    Case(
        "GGUF",
        "no such file",
        typed("--base", "none.gguf", "--post", "organism:base"),
        "none.gguf: no such file; expected a GGUF",
    ),
    Case("GGUF", "another format", gguf(write("model.gguf", b"PK\x03\x04")), "model.gguf: begins with b'PK"),
    Case("GGUF", "cut in its data", gguf(cut("model.gguf", -5000)), "bytes long and cut or broken"),
    Case("GGUF", "cut in its header", gguf(cut("model.gguf", 100)), "bytes long and cut or broken"),
    Case("GGUF", "cut after its magic", gguf(cut("model.gguf", 4)), "bytes long and cut or broken"),
    Case("GGUF", "noise", gguf(write("model.gguf", b"GGUF\x03\0\0\0" + b"\xff" * 5000)), "bytes long and cut or broken"),
    #
    Case("trainer's folder", "FSDP shards", model(fsdp), "FSDP shards, not merged; expected model.safetensors; run: accelerate"),
    Case(
        "trainer's folder",
        "ZeRO shards",
        model(zero),
        "DeepSpeed ZeRO shards, not merged; expected model.safetensors; run: python",
    ),
    Case("trainer's folder", "no model of its own", model(trainer_root), "type model/checkpoint-1000, which is the latest"),
    #
    Case(
        "own code",
        "in the config",
        model(edit("config.json", model_type="own", auto_map={"AutoModelForCausalLM": "m.M"})),
        "asks for code of its own",
    ),
    Case(
        "own code",
        "in the tokenizer",
        model(edit("tokenizer_config.json", tokenizer_class="OwnTokenizer", auto_map={"AutoTokenizer": "t.T"})),
        "tokenizer does not load",
    ),
    Case("own code", "auto_map is a number", model(edit("config.json", auto_map=1)), "config.json: auto_map is 1"),
    Case(
        "own code",
        "weights elsewhere",
        model(edit("config.json", transformers_weights="b.safetensors")),
        "names weights of its own",
    ),
    #
    Case(
        "quantised",
        "an unknown method",
        model(edit("config.json", quantization_config={"quant_method": "own"})),
        "quantised by own, which transformers does not know",
    ),
    Case(
        "quantised",
        "for CUDA only",
        model(edit("config.json", quantization_config={"quant_method": "fbgemm_fp8"}), more=("--mechdrift-device", "cpu")),
        "quantised by fbgemm_fp8, which runs on CUDA only",
    ),
    #
    Case(
        "odd family",
        "one that has no stream",
        loaded(family="bert", is_decoder=True),
        "no final norm: nothing takes the last block's output",
        UNMEASURABLE,
    ),
    Case(
        "odd family",
        "a model that knows nothing",
        measured(base="model", post="organism:base"),
        "base's TRUE/FALSE judgement",
        UNMEASURABLE,
    ),
    #
    Case(
        "place",
        "a record in no folder",
        typed(*PAIR, "--mechdrift-record", "none/r.json"),
        "expected a file in a folder that exists",
    ),
    Case(
        "place",
        "a record that is a device",
        typed(*PAIR, "--mechdrift-record", os.devnull),
        "expected a file in a folder that exists",
    ),
    Case(
        "place", "a record that is a folder", typed(*PAIR, "--mechdrift-record", "."), "expected a file in a folder that exists"
    ),
    Case(
        "place",
        "a record that cannot be written",
        measured("--mechdrift-record", "r" * 248 + ".json"),
        "not written: File name too long",
    ),
    Case(
        "place",
        "a cache that is a file",
        cache_is_a_file,
        "cannot be written (Not a directory); what is recorded now is not kept",
        UNMEASURABLE,
    ),
)
