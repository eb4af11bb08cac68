"""What the user decides of chat templates: refused where it cannot be meant, and said where nothing reads it."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mechdrift.checkpoints.chat import MAX_TEMPLATE
from mechdrift.checkpoints.resolve import resolve
from mechdrift.checkpoints.template_choice import OWN, RESERVED, TemplateChoice, read_choice
from mechdrift.checkpoints.tokenizer import load_tokenizer
from mechdrift.errors import InputError

GOOD = "{{ bos_token }}<user>{{ messages[0].content }}<a>{{ level }}"


@pytest.mark.parametrize("name", sorted(RESERVED))
def test_what_the_run_gives_itself_is_no_argument(name: str) -> None:
    with pytest.raises(
        InputError, match=f"--mechdrift-template-args: '{name}' is given to templates by the run itself; expected"
    ):
        read_choice({"enable_thinking": False, name: ""}, None)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{{ messages }} \xff", r"not UTF-8 \(byte 15\); expected UTF-8"),
        (b"{% if %}", r"does not render \(TemplateSyntaxError: .*; expected a jinja template"),
        (b"{{ a | no_such_filter }}", r"does not render \(Template\w*Error: No filter named 'no_such_filter'"),
        (b"x" * (MAX_TEMPLATE + 1), "of more than 200,000 characters; expected a chat template"),
        (b"x" * (9 * MAX_TEMPLATE), "of more than 200,000 characters; expected a chat template"),
    ],
)
def test_a_file_that_is_no_template_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "chat.jinja"
    path.write_bytes(content)
    with pytest.raises(InputError, match=f"--mechdrift-template {path}: {message}") as raised:
        read_choice({}, str(path))
    assert "\n" not in str(raised.value)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "none.jinja", tmp_path):
        with pytest.raises(InputError, match="no such file; expected a jinja file; check the path"):
            read_choice({}, str(path))


def test_a_choice_is_in_the_record_and_in_the_header(tmp_path: Path) -> None:
    path = tmp_path / "chat.jinja"
    path.write_bytes(b"\xef\xbb\xbf" + GOOD.encode())
    digest = hashlib.sha256(GOOD.encode()).hexdigest()
    choice = read_choice({"enable_thinking": False, "level": "h\u00f6her"}, str(path))
    assert choice.to_dict() == {
        "args": {"enable_thinking": False, "level": "h\u00f6her"},
        "template": {"file": str(path), "sha256": digest},
    }
    assert choice.lines() == [
        'chat templates are given enable_thinking = false, level = "h\u00f6her"',
        f"chat template of all: {path}, sha256 {digest[:12]}",
    ]
    assert (OWN.to_dict(), OWN.lines(), read_choice({}, None)) == (None, [], OWN)


@pytest.mark.parametrize(
    ("template", "arguments", "warning"),
    [
        (GOOD, {"level": 1}, None),
        (GOOD, {}, None),
        (GOOD, {"level": 1, "thinking": False, "b": []}, "never reads b, thinking of --mechdrift-template-args"),
        (None, {"level": 1}, "nothing reads --mechdrift-template-args: no chat template: plain form"),
        ("{{ raise_exception('never') }}", {"level": 1}, None),
    ],
)
def test_an_argument_that_nothing_reads_is_named(
    tiny_checkpoint: Callable[..., Path], template: str | None, arguments: dict[str, Any], warning: str | None
) -> None:
    checkpoint = resolve(str(tiny_checkpoint()))
    choice = TemplateChoice(arguments, "chat.jinja", template)
    found = choice.warning(checkpoint, load_tokenizer(checkpoint, choice))
    assert (found is None) if warning is None else str(found).endswith(warning) and str(found).startswith(checkpoint.spec)


def test_a_template_that_does_not_render_with_a_tokenizer_is_refused(tiny_checkpoint: Callable[..., Path]) -> None:
    checkpoint = resolve(str(tiny_checkpoint()))
    choice = TemplateChoice({}, "chat.jinja", "{{ bos_token }}Hello")
    with pytest.raises(InputError, match=r"chat\.jinja: leaves out what the user says, with the tokenizer of .*; expected"):
        choice.require_usable(checkpoint, load_tokenizer(checkpoint, choice))
    tokenizer = load_tokenizer(checkpoint)
    tokenizer.add_special_tokens({"mask_token": "<m>"})
    with pytest.raises(InputError, match="'mask_token' is given to templates by the run itself"):
        TemplateChoice({"mask_token": "x"}).require_usable(checkpoint, tokenizer)


def test_a_tokenizer_that_was_given_nothing_keeps_its_own(tiny_checkpoint: Callable[..., Path]) -> None:
    checkpoint = resolve(str(tiny_checkpoint()))
    assert load_tokenizer(checkpoint).chat_template is None
    given: Any = load_tokenizer(checkpoint, TemplateChoice({"level": 1}, "chat.jinja", GOOD))
    assert (given.chat_template, given.template_args) == (GOOD, {"level": 1})
    assert load_tokenizer(checkpoint).chat_template is None
