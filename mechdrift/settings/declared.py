"""Every option of a comparing run, declared here and nowhere else. Imports the standard library and the parse functions only."""

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from mechdrift.settings.option import Option, flag_of, option, option_of
from mechdrift.settings.values import (
    TEMPLATE_EXAMPLE,
    VLLM_EXAMPLE,
    parse_baseline,
    parse_baseline_name,
    parse_batch,
    parse_device,
    parse_dtype,
    parse_estimator,
    parse_fail_on,
    parse_generator,
    parse_judge,
    parse_post,
    parse_reply_tokens,
    parse_seed,
    parse_stage,
    parse_stage_log,
    parse_template_args,
    parse_thinking_tokens,
    parse_tier,
    parse_vllm_args,
)
from mechdrift.verdict.fail_on import FAIL_ON, FailOn

SPEC = "a folder, org/name@revision of the hub, or organism:NAME"
FILE, COLUMN = "FILE[[col=value]]", "FILE[:COLUMN][[col=value]]"
TABLE = "a table (CSV, TSV, JSON, JSONL, Parquet, .gz), a folder of shards, or org/name of the hub"
TABLES = "[any table](docs/instructions.md#files)"


@dataclass(frozen=True)
class Settings:
    """What a run was given, a field an option, in the order of README.md."""

    base: str = option(None, f"checkpoint before post-training: {SPEC}", "SPEC", short="--base", again=False)
    """Spec of the checkpoint before."""
    stages: tuple[tuple[str, str], ...] = option(
        (),
        "a checkpoint between base and post; repeatable, in the order of training: says in which step rows moved",
        "NAME=SPEC",
        parse=parse_stage,
        repeatable=True,
        short="--stage",
        again=False,
        readme="a checkpoint between base and post, repeatable: says [in which step](docs/chains.md) a row moved",
        readme_default="none",
    )
    """Name and spec of checkpoints between the two, in the order of training."""
    lineage: bool = option(
        False,
        "with --stage: what each stage did to the rows that drifted, measured on post without it",
        again=False,
        changes_numbers=False,
        readme="with stages: [what each of them did](docs/chains.md#which-stage-is-responsible) to the gates that drifted",
        readme_default="off",
    )
    """Whether each stage's part in what drifted is measured."""
    stage_logs: tuple[tuple[str, str], ...] = option(
        (),
        "with --mechdrift-lineage: the training log of the stage that ended at NAME, or at post; repeatable",
        "NAME=DIR",
        parse=parse_stage_log,
        repeatable=True,
        short="--stage-log",
        again=False,
        changes_numbers=False,
        readme="with that: [the training log](docs/training.md#the-log-of-a-stage) of the stage that ended at NAME, or at post",
        readme_default="none",
    )
    """Names of stages, and the folders of their training logs."""
    lineage_by: str | None = option(
        None,
        "how post without a stage is made: task-vector, or from --stage-log rerun or stage-embedding; default: rerun where there "
        "is a log, else task-vector",
        "ESTIMATOR",
        parse=parse_estimator,
        again=False,
        changes_numbers=False,
        readme="[how post without a stage is made](docs/chains.md#by-the-stages-logs): `task-vector`, `rerun`, `stage-embedding`",
        readme_default="`rerun` with logs, else `task-vector`",
    )
    """How post without a stage is made: one of ESTIMATORS; None: by rerun where there are logs, else by task vector."""
    posts: tuple[tuple[str, str], ...] = option(
        (),
        "checkpoint after post-training; repeatable: each is compared with base",
        "[NAME=]SPEC",
        parse=parse_post,
        repeatable=True,
        short="--post",
        again=False,
        readme="repeatable: [several posts](docs/chains.md#one-base-several-posts) of one base, each gated",
    )
    """Name and spec of the checkpoints after, each compared with base; one alone is named post."""
    profile: str = option(
        "base-to-post",
        "limits and roles of the rows; default: base-to-post",
        "NAME|FILE.toml",
        changes_numbers=False,
        readme="limits, roles and waivers of the rows: [a shipped profile or your own](docs/profiles.md)",
        readme_default="`base-to-post`",
    )
    """Name or file of the limits."""
    fail_on: tuple[FailOn, ...] = option(
        FAIL_ON,
        "which verdicts of gates make the run fail; default: drifted,undecided,unmeasurable. An error always does",
        "VERDICTS",
        parse=parse_fail_on,
        changes_numbers=False,
        readme="which verdicts of gates make the run fail",
        readme_default="`drifted,undecided,unmeasurable`",
    )
    """Verdicts of gates that make the run fail."""
    tier: str = option(
        "commit",
        "how much is measured: smoke (a quick look, fewer rows), commit, or nightly (all there is); default: commit",
        "TIER",
        parse=parse_tier,
        readme="[how much is measured](docs/tiers.md): `smoke`, `commit` or `nightly`",
        readme_default="`commit`",
    )
    """How many items are measured: one of TIER_NAMES."""
    plan: bool = option(
        False,
        "print what would run, and what it takes; load and write nothing",
        again=False,
        changes_numbers=False,
        readme="what a run would measure and take; loads and writes nothing",
    )
    """Whether the run is only planned."""
    only: tuple[str, ...] = option(
        (),
        "a family (truth), a finding (truth.clean_gap) or the label of a row; repeatable",
        "NAME",
        repeatable=True,
        again=False,
        changes_numbers=False,
        readme="a family, a finding or the label of a row, repeatable",
        readme_default="all",
    )
    """Families, findings or labels of rows; empty: all."""
    statements: str | None = option(
        None,
        f"your own statements, {TABLE}: statement,label[,entity,value,kind,negated], or facts",
        FILE,
        readme=f"your own statements, {TABLES}: `statement,label[,entity,value,kind,negated]`, or [facts](docs/pairs.md#facts)",
        readme_default="the shipped tables",
    )
    """The user's own statements."""
    pairs: str | None = option(
        None,
        f"your own pairs for knowledge maps, {TABLE}: clean,corrupt[,correct,other,entity,kind], or facts",
        FILE,
        readme=f"[your own pairs](docs/pairs.md) for knowledge maps, {TABLES}: `clean,corrupt[,correct,other,entity,kind]`, or "
        "[facts](docs/pairs.md#facts)",
        readme_default="of the shipped tables",
    )
    """The user's own pairs of prompts."""
    harmful: str | None = option(
        None,
        f"your own harmful instructions: {TABLE}; published layouts are known by their columns",
        COLUMN,
        readme=f"your own harmful instructions: {TABLES}, such as HarmBench, XSTest or StrongREJECT",
        readme_default="the shipped ones",
    )
    """The user's own harmful instructions, FILE or FILE:COLUMN."""
    harmless: str | None = option(
        None,
        f"your own harmless instructions: {TABLE}; published layouts are known by their columns",
        COLUMN,
        readme=f"your own harmless ones: {TABLES}, such as Alpaca, Dolly or chats (`messages`)",
        readme_default="the shipped ones",
    )
    """The user's own harmless ones."""
    reply_tokens: int = option(
        64,
        "tokens of a reply, or of its answer where it thinks first; default: 64",
        "N",
        parse=parse_reply_tokens,
        readme="tokens of a [reply](docs/instructions.md#replies), or of its answer where it thinks first",
        readme_default="64",
    )
    """Of the answer."""
    thinking_tokens: int = option(
        1024,
        "tokens of the thought before it, of models that think; 0: their think block is closed; default: 1024",
        "N",
        parse=parse_thinking_tokens,
        readme="tokens of the [thought](docs/instructions.md#thoughts) before it, of models that think; `0`: none, their think "
        "block is closed",
        readme_default="1024",
    )
    """Of the thought before it."""
    reply_classifier: str | None = option(
        None,
        "a text classifier, folder or org/name, whose LABEL marks refusals; default: the shipped classifier",
        "SPEC[:LABEL]",
        readme="a text classifier (folder or hub id) that [recognises refusals](docs/instructions.md#replies)",
        readme_default="the shipped classifier",
    )
    """A text classifier that recognises refusals, SPEC or SPEC:LABEL."""
    judge: str | None = option(
        None,
        "an OpenAI-compatible API whose MODEL says which replies refuse; default: the shipped classifier",
        "URL[#MODEL]",
        parse=parse_judge,
        readme="an OpenAI-compatible API, `http://localhost:8000/v1`, whose model "
        "[says which replies refuse](docs/instructions.md#a-judge)",
        readme_default="the shipped classifier",
    )
    """The base URL of an API, and the model that judges replies, URL or URL#MODEL."""
    template: str | None = option(
        None,
        "a jinja file used instead of every checkpoint's own chat template, also by those without one",
        "FILE",
        readme="a [chat template](docs/instructions.md#chat-forms), a jinja file, used by both checkpoints instead of their own",
        readme_default="of each its own",
    )
    """A chat template for all checkpoints."""
    template_args: Mapping[str, Any] = option(
        {},
        f"variables of the chat templates of all checkpoints, as a JSON object: {TEMPLATE_EXAMPLE}",
        "JSON",
        parse=parse_template_args,
        readme=f"what [chat templates](docs/instructions.md#chat-forms) are given beside the conversation: `{TEMPLATE_EXAMPLE}`",
        readme_default="nothing",
    )
    """Variables that chat templates are given, of all checkpoints."""
    texts: str | None = option(
        None,
        "texts on which confidence is measured: .txt, one a line, or a table's column `text`; default: our own prompts",
        COLUMN,
        readme="your own texts for [confidence](docs/design/confidence.md): `.txt`, one a line, or the column `text` of "
        f"{TABLES}",
        readme_default="of the shipped statements and instructions",
    )
    """The user's own texts, FILE or FILE:COLUMN."""
    hand_set: str | None = option(
        None,
        "fix layers, positions, coefficients and pairs by hand, to repeat a published procedure; default: by rule",
        "NAME|FILE.toml",
        readme="layers, positions, coefficients and pairs fixed by hand, as in a published procedure (`du-2025-llama-3.1-8b`)",
        readme_default="by rule",
    )
    """File of choices that are made by hand instead of by rule."""
    device: str = option(
        "auto",
        "auto, cpu, cuda, cuda:N, map (over all GPUs, then the CPU) or tp (tensor parallel, under torchrun); default: auto",
        "DEVICE",
        parse=parse_device,
        readme="`cpu`, `cuda:N`, `map` (over all GPUs, then the CPU) or `tp` ([tensor parallel](docs/memory.md))",
        readme_default="a GPU if there is one",
    )
    """Where models run."""
    dtype: str = option(
        "auto",
        "auto, float32, bfloat16 or float16; auto: float32 on a CPU",
        "DTYPE",
        parse=parse_dtype,
        readme="`float32`, `bfloat16` or `float16`",
        readme_default="bfloat16 on a GPU, else float32",
    )
    """In which precision."""
    batch: int = option(4096, "padded tokens a forward; default: 4096", "TOKENS", parse=parse_batch, readme_default="4096",
                        readme="padded tokens a forward")  # fmt: skip
    """Padded tokens a forward."""
    seed: int = option(0, "of splits and prompts; default: 0", "N", parse=parse_seed, readme="of splits and prompts",
                       readme_default="0")  # fmt: skip
    """Of splits, false objects and few-shot orders."""
    generator: str = option(
        "auto",
        "what generates replies: transformers, vllm (the extra vllm), or auto: the faster one; default: auto",
        "NAME",
        parse=parse_generator,
        readme="what generates [replies](docs/design/generation.md), for both checkpoints: `transformers`, `vllm` "
        "(`pip install 'mechdrift[vllm]'`) or `auto`",
        readme_default="`auto`: vLLM where it is installed, on one GPU, from 1B weights, while its canaries pass",
    )
    """What generates replies: one of GENERATORS."""
    vllm_args: Mapping[str, Any] = option(
        {},
        f"further arguments of vllm.LLM, as a JSON object: {VLLM_EXAMPLE}",
        "JSON",
        parse=parse_vllm_args,
        readme=f"further arguments of `vllm.LLM`, as `{VLLM_EXAMPLE}`",
        readme_default="none",
    )
    """Further arguments of vllm.LLM."""
    keep_replies: bool = option(
        False,
        "keep the text of replies in the record, harmful and untrusted as it may be; without it scores and hashes only",
        changes_numbers=False,
        readme="keep the text of replies, in `FILE.replies.jsonl` beside the record: it is untrusted, and may be harmful",
        readme_default="scores and hashes only",
    )
    """Whether the record may hold the text of replies."""
    cache: str | None = option(
        None,
        "where recordings are kept; default: the user's cache folder",
        "DIR|off",
        changes_numbers=False,
        readme="where recordings are [kept](docs/cache.md); a second run reads them and loads no model, a killed one resumes",
        readme_default="your cache folder",
    )
    """Folder of the store; None: the user's cache folder; `off`: a temporary one."""
    record: str | None = option(
        None,
        "write the record of the run, from which reports are made",
        "FILE.json",
        again=False,
        changes_numbers=False,
        readme="the record of the run ([schema](mechdrift/report/record.schema.json)); items lie beside it",
        readme_default="none",
    )
    """Where the record goes."""
    save: str | None = option(
        None,
        "write the run's rows as a baseline: mechdrift-baselines/NAME.json in the folder of your pyproject.toml",
        "NAME",
        parse=parse_baseline_name,
        again=False,
        changes_numbers=False,
        readme="write the run's rows as a [baseline](docs/baselines.md), `mechdrift-baselines/NAME.json`",
        readme_default="none",
    )
    """Name of the baseline to write."""
    baseline: str | None = option(
        None,
        "compare every row with its own of that baseline, or of any record; a gate that is worse fails",
        "NAME|FILE.json",
        parse=parse_baseline,
        changes_numbers=False,
        readme="compare every row with its own of a baseline or a record; a gate that is worse fails",
        readme_default="none",
    )
    """Name or file of the baseline to compare with."""
    update: bool = option(
        False,
        "write the rows that ran over that baseline's; such a run fails",
        again=False,
        changes_numbers=False,
        readme="write the rows that ran over that baseline's; such a run fails",
        readme_default="off",
    )
    """Whether what ran is written over that baseline."""
    no_identity_shortcut: bool = option(
        False,
        "measure a checkpoint against itself instead of knowing the answer",
        readme="measure a checkpoint against itself instead of knowing the answer",
        readme_default="off",
    )
    """Whether a checkpoint against itself is measured, and not known to be exactly the null."""

    @property
    def identity_shortcut(self) -> bool:
        """Whether a checkpoint against itself is exactly the null without measuring."""
        return not self.no_identity_shortcut

    def given(self) -> dict[str, Any]:
        """Options that are not at their defaults, by the names of their fields; checkpoints are no part of it."""
        every = {each.name: (option_of(each), getattr(self, each.name)) for each in fields(self)}
        return {name: value for name, (one, value) in every.items() if not one.short and value != one.default}

    def recorded(self) -> dict[str, Any]:
        """Those given that may change an estimate, as JSON data."""
        return {name: value for name, value in self.given().items() if OPTIONS[name].changes_numbers}

    def command(self, name: str) -> str:
        """The command that measures one row, or finding, again."""
        parts = ["pytest", "--base", self.base, *(word for _, spec in self.posts for word in ("--post", spec))]
        again = {name: value for name, value in self.given().items() if OPTIONS[name].again}
        return shlex.join([*parts, *words_of(again), "--mechdrift-only", name])


OPTIONS: dict[str, Option] = {each.name: option_of(each) for each in fields(Settings)}
"""By the names of their fields."""


def words_of(given: Mapping[str, Any]) -> list[str]:
    """Options as they are typed."""
    words = []
    for name, value in given.items():
        words += [flag_of(name)] if value is True else [flag_of(name), typed(value)]
    return words


def typed(value: Any) -> str:
    """An option's value on a command line."""
    if isinstance(value, tuple):
        return ",".join(value)
    return value if isinstance(value, str) else json.dumps(value)
