"""What the options of replies take, and how a command repeats them."""

import shlex
from argparse import ArgumentTypeError
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mechdrift.option_values import GENERATORS, parse_fail_on, parse_generator, parse_vllm_args
from mechdrift.settings import DEFAULTS, Settings

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


def settings(**given: Any) -> Settings:
    """As asked, the rest by default."""
    names = {name.removeprefix("--mechdrift-").replace("-", "_"): value for name, value in DEFAULTS.items()}
    names.pop("no_identity_shortcut")
    return Settings(
        base="a", posts=(("post", "b"),), stages=(), stage_logs=(), identity_shortcut=True, **names | {"only": ()} | given
    )


def test_generators() -> None:
    assert [parse_generator(name) for name in GENERATORS] == ["auto", "transformers", "vllm"]
    with pytest.raises(ArgumentTypeError, match="'sglang': expected one of auto, transformers, vllm"):
        parse_generator("sglang")


@pytest.mark.parametrize(
    "bad", ["", "{", "[]", "3", '"a"', "null", "{'a': 1}", '{"a": NaN}', '{"a": 1e999}', '{"\\ud800": 1}', "[" * 100_000]
)
def test_what_is_no_json_object_is_refused(bad: str) -> None:
    with pytest.raises(ArgumentTypeError, match="expected a JSON object, as in ") as raised:
        parse_vllm_args(bad)
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
