"""What a model is shown of an instruction, and where the instruction has ended.

native: the model's own chat template; plain: `User: ... / Assistant:`, for base models; matched: a form that two models read
alike, token by token, so that a difference between them is no difference between their templates.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from mechdrift.checkpoints.chat import (
    PROBE,
    RENDER_SECONDS,
    TemplateError,
    chat_template,
    mentioned,
    no_template,
    render,
    template_of,
    wrongly_said,
)
from mechdrift.checkpoints.config import load_config
from mechdrift.checkpoints.resolve import Checkpoint
from mechdrift.errors import Unmeasurable
from mechdrift.prompts.framing import ONE_TOKENIZER, framing, what_differs
from mechdrift.prompts.thoughts import Block, Markers, markers_of, shipped_markers, unclosed

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Form = Literal["native", "plain"]
PLAIN = "User: ", "\nAssistant:"
RENDERED_A_SECOND = 100  # far fewer than a usual template does


@dataclass(frozen=True)
class ChatPrompts:
    """Instructions as one tokenizer reads them in one form."""

    ids: list[list[int]]
    """Token ids, BOS and all."""
    ends: list[list[int]]
    """End-of-instruction positions [prompt, position]: the tokens after the instruction's last character that all prompts end
    with, up to each prompt's last; as many and the same tokens in each, so column j is one position of the template."""
    form: Form
    """Which form was used, whichever was requested."""
    tail: str
    """The text after the instruction: a reply follows it."""
    note: str = field(default="", compare=False)
    """Why it is not the form requested, or what was done to have it; empty where there is nothing to say."""
    markers: Markers = field(default_factory=shipped_markers, compare=False, repr=False)
    """Of thoughts, those that the tokenizer declares among them."""

    @property
    def block(self) -> Block | None:
        """The think block that the prompt ends in and the reply has to close; None where there is none."""
        return unclosed(self.tail, self.markers)

    @property
    def thinking(self) -> bool:
        """Whether there is one."""
        return self.block is not None


def chat_prompts(
    checkpoint: Checkpoint,
    tokenizer: "PreTrainedTokenizerBase",
    instructions: Sequence[str],
    form: Form = "native",
    reply_tokens: int = 0,
    closed: Block | None = None,
) -> ChatPrompts:
    """The instructions in a form, ready for a reply; native is plain, with a note, where there is no chat template.

    reply_tokens: room that the context must leave. closed: how the model thinks; in the native form the reply
    then comes after a thought of no words, and the note says how that was done. Raises Unmeasurable where the
    template does not render, does not hold each instruction once and as it is, or where a prompt does not fit.
    """
    if form == "native" and chat_template(tokenizer) is not None:
        texts, how = _rendered(checkpoint, tokenizer, instructions), ""
        if closed:
            texts, how = _closed(checkpoint, tokenizer, instructions, texts, closed)
        note = "; ".join(filter(None, (template_of(tokenizer).note, how)))
        return _encoded(checkpoint, tokenizer, texts, form, reply_tokens, note)
    note = no_template(tokenizer) if form == "native" else ""
    return _encoded(checkpoint, tokenizer, _plain(instructions), "plain", reply_tokens, note)


def matched_prompts(
    base: tuple[Checkpoint, "PreTrainedTokenizerBase"],
    post: tuple[Checkpoint, "PreTrainedTokenizerBase"],
    instructions: Sequence[str],
    reply_tokens: int = 0,
) -> ChatPrompts:
    """The instructions in a form that both models read alike: same token ids, same end-of-instruction positions.

    Native where both templates come to the same tokens, else plain; form and note say which and why. Raises Unmeasurable, also
    where the tokenizers read even the plain form differently.
    """
    without: dict[str, list[str]] = {}
    for checkpoint, tokenizer in (base, post):
        if chat_template(tokenizer) is None:
            without.setdefault(no_template(tokenizer), []).append(checkpoint.spec)
    if without:
        note = "; ".join(f"{' and '.join(specs)}: {why}" for why, specs in without.items())
    else:
        native = [chat_prompts(*one, instructions, "native", reply_tokens) for one in (base, post)]
        if native[0] == native[1]:
            return native[0]
        note = "the chat templates differ: plain form"
    before, after = (_encoded(*one, _plain(instructions), "plain", reply_tokens, note) for one in (base, post))
    if before != after:
        read = [list(zip(one.ids, one.ends, strict=True)) for one in (before, after)]
        differing = sum(a != b for a, b in zip(*read, strict=True))
        why = what_differs((base[1], post[1]), before.ids, after.ids) or ONE_TOKENIZER
        raise Unmeasurable(
            f"{base[0].spec} and {post[0].spec} read {differing} of {len(instructions)} instructions in other tokens, "
            f"even in the plain form: {why}"
        )
    return before


Placed = tuple[str, str, str]  # before the instruction, the instruction, after it


def _plain(instructions: Sequence[str]) -> list[Placed]:
    return [(PLAIN[0], instruction, PLAIN[1]) for instruction in instructions]


def _closed(
    checkpoint: Checkpoint,
    tokenizer: "PreTrainedTokenizerBase",
    instructions: Sequence[str],
    texts: list[Placed],
    block: Block,
) -> tuple[list[Placed], str]:
    """The instructions with a think block closed before the reply, and how: by the template's own switch, else by hand."""
    tail, markers = texts[0][2], markers_of(tokenizer)
    opened = unclosed(tail, markers)
    if opened is None and block.closes.search(tail):
        return texts, "the template closes the think block itself"
    known = mentioned(str(chat_template(tokenizer)))
    for name, value in ((name, value) for name, value in markers.switches if name in known):
        try:
            switched = _rendered(checkpoint, tokenizer, instructions, {name: value})
        except Unmeasurable:  # it knows the name, and not this value
            continue
        before, _, after = switched[0]
        # What is false is off wherever it shows; another value may be mere text in the system turn.
        is_read = after != tail or (value is False and before != texts[0][0])
        if is_read and unclosed(after, markers) is None:
            return switched, f"thinking is off by the template's {name} = {json.dumps(value)}"
    closing = block.empty
    if opened:
        closing = opened.closing if tail.endswith("\n") else opened.closing.strip("\n")
    if not closing:
        raise Unmeasurable(f"{checkpoint.spec}: no way is known to have it answer without a thought")
    how = f"a thought of no words stands before the reply: {' '.join(closing.split())}"
    return [(before, instruction, after + closing) for before, instruction, after in texts], how


def _rendered(
    checkpoint: Checkpoint,
    tokenizer: "PreTrainedTokenizerBase",
    instructions: Sequence[str],
    variables: Mapping[str, Any] | None = None,
) -> list[Placed]:
    """The instructions in the model's own template, all by one call; what stands around them must be the same text each time.

    What it is is learnt from two probes: an instruction's own words may stand in the template too. variables: what the template
    is given beside what it always is.
    """
    probes = [PROBE, "vkwyqz"]
    template = template_of(tokenizer)
    if template.fault:
        raise Unmeasurable(f"{checkpoint.spec}: chat template {template.fault}")
    conversations = [template.conversation(text) for text in [*probes, *instructions]]
    seconds = RENDER_SECONDS + len(conversations) / RENDERED_A_SECOND
    try:
        first, second, *texts = render(tokenizer, conversations, seconds, template.variables | dict(variables or {}))
    except TemplateError as error:
        raise Unmeasurable(f"{checkpoint.spec}: chat template {error}") from error
    if fault := wrongly_said(first):
        raise Unmeasurable(f"{checkpoint.spec}: chat template {fault}")
    before, _, after = first.partition(probes[0])
    if second != before + probes[1] + after:
        raise Unmeasurable(f"{checkpoint.spec}: chat template gives another text around every instruction")
    for instruction, text in zip(instructions, texts, strict=True):
        if text != before + instruction + after:
            raise Unmeasurable(f"{checkpoint.spec}: chat template changes the instruction {instruction[:60]!r}")
    return [(before, instruction, after) for instruction in instructions]


def _encoded(
    checkpoint: Checkpoint,
    tokenizer: "PreTrainedTokenizerBase",
    texts: Sequence[Placed],
    form: Form,
    reply_tokens: int,
    note: str = "",
) -> ChatPrompts:
    """Token ids and end-of-instruction positions. Raises Unmeasurable."""
    encoded = tokenizer(["".join(parts) for parts in texts], add_special_tokens=False, return_offsets_mapping=True)
    leading = list(framing(tokenizer).before)
    ids, counts = [], []
    for row, offsets, (before, instruction, _) in zip(encoded["input_ids"], encoded["offset_mapping"], texts, strict=True):
        last = max((index for index, (start, _) in enumerate(offsets) if start < len(before + instruction)), default=-1)
        counts.append(len(row) - 1 - last)
        # A template may write the BOS itself: once is enough, and not at all is once too few.
        ids.append(row if row[: len(leading)] == leading else leading + row)
    shared = min(counts)
    while shared and len({tuple(row[-shared:]) for row in ids}) > 1:
        shared -= 1
    if not shared:
        raise Unmeasurable(
            f"{checkpoint.spec}: no token of the {form} form comes after the instruction, so there is none to read"
        )
    _require_room(checkpoint, ids, texts, reply_tokens)
    ends = [list(range(len(row) - shared, len(row))) for row in ids]
    return ChatPrompts(ids, ends, form, texts[0][2], note, markers_of(tokenizer))


def _require_room(checkpoint: Checkpoint, ids: Sequence[Sequence[int]], texts: Sequence[Placed], reply_tokens: int) -> None:
    """Raise Unmeasurable where a prompt and its reply do not fit into the context."""
    limit = getattr(load_config(checkpoint).get_text_config(decoder=True), "max_position_embeddings", None)
    longest = max(range(len(ids)), key=lambda index: len(ids[index]))
    if limit is not None and len(ids[longest]) + reply_tokens > limit:
        room = f" and {reply_tokens} of the reply" if reply_tokens else ""
        raise Unmeasurable(
            f"{checkpoint.spec}: the instruction {texts[longest][1][:60]!r} makes a prompt of {len(ids[longest])} tokens{room}, "
            f"and its context has {limit}: take long instructions out of the file"
        )
