"""Command-line options. Imports nothing but the standard library, pytest, option_values and settings."""

from argparse import ArgumentError
from typing import Any

import pytest

from mechdrift.option_values import (
    VLLM_EXAMPLE,
    parse_baseline,
    parse_baseline_name,
    parse_batch,
    parse_device,
    parse_dtype,
    parse_estimator,
    parse_fail_on,
    parse_generator,
    parse_post,
    parse_seed,
    parse_stage,
    parse_stage_log,
    parse_tier,
    parse_vllm_args,
)
from mechdrift.settings import DEFAULTS


def add_options(parser: pytest.Parser) -> None:
    """Add the option group."""
    group = parser.getgroup("mechdrift", "mechdrift: compare two checkpoints from the inside")
    spec = "a folder, org/name@revision of the hub, or organism:NAME"
    checkpoints: dict[str, dict[str, Any]] = {
        "base": {"metavar": "SPEC", "help": f"checkpoint before post-training: {spec}"},
        "post": {
            "metavar": "[NAME=]SPEC",
            "type": parse_post,
            "action": "append",
            "help": "checkpoint after post-training; repeatable: each is compared with base",
        },
        "stage": {
            "metavar": "NAME=SPEC",
            "type": parse_stage,
            "action": "append",
            "help": "a checkpoint between base and post; repeatable, in the order of training: says in which step rows moved",
        },
        "stage-log": {
            "metavar": "NAME=DIR",
            "type": parse_stage_log,
            "action": "append",
            "help": "with --mechdrift-lineage: the training log of the stage that ended at NAME, or at post; repeatable",
        },
    }
    for name, settings in checkpoints.items():
        settings["dest"] = f"mechdrift_{name.replace('-', '_')}"
        try:
            group.addoption(f"--{name}", f"--mechdrift-{name}", **settings)
        except (ValueError, ArgumentError):  # another plugin has taken the short form
            settings["help"] += f" (--{name} is another plugin's here)"
            group.addoption(f"--mechdrift-{name}", **settings)

    def add(name: str, **settings: Any) -> None:
        group.addoption(name, default=DEFAULTS[name], **settings)

    add("--mechdrift-profile", metavar="NAME|FILE.toml", help="limits and roles of the rows; default: base-to-post")
    add(
        "--mechdrift-fail-on",
        metavar="VERDICTS",
        type=parse_fail_on,
        help="which verdicts of gates make the run fail; default: drifted,undecided,unmeasurable. An error always does",
    )
    add(
        "--mechdrift-tier",
        metavar="TIER",
        type=parse_tier,
        help="how much is asked: smoke (a quick look, fewer rows), commit, or nightly (all there is); default: commit",
    )
    add("--mechdrift-plan", action="store_true", help="say what would run, and what it takes; load and write nothing")
    add("--mechdrift-only", metavar="NAME", action="append", help="a family (truth) or a finding (truth.clean_gap); repeatable")
    add(
        "--mechdrift-statements",
        metavar="FILE",
        help="your own statements, CSV or JSONL: statement,label[,entity,value,kind,negated]",
    )
    table = "CSV, JSON, JSONL or Parquet; AdvBench, HarmBench, JailbreakBench and Alpaca are known by their columns"
    for side in ("harmful", "harmless"):
        add(f"--mechdrift-{side}", metavar="FILE[:COLUMN]", help=f"your own {side} instructions: {table}")
    add(
        "--mechdrift-reply-classifier",
        metavar="SPEC[:LABEL]",
        help="a text classifier, folder or org/name, whose LABEL tells refusals; default: by the phrase that a reply opens with",
    )
    add(
        "--mechdrift-pairs",
        metavar="FILE",
        help="your own pairs for knowledge maps, CSV or JSONL: clean,corrupt[,correct,other,entity,kind]",
    )
    add(
        "--mechdrift-texts",
        metavar="FILE[:COLUMN]",
        help="texts on which confidence is measured: .txt, one a line, or a table's column `text`; default: our own prompts",
    )
    add(
        "--mechdrift-hand-set",
        metavar="NAME|FILE.toml",
        help="fix layers, positions, coefficients and pairs by hand, to repeat a published procedure; default: by rule",
    )
    add(
        "--mechdrift-device",
        metavar="DEVICE",
        type=parse_device,
        help="auto, cpu, cuda, cuda:N, map (over all GPUs, then the CPU) or tp (tensor parallel, under torchrun); default: auto",
    )
    add("--mechdrift-dtype", metavar="DTYPE", type=parse_dtype, help="auto, float32, bfloat16 or float16; auto: float32 on a CPU")
    add("--mechdrift-batch", metavar="TOKENS", type=parse_batch, help="padded tokens a forward; default: 4096")
    add("--mechdrift-seed", metavar="N", type=parse_seed, help="of splits and prompts; default: 0")
    add(
        "--mechdrift-generator",
        metavar="NAME",
        type=parse_generator,
        help="what makes replies: transformers, vllm (the extra vllm), or auto: the faster one; default: auto",
    )
    add(
        "--mechdrift-vllm-args",
        metavar="JSON",
        type=parse_vllm_args,
        help=f"further arguments of vllm.LLM, as a JSON object: {VLLM_EXAMPLE}",
    )
    add(
        "--mechdrift-keep-replies",
        action="store_true",
        help="keep the text of replies in the record, harmful and untrusted as it may be; without it scores and hashes only",
    )
    add("--mechdrift-cache", metavar="DIR|off", help="where recordings are kept; default: the user's cache folder")
    add("--mechdrift-record", metavar="FILE.json", help="write the record of the run, from which reports are made")
    add(
        "--mechdrift-save",
        metavar="NAME",
        type=parse_baseline_name,
        help="write the run's rows as a baseline: mechdrift-baselines/NAME.json in the folder of your pyproject.toml",
    )
    add(
        "--mechdrift-baseline",
        metavar="NAME|FILE.json",
        type=parse_baseline,
        help="compare every row with its own of that baseline, or of any record; a gate that is worse fails",
    )
    add("--mechdrift-update", action="store_true", help="write the rows that ran over that baseline's; such a run fails")
    add(
        "--mechdrift-lineage",
        action="store_true",
        help="with --stage: what each stage did to the rows that drifted, measured on post without it",
    )
    add(
        "--mechdrift-lineage-by",
        metavar="ESTIMATOR",
        type=parse_estimator,
        help="how post without a stage is made: task-vector, or from --stage-log rerun or stage-embedding; default: rerun "
        "where there is a log, else task-vector",
    )
    add(
        "--mechdrift-no-identity-shortcut",
        action="store_true",
        help="measure a checkpoint against itself instead of knowing the answer",
    )
    group.addoption("--mechdrift-list", action="store_true", help="list findings with their roles and limits, and stop")
