"""Tokenizers, chat templates, end tokens and claimed sizes that are broken or odd."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from broken import adapter, edit, measured, model, remove, template, write
from stand_in import StandIn

from cases.case import UNMEASURABLE, Case
from mechdrift.checkpoints.resolve import resolve

GENERATION = "generation_config.json"
REFUSAL = ("--mechdrift-only", "refusal.harmful")
Change = Callable[[Path], None]
Make = Callable[[Path, StandIn], tuple[str, ...]]

TURNS = "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}<|assistant|>"
NEEDS_SYSTEM = "{% if messages[0]['role'] != 'system' %}{{ raise_exception('a system turn is needed') }}{% endif %}" + TURNS
WANTS_IMAGES = "{{ raise_exception('an image is needed') }}"
PARTS = TURNS.replace("{{ m['content'] }}", "{% for part in m['content'] %}{{ part['text'] }}{% endfor %}")
ENDLESS = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"


def ends(written: Any) -> Make:
    """A generation config with this end token."""
    return model(write(GENERATION, json.dumps({"eos_token_id": written})))


def asked_to_refuse(*changes: Change) -> Make:
    """A checkpoint of which only a row is asked that needs its chat template."""
    return model(*changes, more=REFUSAL)


def organism(*changes: Change, base: str = "organism:base") -> Make:
    """A copy of a shipped model, changed, and a row that needs no chat template."""

    def make(folder: Path, _hub: StandIn) -> tuple[str, ...]:
        shutil.copytree(resolve("organism:instruct").folder, folder / "post", ignore=shutil.ignore_patterns("log-*"))
        for change in changes:
            change(folder / "post")
        return ("--base", base, "--post", "post", "--mechdrift-tier", "smoke", "--mechdrift-only", "truth.clean_gap")

    return make


def framed(change: Change, base: Change = lambda folder: None) -> Make:
    """Two models whose tokenizers differ in nothing but what they put around a text."""

    def make(folder: Path, hub: StandIn) -> tuple[str, ...]:
        arguments = measured()(folder, hub)
        shutil.copytree(resolve("organism:base").folder, folder / "base", ignore=shutil.ignore_patterns("log-*"))
        base(folder / "base")
        change(folder / "model")
        return ("--base", "base", *arguments[2:])

    return make


def tokenizer(**parts: Any) -> Change:
    """Parts of tokenizer.json, as its own format has them; None is written as null."""

    def change(folder: Path) -> None:
        path = folder / "tokenizer.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | parts))

    return change


def around(before: str = "", after: str = "") -> Change:
    """A tokenizer that puts these special tokens around every text."""
    names = {"<bos>": 0, "<eos>": 1, "<pad>": 2}
    first, last = ([{"SpecialToken": {"id": name, "type_id": 0}}] if name else [] for name in (before, after))
    texts = (
        [{"Sequence": {"id": "A", "type_id": 0}}],
        [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
    )
    single, pair = ([*first, *text, *last] for text in texts)
    special = {name: {"id": name, "ids": [number], "tokens": [name]} for name, number in names.items() if name in (before, after)}
    return tokenizer(post_processor={"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": special})


def with_space(folder: Path) -> None:
    """A tokenizer that puts a space before every text, as add_prefix_space does."""
    tokenizer(normalizer={"type": "Prepend", "prepend": " "})(folder)


def replaced(pattern: dict[str, str], content: str, times: int = 1) -> dict[str, Any]:
    """A normalizer, or a decoder, that replaces again and again."""
    step = {"type": "Replace", "pattern": pattern, "content": content}
    return step if times == 1 else {"type": "Sequence", "normalizers": [step] * times, "decoders": [step] * times}


def deep(depth: int) -> dict[str, Any]:
    """Sequences in sequences."""
    inner: dict[str, Any] = {"type": "NFC"}
    for _ in range(depth):
        inner = {"type": "Sequence", "normalizers": [inner]}
    return inner


def bos_of_another_id(folder: Path) -> None:
    """Puts `<eos>` where the other puts `<bos>`."""
    around(before="<eos>")(folder)


BYTES = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
MILD_DECODER = {"type": "Sequence", "decoders": [BYTES, replaced({"String": "e"}, "e" * 10**5)]}
POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 119\n"

END_TOKENS = (
    Case("bad end token", "none in a list", ends([]), "generation_config.json: eos_token_id is empty; expected ids of tokens, 0"),
    Case("bad end token", "below 0", ends(-1), "eos_token_id holds -1, which is below 0"),
    Case("bad end token", "one of several below 0", ends([1, -100]), "eos_token_id holds -100, which is below 0"),
    Case("bad end token", "beyond the vocabulary", ends(258), "eos_token_id holds 258, and the vocabulary has 258 tokens"),
    Case("bad end token", "far beyond it", ends([10**30]), "eos_token_id holds 1000"),
    Case("bad end token", "true", ends(True), "eos_token_id holds 'True', no whole number"),
    Case("bad end token", "a word", ends("<eos>"), "eos_token_id holds '<eos>', no whole number"),
    Case("bad end token", "a float", ends([1.0]), "eos_token_id holds '1.0', no whole number"),
    Case("bad end token", "a list in a list", ends([[1, 2]]), "eos_token_id holds '[1, 2]', no whole number"),
    Case("bad end token", "an object", ends({"id": 1}), "eos_token_id holds \"{'id': 1}\", no whole number"),
    Case(
        "bad end token",
        "below 0 in config.json",
        model(edit("config.json", eos_token_id=-1), remove(GENERATION)),
        "config.json: eos_token_id holds -1, which is below 0",
    ),
    Case(
        "bad end token", "none in config.json", model(edit("config.json", eos_token_id=[])), "config.json: eos_token_id is empty"
    ),
    Case("bad generation config", "cut", model(write(GENERATION, '{"eos_token_id": ')), "generation_config.json is not JSON"),
    Case("bad generation config", "of no byte", model(write(GENERATION, "")), "generation_config.json is not JSON"),
    Case("bad generation config", "a list", model(write(GENERATION, "[1]")), "generation_config.json is no JSON object"),
    Case("bad generation config", "null", model(write(GENERATION, "null")), "generation_config.json is no JSON object"),
    Case("bad generation config", "not UTF-8", model(write(GENERATION, b"\xff\xfe{}")), "generation_config.json is not JSON"),
    Case("bad generation config", "a pointer of Git LFS", model(write(GENERATION, POINTER)), "generation_config.json"),
)

CLAIMS = (
    Case(
        "claimed size",
        "100,000 blocks",
        model(edit("config.json", num_hidden_layers=100_000)),
        "config.json claims num_hidden_layers 100,000, and the weight files have 30 tensors",
    ),
    Case("claimed size", "10^9 blocks", model(edit("config.json", num_hidden_layers=10**9), family="qwen3"), "1,000,000,000"),
    Case("claimed size", "a float of blocks", model(edit("config.json", num_hidden_layers=1e12)), "claims num_hidden_layers"),
    Case("claimed size", "10^300 blocks", model(edit("config.json", num_hidden_layers=10**300)), "of more than 10^15"),
    Case("claimed size", "GPT-2's blocks", model(edit("config.json", n_layer=10**8), family="gpt2"), "claims n_layer 100,"),
    Case("claimed size", "a width of 10^9", model(edit("config.json", hidden_size=10**9)), "no side longer than 258"),
    Case("claimed size", "a vocabulary", model(edit("config.json", vocab_size=10**10)), "claims vocab_size 10,000,000,000"),
    Case("claimed size", "heads", model(edit("config.json", num_attention_heads=10**8)), "claims num_attention_heads"),
    Case("claimed size", "an MLP", model(edit("config.json", intermediate_size=10**9)), "claims intermediate_size"),
    Case(
        "claimed size",
        "experts",
        model(edit("config.json", num_experts=10**9), family="qwen3_moe"),
        "claims num_experts 1,0",
    ),
    Case(
        "claimed size",
        "an adapter's rank",
        adapter(edit("adapter_config.json", r=10**9)),
        "adapter_config.json claims rank 1,000,000,000, and its matrices have no side longer than",
    ),
    Case(
        "claimed size",
        "in a section",
        model(edit("config.json", model_type="gemma3", text_config={"num_hidden_layers": 10**9})),
        "claims text_config.num_hidden_layers 1,000,000,000",
    ),
)

TEMPLATES = (
    Case(
        "bad template",
        "its grammar",
        asked_to_refuse(template("{% for message in %}")),
        "chat template does not render (TemplateSyntaxError",
        UNMEASURABLE,
    ),
    Case("bad template", "no end", asked_to_refuse(template(ENDLESS)), "chat template takes longer than", UNMEASURABLE),
    Case(
        "bad template", "too long", asked_to_refuse(template("x" * 200_001)), "chat template of 200,001 characters", UNMEASURABLE
    ),
    Case(
        "bad template",
        "it raises",
        asked_to_refuse(template("{{ raise_exception('no') }}")),
        "chat template does not render (TemplateError: no)",
        UNMEASURABLE,
    ),
    Case(
        "bad template",
        "it leaves the user out",
        asked_to_refuse(template("hello")),
        "chat template leaves out what the user says",
        UNMEASURABLE,
    ),
    Case(
        "bad template",
        "it asks for all memory",
        asked_to_refuse(template("{{ 'x' * 10 ** 11 }}")),
        "chat template does not render (MemoryError",
        UNMEASURABLE,
    ),
    Case(
        "bad template",
        "it is a number",
        asked_to_refuse(edit("tokenizer_config.json", chat_template=3)),
        "chat template is no text but int",
        UNMEASURABLE,
    ),
    Case(
        "bad template",
        "it needs more than text",
        asked_to_refuse(template(WANTS_IMAGES)),
        "does not render (TemplateError: an image is needed)",
        UNMEASURABLE,
    ),
    Case(
        "odd template",
        "rows that need none are measured",
        organism(template("{{ bos_token }}" + WANTS_IMAGES)),
        "post: chat template does not render (TemplateError: an image is needed): rows of refusal are unmeasurable",
        0,
        may_hold=True,
        slow=True,
    ),
    Case(
        "odd template",
        "it needs a system turn",
        organism(template("{{ bos_token }}" + NEEDS_SYSTEM)),
        "post: the chat template is given the system turn 'You are a helpful assistant.'",
        0,
        may_hold=True,
        slow=True,
    ),
    Case(
        "odd template",
        "content in parts",
        organism(template("{{ bos_token }}" + PARTS)),
        "post: the chat template is given content as a list of parts",
        0,
        may_hold=True,
        slow=True,
    ),
    Case(
        "odd template",
        "named ones and no default",
        organism(
            remove("chat_template.jinja"),
            edit("tokenizer_config.json", chat_template=[{"name": name, "template": TURNS} for name in ("tool_use", "rag")]),
        ),
        "post has the named chat templates rag and tool_use and none called default: plain form",
        0,
        may_hold=True,
    ),
    Case(
        "odd template",
        "one named file and no default",
        organism(remove("chat_template.jinja"), lambda folder: _additional(folder, "rag")),
        "post has the named chat template rag and none called default: plain form",
        0,
        may_hold=True,
        slow=True,
    ),
)


def _additional(folder: Path, name: str) -> None:
    """A template beside the usual one, where save_pretrained puts those that have a name."""
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / f"{name}.jinja").write_text(TURNS)


BOMBS = (
    Case(
        "tokenizer that explodes",
        "normalizers, each ten times",
        model(tokenizer(normalizer=replaced({"String": "e"}, "e" * 10, 9))),
        "tokenizer makes 1,000 characters of the 1 of 'e': longer than any text can be",
    ),
    Case(
        "tokenizer that explodes",
        "all in one normalizer",
        model(tokenizer(normalizer=replaced({"Regex": "[aeiou]"}, "x" * 10**6))),
        "longer than any text can be",
    ),
    Case(
        "tokenizer that explodes",
        "sequences in a sequence",
        model(tokenizer(normalizer={"type": "Sequence", "normalizers": [replaced({"String": " "}, "  ", 2)] * 20})),
        "of ' ': longer than any text can be",
    ),
    Case(
        "tokenizer that explodes",
        "nested without end",
        model(tokenizer(normalizer=deep(200))),
        "tokenizer does not load (recursion limit exceeded",
    ),
    Case(
        "tokenizer that explodes",
        "an expression that tries all ways",
        model(tokenizer(normalizer=replaced({"Regex": "^(a|aa)+!"}, "x"))),
        "tokenizer fails (PanicException: Onig",
    ),
    Case(
        "tokenizer that explodes",
        "special tokens around a text",
        model(lambda folder: _many_specials(folder, 10**5)),
        "makes 100,000 tokens of the 0 characters of ''",
    ),
    Case(
        "tokenizer that explodes",
        "decoders",
        model(tokenizer(decoder=MILD_DECODER)),
        "of 64 tokens: longer than any text can be",
    ),
    Case(
        "tokenizer that explodes",
        "decoders without end",
        model(tokenizer(decoder=replaced({"String": "e"}, "e" * 10, 9))),
        "tokenizer takes longer than",
    ),
    Case(
        "tokenizer that explodes",
        "nothing is left",
        model(tokenizer(normalizer=replaced({"Regex": r"[\s\S]"}, ""))),
        "tokenizer makes no token of",
    ),
)


def _many_specials(folder: Path, count: int) -> None:
    around(before="<bos>")(folder)
    path = folder / "tokenizer.json"
    written = json.loads(path.read_text())
    for side in ("single", "pair"):
        written["post_processor"][side] = written["post_processor"][side][:1] * count + written["post_processor"][side][1:]
    path.write_text(json.dumps(written))


FRAMES = (
    Case(
        "other frame of a text",
        "no BOS",
        framed(tokenizer(post_processor=None)),
        "base puts `<bos>` before a text, post does not, on",
        UNMEASURABLE,
    ),
    Case(
        "other frame of a text",
        "a BOS more",
        framed(around(before="<bos>"), tokenizer(post_processor=None)),
        "post puts `<bos>` before a text, base does not, on",
        UNMEASURABLE,
    ),
    Case(
        "other frame of a text",
        "an EOS",
        framed(around("<bos>", "<eos>")),
        "post puts `<eos>` after a text, base does not, on",
        UNMEASURABLE,
    ),
    Case(
        "other frame of a text",
        "another BOS",
        framed(bos_of_another_id),
        "base puts `<bos>` before a text, post `<eos>`, on",
        UNMEASURABLE,
    ),
    Case(
        "other frame of a text",
        "no BOS, and an EOS",
        framed(around(after="<eos>")),
        "base puts `<bos>` before a text, post does not; post puts `<eos>` after a text, base does not, on",
        UNMEASURABLE,
    ),
    Case(
        "other frame of a text",
        "a space before it",
        framed(with_space),
        "post puts a space before a text, base does not, on",
        UNMEASURABLE,
    ),
)

CASES = (*END_TOKENS, *CLAIMS, *TEMPLATES, *BOMBS, *FRAMES)
