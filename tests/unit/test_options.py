"""What the options of replies take, and how a command repeats them."""

import shlex
from argparse import ArgumentTypeError
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mechdrift.settings import OPTIONS, Settings
from mechdrift.settings.command_line import long_of, with_table
from mechdrift.settings.declared import words_of
from mechdrift.settings.option import flag_of, option, option_of
from mechdrift.settings.values import GENERATORS, parse_fail_on, parse_generator, parse_template_args, parse_vllm_args

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


def settings(**given: Any) -> Settings:
    """As given, the rest by default."""
    return Settings(base="a", posts=(("post", "b"),), **given)


def test_generators() -> None:
    assert [parse_generator(name) for name in GENERATORS] == ["auto", "transformers", "vllm"]
    with pytest.raises(ArgumentTypeError, match="'sglang': expected one of auto, transformers, vllm"):
        parse_generator("sglang")


@pytest.mark.parametrize(
    "bad", ["", "{", "[]", "3", '"a"', "null", "{'a': 1}", '{"a": NaN}', '{"a": 1e999}', '{"\\ud800": 1}', "[" * 100_000]
)
def test_what_is_no_json_object_is_refused(bad: str) -> None:
    for parse, example in ((parse_vllm_args, "tensor_parallel_size"), (parse_template_args, "enable_thinking")):
        with pytest.raises(ArgumentTypeError, match=f'expected a JSON object, as in {{"{example}') as raised:
            parse(bad)
        assert len(str(raised.value)) < 300
        assert "\n" not in str(raised.value)


@given(st.dictionaries(st.text(), JSON))
def test_a_command_repeats_what_vllm_is_given(arguments: dict[str, Any]) -> None:
    words = shlex.split(settings(vllm_args=arguments, keep_replies=True, generator="vllm").command("refusal.rate"))
    found = words[words.index("--mechdrift-vllm-args") + 1] if arguments else "{}"
    assert parse_vllm_args(found) == arguments
    assert words[words.index("--mechdrift-generator") + 1] == "vllm"
    assert "--mechdrift-keep-replies" in words


def test_a_command_says_nothing_of_defaults() -> None:
    assert settings().command("refusal.rate") == "pytest --base a --post b --mechdrift-only refusal.rate"


@pytest.mark.parametrize(
    ("text", "expected"),
    [("drifted", ("drifted",)), ("unmeasurable, drifted", ("drifted", "unmeasurable"))],
)
def test_fail_on_is_a_list_of_verdicts(text: str, expected: tuple[str, ...]) -> None:
    assert parse_fail_on(text) == expected


@pytest.mark.parametrize("text", ["held", "undecided", "", "drifted,error"])
def test_fail_on_needs_verdicts_and_drifted_among_them(text: str) -> None:
    with pytest.raises(ArgumentTypeError, match="expected"):
        parse_fail_on(text)


def test_fail_on_comes_back_in_the_command() -> None:
    words = shlex.split(settings(fail_on=("drifted", "undecided")).command("truth.clean_gap"))
    assert words[words.index("--mechdrift-fail-on") + 1] == "drifted,undecided"
    assert "--mechdrift-fail-on" not in settings().command("truth.clean_gap")


def test_an_option_is_declared_in_one_place() -> None:
    """All else is derived from it: here an option that nobody else knows."""

    @dataclass(frozen=True)
    class More(Settings):
        note: str | None = option(None, "a note", "TEXT", readme="a note of yours", readme_default="none")

    known = {each.name: option_of(each) for each in fields(More)}
    assert list(known)[:-1] == list(OPTIONS), "in the order of README.md"
    given = More(base="a", posts=(("post", "b"),), note="x y")
    assert given.given() == {"note": "x y"}
    assert words_of(given.given()) == ["--mechdrift-note", "x y"]


@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_is_on_the_command_line_in_the_record_and_in_the_command_again(name: str, pytester: pytest.Pytester) -> None:
    one = OPTIONS[name]
    values: dict[str, Any] = {"fail_on": ("drifted",), "batch": 1, "seed": 7, "vllm_args": {"a": 1}, "tier": "smoke"}
    values["template_args"] = {"a": 1}
    given = settings(**{name: values.get(name, True if one.metavar is None else "x")}) if not one.short else settings()
    words = shlex.split(given.command("a.b"))
    assert (flag_of(name) in words[:-2]) == (one.again and not one.short)
    assert (name in given.recorded()) == (one.changes_numbers and not one.short)
    assert long_of(name, one) in pytester.runpytest("--help").stdout.str()


def test_the_readme_has_the_table_of_all_options() -> None:
    """`python -m mechdrift.settings.command_line README.md` writes it."""
    page = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    assert with_table(page) == page
    assert all(flag_of(name) in page or one.short in page for name, one in OPTIONS.items())
