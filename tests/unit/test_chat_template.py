"""Chat templates are programs of strangers: they run boxed in, for a limited time, and what is wrong with one is named."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mechdrift.checkpoints import chat
from mechdrift.checkpoints.chat import AS_PARTS, SYSTEM, TemplateError, mentioned, render, template_of, template_warning
from mechdrift.checkpoints.resolve import resolve
from mechdrift.checkpoints.tokenizer import load_tokenizer

TURNS = "{{ bos_token }}{% for m in messages %}<{{ m.role }}>{{ m.content | trim }}{% endfor %}"
GOOD = TURNS + "{% if add_generation_prompt %}<assistant>{% endif %}"
FOREVER = "{% for a in range(90000) %}{% for b in range(90000) %}{% for c in range(90000) %}{% endfor %}{% endfor %}{% endfor %}"


SYSTEM_FIRST = "{% if messages[0].role != 'system' %}{{ raise_exception('system first') }}{% endif %}"
NO_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
WANTS_TOOLS = "{% for tool in tools %}{{ tool.name }}{% endfor %}"
AS_LIST = GOOD.replace("m.content | trim", "m.content[0].text | trim")


@pytest.fixture
def folder(tiny_checkpoint: Callable[..., Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_checkpoint(), tmp_path / "checkpoint"))


def test_rendering_is_what_apply_chat_template_gives(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text(GOOD)
    checkpoint = resolve(str(folder))
    tokenizer: Any = load_tokenizer(checkpoint)
    talks = [
        [{"role": "user", "content": " Who? "}],
        [{"role": "system", "content": "Be brief. \u2028\u00e9"}, {"role": "user", "content": "Who {{ bos_token }} is it?"}],
    ]
    expected = [tokenizer.apply_chat_template(talk, tokenize=False, add_generation_prompt=True) for talk in talks]
    assert template_warning(checkpoint, tokenizer) is None
    assert render(tokenizer, talks) == expected
    assert expected[0] == "<bos><user>Who?<assistant>"


def test_a_tokenizer_without_a_template_needs_no_process(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat, "RENDERER", Path("/none"))
    checkpoint = resolve(str(folder))
    assert template_warning(checkpoint, load_tokenizer(checkpoint)) is None


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{% if %}", "chat template does not render (TemplateSyntaxError: "),
        ("{{ raise_exception('only with tools') }}", "chat template does not render (TemplateError: only with tools)"),
        ("{{ ''.__class__.__mro__ }}", "chat template does not render (SecurityError: "),
        ("{{ 'a' * 10 ** 11 }}", "chat template does not render (MemoryError"),
        ("{{ bos_token }}Hello", "chat template leaves out what the user says"),
        ("{{ messages[0].content | upper }}", "chat template leaves out what the user says"),
        (GOOD + "{# long #}" * 20_001, "chat template of 200,"),
    ],
)
def test_an_odd_template_is_named(folder: Path, template: str, message: str) -> None:
    (folder / "chat_template.jinja").write_text(template)
    checkpoint = resolve(str(folder))
    text = template_warning(checkpoint, load_tokenizer(checkpoint)) or ""
    assert message in text
    assert text.endswith(": rows of refusal are unmeasurable")
    assert "\n" not in text


@pytest.mark.parametrize("template", [FOREVER, "{{ 10 ** (10 ** 9) }}"], ids=["in Python", "in one call into C"])
def test_a_template_without_end_is_stopped(folder: Path, template: str) -> None:
    (folder / "chat_template.jinja").write_text(template)
    tokenizer = load_tokenizer(resolve(str(folder)))
    with pytest.raises(TemplateError, match="takes longer than 1 s"):  # of the hours that it would take
        render(tokenizer, [[{"role": "user", "content": "Who?"}]], seconds=1)


def test_a_renderer_that_dies_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "dies.py").write_text("import sys; print('loaded', flush=True); sys.exit(9)")
    monkeypatch.setattr(chat, "RENDERER", tmp_path / "dies.py")
    (folder / "chat_template.jinja").write_text(GOOD)
    checkpoint = resolve(str(folder))
    warning = template_warning(checkpoint, load_tokenizer(checkpoint))
    assert warning == f"{folder}: chat template ended its process with code 9: rows of refusal are unmeasurable"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("{% for part in m.content %}{% if part.type == 'text' %}{{ part.text }}{% endif %}{% endfor %}", (True, "")),
        ("{{ m.content[0].text }}", (True, "")),
        ("{% if m.content is string %}{{ m.content }}{% else %}{{ m.content[0].text }}{% endif %}", (False, "")),
        ("{{ m.content[0].words }}", (True, "leaves out what the user says")),
    ],
)
def test_content_is_given_as_parts_where_text_is_not_read(folder: Path, content: str, expected: tuple[bool, str]) -> None:
    (folder / "chat_template.jinja").write_text(f"{{% for m in messages %}}{content}{{% endfor %}}")
    checkpoint = resolve(str(folder))
    tokenizer: Any = load_tokenizer(checkpoint)
    template = template_of(tokenizer)
    parts, fault = expected
    assert template.fault == fault
    if fault:
        return
    assert template.parts is parts
    talk = template.conversation("Who?")
    assert render(tokenizer, [talk]) == [tokenizer.apply_chat_template(talk, tokenize=False)] == ["Who?"]
    assert template_warning(checkpoint, tokenizer) == (f"{folder}: {AS_PARTS}" if parts else None)


@pytest.mark.parametrize(
    ("template", "given", "before"),
    [
        (NO_SYSTEM + GOOD, "", ""),
        (NO_SYSTEM + AS_LIST, "content as a list of parts", ""),
        (SYSTEM_FIRST + GOOD, f"the system turn '{SYSTEM}'", f"<system>{SYSTEM}"),
        (SYSTEM_FIRST + AS_LIST, f"the system turn '{SYSTEM}' and content as a list of parts", f"<system>{SYSTEM}"),
        (NO_SYSTEM + WANTS_TOOLS + GOOD, "an empty list of tools", ""),
        (NO_SYSTEM + WANTS_TOOLS + AS_LIST, "an empty list of tools and content as a list of parts", ""),
        (
            SYSTEM_FIRST + WANTS_TOOLS + GOOD,
            f"the system turn '{SYSTEM}' and an empty list of tools",
            f"<system>{SYSTEM}",
        ),
        (
            SYSTEM_FIRST + WANTS_TOOLS + AS_LIST,
            f"the system turn '{SYSTEM}' and an empty list of tools and content as a list of parts",
            f"<system>{SYSTEM}",
        ),
    ],
)
def test_a_template_is_given_the_least_that_it_accepts(folder: Path, template: str, given: str, before: str) -> None:
    (folder / "chat_template.jinja").write_text(template)
    checkpoint = resolve(str(folder))
    tokenizer: Any = load_tokenizer(checkpoint)
    form = template_of(tokenizer)
    talk = form.conversation("Who?")
    expected = tokenizer.apply_chat_template(talk, tokenize=False, add_generation_prompt=True, **form.variables)
    assert render(tokenizer, [talk], variables=form.variables) == [expected] == [f"<bos>{before}<user>Who?<assistant>"]
    assert (f"is given {given}: " in form.note) if given else not form.note
    assert template_warning(checkpoint, tokenizer) == (f"{folder}: {form.note}" if given else None)


def test_of_a_template_that_accepts_nothing_the_first_reason_is_given(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text(SYSTEM_FIRST + NO_SYSTEM + GOOD)
    assert template_of(load_tokenizer(resolve(str(folder)))).fault == "does not render (TemplateError: system first)"


@pytest.mark.parametrize(
    ("template", "names"),
    [
        (GOOD, {"bos_token", "messages", "add_generation_prompt"}),
        ("{% if enable_thinking is defined and enable_thinking is false %}a{% endif %}", {"enable_thinking"}),
        ("{% if not thinking is defined %}{% set thinking = false %}{% endif %}{{ thinking }}", {"thinking"}),
        ("{% set thinking = false %}{{ thinking }}", set()),
        ("{% generation %}{{ a }}{% endgeneration %}{% for b in c %}{% break %}{% endfor %}{# d #}", {"a", "c"}),
    ],
)
def test_what_a_template_reads_is_what_it_does_not_set_first(template: str, names: set[str]) -> None:
    assert mentioned(template) == names


def test_a_template_keeps_its_process_and_gets_no_other(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[int] = []

    class Counted(subprocess.Popen[str]):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            started.append(self.pid)

    monkeypatch.setattr(subprocess, "Popen", Counted)
    endless = "{% if messages[0].content == 'fail' %}{{ 10 ** (10 ** (8 + messages|length)) }}{% endif %}"
    template = f"{endless}{{{{ messages[0].content }}}}: kept"
    (folder / "chat_template.jinja").write_text(template)
    tokenizer = load_tokenizer(resolve(str(folder)))

    def output(text: str, seconds: float = 600) -> list[str]:
        return render(tokenizer, [[{"role": "user", "content": text}]], seconds=seconds)

    assert (output("one"), output("two\n")) == (["one: kept"], ["two\n: kept"])
    assert len(started) == 1
    with pytest.raises(TemplateError, match="takes longer"):
        output("fail", seconds=1)
    with pytest.raises(TemplateError, match="takes longer"):
        output("three")
    assert len(started) == 1
