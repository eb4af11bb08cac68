"""What the values of command-line options may be: one pure parse function each."""

import json
import os
import re
from argparse import ArgumentTypeError
from typing import Any
from urllib.parse import urlsplit

from mechdrift.device_names import MAP, TENSOR_PARALLEL
from mechdrift.verdict.fail_on import FAIL_ON, FailOn

DEVICES = ("auto", "cpu", "cuda", MAP, TENSOR_PARALLEL)
DTYPES = ("auto", "float32", "bfloat16", "float16")
GENERATORS = ("auto", "transformers", "vllm")
TIER_NAMES = ("smoke", "commit", "nightly")
OFF = "off"
MOST_REPLY_TOKENS = 1_000_000
VLLM_EXAMPLE = '{"tensor_parallel_size": 2}'
TEMPLATE_EXAMPLE = '{"enable_thinking": false}'
BASELINE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(?<!\.json)")
STAGE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
ENDS = ("base", "post")
ESTIMATORS = ("task-vector", "stage-embedding", "rerun")


def parse_device(text: str) -> str:
    """auto, cpu, cuda, cuda:N, map or tp."""
    kind, _, number = text.partition(":")
    if kind not in DEVICES or (number and (kind != "cuda" or not number.isdecimal())):
        raise ArgumentTypeError(f"{text!r}: expected auto, cpu, cuda, cuda:N, map or tp")
    return text


def parse_dtype(text: str) -> str:
    """One of DTYPES."""
    if text not in DTYPES:
        raise ArgumentTypeError(f"{text!r}: expected one of {', '.join(DTYPES)}")
    return text


def parse_batch(text: str) -> int:
    """A positive number of tokens."""
    if not text.isdecimal() or int(text) < 1:
        raise ArgumentTypeError(f"{text!r}: expected a positive number of tokens")
    return int(text)


def parse_reply_tokens(text: str) -> int:
    """A positive number of tokens, at most MOST_REPLY_TOKENS."""
    if not text.isdecimal() or not 1 <= int(text) <= MOST_REPLY_TOKENS:
        raise ArgumentTypeError(f"{text!r}: expected 1 to {MOST_REPLY_TOKENS} tokens")
    return int(text)


def parse_thinking_tokens(text: str) -> int:
    """A number of tokens, 0 or more, at most MOST_REPLY_TOKENS."""
    if not text.isdecimal() or int(text) > MOST_REPLY_TOKENS:
        raise ArgumentTypeError(f"{text!r}: expected 0 to {MOST_REPLY_TOKENS} tokens; 0: replies begin with the answer")
    return int(text)


def parse_seed(text: str) -> int:
    """A whole number, 0 or more."""
    if not text.isdecimal():
        raise ArgumentTypeError(f"{text!r}: expected 0 or a positive whole number")
    return int(text)


def parse_generator(text: str) -> str:
    """One of GENERATORS."""
    if text not in GENERATORS:
        raise ArgumentTypeError(f"{text!r}: expected one of {', '.join(GENERATORS)}")
    return text


def parse_judge(text: str) -> str:
    """URL or URL#MODEL. A message shows nothing of a URL, which may hold a key that has no place there."""
    try:
        url = urlsplit(text)
        whole = url.scheme in ("http", "https") and url.hostname and (url.port is None or url.port > 0)
    except ValueError:
        whole = False
    if not whole or not text.isprintable() or " " in text:
        raise ArgumentTypeError("no http or https URL; expected URL or URL#MODEL, such as http://localhost:8000/v1")
    if "@" in url.netloc or url.query:
        raise ArgumentTypeError("its URL has a key or a query; expected neither; set MECHDRIFT_JUDGE_KEY to the key")
    return text


def parse_tier(text: str) -> str:
    """One of TIER_NAMES."""
    if text not in TIER_NAMES:
        raise ArgumentTypeError(f"{text!r}: expected one of {', '.join(TIER_NAMES)}")
    return text


def parse_vllm_args(text: str) -> dict[str, Any]:
    """Arguments of vllm.LLM."""
    return _json_object(text, VLLM_EXAMPLE)


def parse_template_args(text: str) -> dict[str, Any]:
    """Variables of chat templates."""
    return _json_object(text, TEMPLATE_EXAMPLE)


def _json_object(text: str, example: str) -> dict[str, Any]:
    """A JSON object; NaN and half characters, which are none, could not be written into the record."""
    try:
        found = json.loads(text)
        json.dumps(found, allow_nan=False, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise ArgumentTypeError(f"{text[:60]!r}: {error}; expected a JSON object, as in {example}") from error
    if not isinstance(found, dict):
        raise ArgumentTypeError(f"{text[:60]!r}: expected a JSON object, as in {example}")
    return found


def parse_fail_on(text: str) -> tuple[FailOn, ...]:
    """Verdicts, separated by commas; `drifted` is always one of them, or nothing would be a gate."""
    usual = FAIL_ON
    named = [name.strip() for name in text.split(",")]
    if unknown := [name for name in named if name not in usual]:
        raise ArgumentTypeError(f"{unknown[0]!r}: expected some of {', '.join(usual)}, separated by commas")
    if "drifted" not in named:
        raise ArgumentTypeError(f"{text!r}: expected drifted among them; to gate nothing type --mechdrift-profile report")
    return tuple(name for name in usual if name in named)


def parse_stage(text: str) -> tuple[str, str]:
    """NAME=SPEC: a checkpoint between base and post, and what to call it."""
    name, equals, spec = text.partition("=")
    if not equals or not spec or not STAGE_NAME.fullmatch(name):
        raise ArgumentTypeError(f"{text!r}: expected NAME=SPEC, as in sft=runs/sft; NAME of letters, digits, '.', '-' and '_'")
    if name in ENDS:
        raise ArgumentTypeError(f"{text!r}: {name} is given with --{name}; expected another name")
    return name, spec


def parse_stage_log(text: str) -> tuple[str, str]:
    """NAME=DIR: of a stage, by the name of the checkpoint at its end, and the folder of its training log."""
    name, equals, folder = text.partition("=")
    if not equals or not folder or not STAGE_NAME.fullmatch(name):
        raise ArgumentTypeError(f"{text!r}: expected NAME=DIR, as in dpo=runs/dpo/log; NAME of a --stage, or post")
    return name, folder


def parse_estimator(text: str) -> str:
    """One of ESTIMATORS."""
    if text not in ESTIMATORS:
        raise ArgumentTypeError(f"{text!r}: expected one of {', '.join(ESTIMATORS)}")
    return text


def parse_post(text: str) -> tuple[str | None, str]:
    """SPEC, or NAME=SPEC: what to call one of several posts; a SPEC may have a '=' in it, and a path that exists is one."""
    name, equals, _ = text.partition("=")
    return parse_stage(text) if equals and STAGE_NAME.fullmatch(name) and not os.path.exists(text) else (None, text)


def post_name(spec: str) -> str:
    """What to call one of several posts that was given no name: its last part; empty where that is none."""
    last = re.split(r"[/:+]", spec.rstrip("/"))[-1].replace("@", "-")
    return last if STAGE_NAME.fullmatch(last) and last not in ENDS else ""


def parse_baseline_name(text: str) -> str:
    """The name of a baseline in the project's folder."""
    if not BASELINE_NAME.fullmatch(text):
        raise ArgumentTypeError(f"{text!r}: expected a name of letters, digits, '.', '-' and '_', without .json")
    return text


def parse_baseline(text: str) -> str:
    """The name of a baseline, or a file: FILE.json."""
    return text if text.endswith(".json") else parse_baseline_name(text)
