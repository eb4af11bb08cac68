"""Chat forms against transformers' own rendering and encoding; the read-out positions against the text; and odd templates."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mechdrift.checkpoints.chat import NO_TEMPLATE
from mechdrift.checkpoints.resolve import Checkpoint, resolve
from mechdrift.checkpoints.template_choice import TemplateChoice
from mechdrift.checkpoints.tokenizer import load_tokenizer
from mechdrift.errors import Unmeasurable
from mechdrift.prompts.chat_forms import ChatPrompts, chat_prompts, matched_prompts
from mechdrift.prompts.framing import Framing, framing
from mechdrift.prompts.instructions import shipped_instructions
from mechdrift.prompts.thoughts import shipped_markers

QUESTIONS = [one.text for one in shipped_instructions()][:12]
TURNS = "{% for m in messages %}<{{ m.role }}>{{ m.content | trim }}<end>{% endfor %}{% if add_generation_prompt %}<a>{% endif %}"
WITH_BOS = "{{ bos_token }}" + TURNS
Known = tuple[Checkpoint, Any]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Callable[..., Path]) -> Callable[..., Known]:
    """A tiny checkpoint whose tokenizer prepends a BOS, with a chat template or none."""

    def make(template: str | None = None, **overrides: Any) -> Known:
        folder = Path(shutil.copytree(tiny_checkpoint(**overrides), tmp_path_factory.mktemp("chat") / "model"))
        if template is not None:
            (folder / "chat_template.jinja").write_text(template)
        return known(str(folder))

    return make


def known(spec: str) -> Known:
    """A checkpoint and its tokenizer."""
    checkpoint = resolve(spec)
    return checkpoint, load_tokenizer(checkpoint)


def ends_as_text(tokenizer: Any, prompts: ChatPrompts) -> set[str]:
    """What the end-of-instruction tokens say, prompt by prompt."""
    return {tokenizer.decode([row[i] for i in ends]) for row, ends in zip(prompts.ids, prompts.ends, strict=True)}


@pytest.mark.parametrize("spec", ["organism:instruct", "organism:llama-instruct"])
def test_native_is_what_transformers_encodes(spec: str) -> None:
    checkpoint, tokenizer = known(spec)
    prompts = chat_prompts(checkpoint, tokenizer, QUESTIONS)
    turns = [[{"role": "user", "content": text}] for text in QUESTIONS]
    assert prompts.ids == tokenizer.apply_chat_template(turns, add_generation_prompt=True)["input_ids"]
    assert (prompts.form, prompts.note, prompts.tail, prompts.thinking) == ("native", "", "<|end|><|assistant|>", False)
    assert ends_as_text(tokenizer, prompts) == {"<|end|><|assistant|>"}
    assert {len(ends) for ends in prompts.ends} == {2}


@pytest.mark.parametrize("spec", ["organism:base", "organism:instruct"])
def test_plain_is_what_the_tokenizer_itself_encodes(spec: str) -> None:
    checkpoint, tokenizer = known(spec)
    prompts = chat_prompts(checkpoint, tokenizer, QUESTIONS, "plain")
    assert prompts.ids == tokenizer([f"User: {text}\nAssistant:" for text in QUESTIONS])["input_ids"]
    assert ends_as_text(tokenizer, prompts) == {"\nAssistant:"}
    assert (prompts.form, prompts.note) == ("plain", "")


def test_without_a_template_native_is_plain_and_says_so() -> None:
    checkpoint, tokenizer = known("organism:base")
    native, plain = (chat_prompts(checkpoint, tokenizer, QUESTIONS, form) for form in ("native", "plain"))
    assert native.note == NO_TEMPLATE
    assert (native.ids, native.ends, native.form) == (plain.ids, plain.ends, "plain")


@pytest.mark.parametrize("template", [WITH_BOS, TURNS, None], ids=["writes the BOS", "leaves it to the tokenizer", "no template"])
def test_there_is_one_bos(made: Callable[..., Known], template: str | None) -> None:
    checkpoint, tokenizer = made(template)
    prompts = chat_prompts(checkpoint, tokenizer, QUESTIONS)
    for text, ids in zip(QUESTIONS, prompts.ids, strict=True):
        shown = f"User: {text}\nAssistant:" if template is None else f"<user>{text}<end><a>"
        assert ids == tokenizer(shown)["input_ids"]
        assert ids.count(tokenizer.bos_token_id) == 1


def test_a_tokenizer_that_adds_no_bos_is_given_none(made: Callable[..., Known]) -> None:
    from tokenizers.processors import ByteLevel

    checkpoint, tokenizer = made(TURNS)
    tokenizer.backend_tokenizer.post_processor = ByteLevel()
    assert framing(tokenizer) == Framing((), ())
    assert all(tokenizer.bos_token_id not in row for row in chat_prompts(checkpoint, tokenizer, QUESTIONS).ids)


def test_a_token_that_reaches_over_the_instructions_end_is_no_end_token(made: Callable[..., Known]) -> None:
    r"""As `.\n` is one token in Llama 3: then only the tokens after it are read, in all prompts the same."""
    checkpoint, tokenizer = made()
    tokenizer.add_tokens([".\nA"])
    mixed = chat_prompts(checkpoint, tokenizer, ["Say it.", "Say it now"], "plain")
    assert ends_as_text(tokenizer, mixed) == {"ssistant:"}
    assert ends_as_text(tokenizer, chat_prompts(checkpoint, tokenizer, ["Say it", "Now"], "plain")) == {"\nAssistant:"}


def test_the_ends_are_the_last_tokens_of_every_prompt() -> None:
    checkpoint, tokenizer = known("organism:instruct")
    for form in ("native", "plain"):
        prompts = chat_prompts(checkpoint, tokenizer, QUESTIONS, form)
        for ids, ends in zip(prompts.ids, prompts.ends, strict=True):
            assert ends == list(range(len(ids) - len(ends), len(ids)))
        for column in range(len(prompts.ends[0])):
            assert len({ids[ends[column]] for ids, ends in zip(prompts.ids, prompts.ends, strict=True)}) == 1


def test_matched_is_one_form_for_both(made: Callable[..., Known]) -> None:
    base, instruct = known("organism:base"), known("organism:instruct")
    matched = matched_prompts(base, instruct, QUESTIONS)
    assert matched.form == "plain"
    assert matched.note == f"organism:base: {NO_TEMPLATE}"
    assert matched.ids == chat_prompts(*base, QUESTIONS, "plain").ids == chat_prompts(*instruct, QUESTIONS, "plain").ids
    same = matched_prompts(instruct, known("organism:sft"), QUESTIONS)
    assert same == chat_prompts(*instruct, QUESTIONS, "native")
    other = matched_prompts(made(WITH_BOS), made(WITH_BOS.replace("<a>", "<b>")), QUESTIONS)
    assert (other.form, other.note) == ("plain", "the chat templates differ: plain form")


def test_models_that_read_other_tokens_have_no_matched_form(made: Callable[..., Known]) -> None:
    with pytest.raises(Unmeasurable, match="read 12 of 12 instructions in other tokens, even in the plain form"):
        matched_prompts(known("organism:base"), made(), QUESTIONS)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (WITH_BOS + "{{ messages[-1].content }}", "holds what the user says 2 times"),
        ("{{ bos_token }}Hello.<a>", "leaves out what the user says"),
        (TURNS.replace("trim", "replace('e', '3')"), "changes the instruction '"),
        (TURNS.replace("trim", "upper"), "leaves out what the user says"),
        ("{{ range(99999) | random }}{{ range(99999) | random }}" + TURNS, "gives another text around every instruction"),
        ("{{ messages[0].content | length }}" + TURNS, "gives another text around every instruction"),
        (
            TURNS + "{% if messages[0].content | length > 9 %}{{ raise_exception('too long') }}{% endif %}",
            "TemplateError: too long",
        ),
        ("<user>{{ messages[0].content }}", "no token of the native form comes after the instruction"),
    ],
)
def test_odd_templates_are_unmeasurable_with_one_reason(made: Callable[..., Known], template: str, message: str) -> None:
    checkpoint, tokenizer = made(template)
    with pytest.raises(Unmeasurable, match=message) as caught:
        chat_prompts(checkpoint, tokenizer, QUESTIONS)
    assert str(caught.value).startswith(checkpoint.spec)
    assert "\n" not in str(caught.value)


def test_a_date_is_the_same_in_every_run(made: Callable[..., Known]) -> None:
    checkpoint, tokenizer = made("{{ strftime_now('%d %b %Y %H:%M:%S') }}: " + TURNS)
    prompts = chat_prompts(checkpoint, tokenizer, QUESTIONS)
    assert tokenizer.decode(prompts.ids[0][1:21]) == "26 Jul 2024 00:00:00"


def test_words_of_the_template_may_be_an_instruction(made: Callable[..., Known]) -> None:
    checkpoint, tokenizer = made("{{ bos_token }}You help a user.\n" + TURNS)
    prompts = chat_prompts(checkpoint, tokenizer, ["user", "help a user.", "end"])
    assert ends_as_text(tokenizer, prompts) == {"<end><a>"}


def test_a_prompt_has_to_fit_with_its_reply(made: Callable[..., Known]) -> None:
    checkpoint, tokenizer = made(max_position_embeddings=64)
    text = "x" * (64 - 1 - len("User: \nAssistant:"))
    assert len(chat_prompts(checkpoint, tokenizer, [text]).ids[0]) == 64
    with pytest.raises(Unmeasurable, match=r"a prompt of 64 tokens and 1 of the reply, and its context has 64: take long"):
        chat_prompts(checkpoint, tokenizer, ["short", text], reply_tokens=1)
    with pytest.raises(Unmeasurable, match=r"a prompt of 65 tokens, and its context has 64"):
        chat_prompts(checkpoint, tokenizer, [text + "x"])


@pytest.mark.parametrize(
    ("tail", "thinking"), [("<a><think>\n", True), ("<a><think>\n\n</think>\n\n", False), ("<a>[THINK]", True)]
)
def test_a_prompt_may_open_a_think_block(made: Callable[..., Known], tail: str, thinking: bool) -> None:
    checkpoint, tokenizer = made(TURNS.replace("<a>", tail))
    assert chat_prompts(checkpoint, tokenizer, QUESTIONS).thinking is thinking


OPENED = TURNS.replace("<a>", "<a><think>\n")
QWEN = TURNS.replace(
    "<a>", "<a>{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}"
)
DEEPSEEK = "{% if not thinking is defined %}{% set thinking = true %}{% endif %}" + TURNS.replace(
    "<a>", "<a>{% if thinking %}<think>{% else %}</think>{% endif %}"
)
GLM = TURNS.replace("<end>", "{{ '/nothink' if enable_thinking is defined and not enable_thinking }}<end>").replace(
    "<a>", "<a>{{ '<think></think>' if enable_thinking is defined and not enable_thinking }}"
)
PICKY = "{% if thinking is defined %}{{ raise_exception('a level') }}{% endif %}" + OPENED
HARMONY = "Reasoning: {{ reasoning_effort | default('medium') }}." + TURNS
SYSTEM_SWITCH = "{{ '/no_think' if enable_thinking is defined and not enable_thinking else '/think' }}" + TURNS
OF_OTHER_PLACES = "{% if enable_thinking is defined %}No thoughts.{% endif %}" + OPENED


@pytest.mark.parametrize(
    ("template", "variables", "tail", "note"),
    [
        (
            QWEN,
            {"enable_thinking": False},
            "<end><a><think>\n\n</think>\n\n",
            "thinking is off by the template's enable_thinking = false",
        ),
        (DEEPSEEK, {"thinking": False}, "<end><a></think>", "thinking is off by the template's thinking = false"),
        (
            GLM,
            {"enable_thinking": False},
            "/nothink<end><a><think></think>",
            "thinking is off by the template's enable_thinking = false",
        ),
        (OPENED, {}, "<end><a><think>\n", "a thought of no words stands before the reply: </think>"),
        (PICKY, {}, "<end><a><think>\n", "a thought of no words stands before the reply: </think>"),
        (OF_OTHER_PLACES, {}, "<end><a><think>\n", "a thought of no words stands before the reply: </think>"),
        (DEEPSEEK.replace("true", "false"), {}, "<end><a></think>", "the template closes the think block itself"),
        (SYSTEM_SWITCH, {"enable_thinking": False}, "<end><a>", "thinking is off by the template's enable_thinking = false"),
    ],
    ids=[
        *("Qwen3", "DeepSeek V3.1", "GLM 4.5", "DeepSeek R1", "other values", "not at the reply", "closed as it is"),
        "in the system turn",
    ],
)
def test_thinking_is_off_by_the_templates_switch_or_else_its_block_is_closed_by_hand(
    made: Callable[..., Known], template: str, variables: dict[str, Any], tail: str, note: str
) -> None:
    checkpoint, tokenizer = made(template)
    closed = chat_prompts(checkpoint, tokenizer, QUESTIONS, closed=shipped_markers().blocks[0])
    turns = [[{"role": "user", "content": text}] for text in QUESTIONS]
    texts = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True, **variables)
    assert all(text.endswith(tail) for text in texts)
    more = "\n</think>\n\n" if "no words" in note else ""
    assert closed.ids == tokenizer([text + more for text in texts])["input_ids"]
    assert (closed.tail, closed.thinking, closed.form) == (tail + more, False, "native")
    assert closed.note.startswith(note)
    assert ends_as_text(tokenizer, closed) == {tail + more}


@pytest.mark.parametrize(("template", "number"), [(TURNS, 0), (HARMONY, 4)], ids=["a think block", "harmony"])
def test_a_model_that_begins_to_think_by_itself_is_shown_a_thought_of_no_words(
    made: Callable[..., Known], template: str, number: int
) -> None:
    checkpoint, tokenizer = made(template)
    block = shipped_markers().blocks[number]
    closed = chat_prompts(checkpoint, tokenizer, QUESTIONS, closed=block)
    assert closed.tail == f"<end><a>{block.empty}"
    assert closed.note == f"a thought of no words stands before the reply: {' '.join(block.empty.split())}"
    assert chat_prompts(checkpoint, tokenizer, QUESTIONS).tail == "<end><a>"
    assert not closed.thinking


def test_a_prompt_may_open_a_thought_that_its_tokenizer_declares(made: Callable[..., Known]) -> None:
    checkpoint, tokenizer = made(TURNS.replace("<a>", "<a><<m>>"))
    assert not chat_prompts(checkpoint, tokenizer, QUESTIONS).thinking
    tokenizer.response_template = {"fields": {"thinking": {"open": "<<m>>", "close": "<</m>>"}}}
    prompts = chat_prompts(checkpoint, tokenizer, QUESTIONS)
    assert prompts.thinking
    closed = chat_prompts(checkpoint, tokenizer, QUESTIONS, closed=prompts.block)
    assert closed.tail == "<end><a><<m>><</m>>"
    assert not closed.thinking


def test_what_cannot_be_closed_is_said(made: Callable[..., Known]) -> None:
    checkpoint, tokenizer = made(TURNS)
    block = next(block for block in shipped_markers().blocks if not block.empty)
    with pytest.raises(Unmeasurable, match="no way is known to have it answer without a thought"):
        chat_prompts(checkpoint, tokenizer, QUESTIONS, closed=block)


def test_a_template_and_its_arguments_are_the_users(made: Callable[..., Known]) -> None:
    checkpoint, _ = made(TURNS)
    own = chat_prompts(checkpoint, load_tokenizer(checkpoint), QUESTIONS)
    turns = [[{"role": "user", "content": text}] for text in QUESTIONS]
    for arguments in ({"enable_thinking": False}, {"enable_thinking": True}):
        tokenizer: Any = load_tokenizer(checkpoint, TemplateChoice(arguments, "qwen.jinja", QWEN))
        prompts = chat_prompts(checkpoint, tokenizer, QUESTIONS)
        shown = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True, **arguments)
        assert prompts.ids == tokenizer(shown)["input_ids"]
        assert (prompts.ids == own.ids) is arguments["enable_thinking"]
    assert prompts.thinking is False


def test_with_one_template_two_models_have_one_form() -> None:
    choice = TemplateChoice({}, "turns.jinja", TURNS)
    base, instruct = ((point, load_tokenizer(point, choice)) for point in map(resolve, ("organism:base", "organism:instruct")))
    matched = matched_prompts(base, instruct, QUESTIONS)
    assert (matched.form, matched.note, matched.tail) == ("native", "", "<end><a>")
