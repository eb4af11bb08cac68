"""The record of a run: what was compared, how, and what came of it. Its JSON schema is generated from these types.

A field that is UNSET stands in no record: older ones do not say it. Minor versions add fields, major ones change them.
"""

from typing import Annotated, Any, Generic, Literal, TypeVar

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from mechdrift.verdict.fail_on import FAIL_ON, FailOn
from mechdrift.verdict.limits import Role
from mechdrift.verdict.row import ComparedRow, Names, Number, Row, StoredRow, Verdict, described

SCHEMA = "1.13"  # additions raise the minor number, anything else the major
RunVerdictName = Literal["held", "allowed", "ungated", "identical", "unmeasurable", "undecided", "drifted", "error"]
TierName = Annotated[str, Meta(pattern="^(smoke|commit|nightly)$")]
GeneratorName = Annotated[str, Meta(pattern="^(transformers|vllm)$")]
Digest = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
AnyRow = TypeVar("AnyRow", bound=ComparedRow)


class CheckpointIdentity(Struct, frozen=True, kw_only=True):
    """One checkpoint, by content."""

    spec: Annotated[str, described("as typed")]
    model_type: str
    layers: int
    width: int
    parameters: int
    digests: dict[str, Digest]
    source: Annotated[
        Literal["folder", "hub", "organism", "file", "adapter"] | UnsetType, described("what the spec was taken for; since 1.2")
    ] = UNSET
    commit: Annotated[
        Annotated[str, Meta(pattern="^[0-9a-f]{40}$")] | UnsetType | None,
        described("of a hub model: the commit that all files are of; since 1.2"),
    ] = UNSET
    pinned: Annotated[
        str | UnsetType, described("a spec of the same files tomorrow: a branch of the hub replaced by its commit; since 1.2")
    ] = UNSET
    quantised: Annotated[str | UnsetType, described("how its weights were rounded; empty where they are exact; since 1.2")] = (
        UNSET
    )


class NamedCheckpoint(CheckpointIdentity, frozen=True, kw_only=True):
    """A stage, or one of several posts."""

    name: str


class ConfigChange(Struct, frozen=True, kw_only=True):
    """A setting that is not the same in two checkpoints."""

    between: Names
    key: str
    base: Annotated[Any, described("JSON data; null where it is not set")]
    post: Annotated[Any, described("JSON data; null where it is not set")]


class Inputs(Struct, frozen=True, kw_only=True):
    """What was compared."""

    base: CheckpointIdentity
    post: CheckpointIdentity
    identical: Annotated[bool, described("same content")]
    same_files: Annotated[
        list[Annotated[list[str], Meta(min_length=2)]],
        described("names of checkpoints that have the same content, those of one content together; since 1.8"),
    ] = []
    stages: Annotated[
        list[NamedCheckpoint], described("checkpoints between base and post, in the order of training; since 1.2")
    ] = []
    posts: Annotated[
        list[NamedCheckpoint],
        described(
            "checkpoints that are each compared with base, where there is more than one: `post` is the first of them; since 1.5"
        ),
    ] = []
    config_changes: Annotated[
        list[ConfigChange],
        described(
            "settings of config.json, and the tokens that end a reply, that are not the same in two checkpoints that are compared"
        ),
    ] = []

    @property
    def ends(self) -> list[tuple[str, CheckpointIdentity]]:
        """Every post with its name."""
        named: list[tuple[str, CheckpointIdentity]] = [(one.name, one) for one in self.posts]
        return named or [("post", self.post)]


class Side(Struct, frozen=True, kw_only=True):
    """One side of the instructions; since 1.3."""

    file: Annotated[str, described("as given, or `shipped`")]
    column: str
    used: int
    left_out: Annotated[dict[str, int], described("rows by reason")]
    sha256: Annotated[str, described("of the texts, one a line")]


class TextsUsed(Struct, frozen=True, kw_only=True):
    """Texts on which confidence was measured."""

    file: Annotated[str, described("as given, or where the project's own are from")]
    used: int
    left_out: Annotated[dict[str, int], described("lines or rows by reason")]
    sha256: Annotated[str, described("of the texts, one a line")]


class FileUsed(Struct, frozen=True, kw_only=True):
    """A file of the user's; since 1.12."""

    file: Annotated[str, described("as given; of a data set of the hub with its commit")]
    used: Annotated[int, described("statements or pairs, of every split and before the tier draws")]
    left_out: Annotated[dict[str, int], described("rows by reason")]
    sha256: Annotated[str, described("of what is used, one a line")]


class RunSettings(Struct, frozen=True, kw_only=True):
    """How it was measured and judged."""

    profile: str
    gated_as_shipped: int
    dtype: str
    device: str
    batch_tokens: int
    seed: int
    statements: str
    identity_shortcut: bool
    tier: Annotated[TierName | UnsetType, described("how many items are used; since 1.5")] = UNSET
    fail_on: Annotated[
        list[FailOn],
        described("verdicts of gates that make the run fail; since 1.4"),
    ] = msgspec.field(default_factory=lambda: list(FAIL_ON))
    pairs: Annotated[str | UnsetType, described("file of the user's pairs, or `shipped`; since 1.3")] = UNSET
    statements_file: Annotated[FileUsed | UnsetType, described("the user's own statements; since 1.12")] = UNSET
    pairs_file: Annotated[FileUsed | UnsetType, described("the user's own pairs; since 1.12")] = UNSET
    harmful: Side | UnsetType = UNSET
    harmless: Side | UnsetType = UNSET
    reply_classifier: Annotated[
        dict[str, Any] | UnsetType | None,
        described("a text classifier that recognises refusals, with its label and digest; null: the shipped one does; since 1.4"),
    ] = UNSET
    judge: Annotated[
        dict[str, Any] | UnsetType | None,
        described(
            "the language model that decides which replies refuse, the digest of its question, of how many replies it was asked, "
            "of how many it cannot tell, and on how many of the others it and the shipped classifier differ, a share with its "
            "90% interval; null: a classifier does; since 1.13"
        ),
    ] = UNSET
    chat_templates: Annotated[
        dict[str, Any] | UnsetType | None,
        described("what every chat template is given, and the file that is used instead of them; null: neither; since 1.12"),
    ] = UNSET
    texts: Annotated[TextsUsed | UnsetType, described("on which confidence was measured; since 1.4")] = UNSET
    generator: Annotated[
        GeneratorName | UnsetType,
        described("what makes replies, for both checkpoints; since 1.3"),
    ] = UNSET
    vllm_args: Annotated[dict[str, Any] | UnsetType, described("further arguments of vllm.LLM; since 1.3")] = UNSET
    keep_replies: Annotated[bool | UnsetType, described("whether the text of replies is kept; since 1.3")] = UNSET
    hand_set: dict[str, Any] | UnsetType | None = UNSET
    options: Annotated[
        dict[str, Any] | UnsetType,
        described("options that may change a number and were not at their defaults, by name; since 1.9"),
    ] = UNSET


class Step(Struct, frozen=True, kw_only=True):
    """What one step of a chain did to a row."""

    between: Names
    estimate: Number
    low: Number
    high: Number
    verdict: Verdict


class Move(Struct, frozen=True, kw_only=True):
    """What the steps of a chain did to a row from base to post."""

    label: str
    role: Role
    verdict: Verdict
    steps: list[Step]
    sentence: Annotated[str | None, described("between which stages a gate that drifted from base to post did so")] = (
        msgspec.field(name="told")
    )


class StagePart(Struct, frozen=True, kw_only=True):
    """What one stage did to a row."""

    stage: Annotated[str, described("the checkpoint at its end")]
    without: Annotated[Number, described("the row from base to post without this stage")] = None
    difference: Annotated[Number, described("the row less `without`, in its unit")] = None
    low: Number = None
    high: Number = None
    how: Annotated[str | None, described("how the interval of the difference was found")] = None
    share: Annotated[Number, described("of the whole drift; none where the row's interval has no change in it")] = None
    reason: Annotated[str, described("why there is no number")] = ""


class Traced(Struct, frozen=True, kw_only=True):
    """A gate that drifted from base to post, by stage."""

    label: str
    estimator: Annotated[str, described("how post without a stage was made")]
    parts: list[StagePart]
    sentence: Annotated[str, described("in which stages it moved")] = msgspec.field(name="told")
    read: Annotated[str, described("how parts of this estimator are to be read; since 1.7")] = ""
    notes: Annotated[list[str], described("how far the replay of the stages' logs can be trusted; since 1.7")] = []


class RunOutcome(Struct, frozen=True, kw_only=True):
    """The verdict of a run, which only `held` passes without leave of the user; since 1.8."""

    verdict: Annotated[
        RunVerdictName,
        described(
            "allowed: gates that do not hold pass by a waiver or --mechdrift-fail-on; ungated: the profile has no gates; "
            "identical: base and post are the same files"
        ),
    ]
    message: Annotated[str, described("why, where the counts of the gates do not say it")]


class PhaseWork(Struct, frozen=True, kw_only=True):
    """Time, memory and work of one phase, of all workers."""

    seconds: float
    peak_gpu: Annotated[int | None, described("bytes; null where no GPU was used")]
    peak_rss: int
    model_loads: int
    prompts: int
    tokens: int
    head_tokens: int
    replies: int
    reply_tokens: int
    reply_steps: int
    matrix_cubes: int
    bytes: int


class RunWork(Struct, frozen=True, kw_only=True):
    """Times, and work done; the only part that differs between equal runs."""

    started: float
    seconds: float
    work: dict[str, int]
    nonce: Annotated[
        str | None,
        described("MECHDRIFT_NONCE of the environment, by which whoever started the run knows its record again; since 1.8"),
    ] = None
    phases: Annotated[
        dict[str, PhaseWork],
        described(
            "by family of findings, and `start`; seconds and amounts of all workers added up, peaks of the largest; since 1.5"
        ),
    ] = {}
    warnings: Annotated[
        list[str],
        described("what a reader of the numbers should know, for example that a batch did not fit; since 1.2"),
    ] = []
    streams: Annotated[
        dict[str, str],
        described(
            "by spec of each model that this run loaded where its residual stream was found: blocks, norm, and what writes; "
            "without those that were read from the cache alone; since 1.11"
        ),
    ] = {}


class RecordOf(Struct, Generic[AnyRow], frozen=True, kw_only=True):
    """One comparing run. Everything but `run` is a function of the inputs."""

    schema: Annotated[str, Meta(pattern="^1\\.[0-9]+$")]
    inputs: Inputs
    settings: RunSettings
    environment: Annotated[dict[str, str], described("package versions")]
    rows: list[AnyRow]
    chain: Annotated[
        list[Move],
        described("of each row from base to post what the steps of the chain did to it; empty without stages; since 1.5"),
    ] = []
    lineage: Annotated[
        list[Traced],
        described(
            "of each gate that drifted from base to post what each stage did to it; empty without --mechdrift-lineage; since 1.6"
        ),
    ] = []
    not_selected: Annotated[list[str], described("registered findings that this run did not select")]
    exit_code: int
    outcome: RunOutcome | UnsetType = UNSET
    extra: Annotated[dict[str, Any], described("from pytest_mechdrift_record hooks")] = msgspec.field(default_factory=dict)
    run: RunWork


Record = RecordOf[Row]
"""As a run has it."""
StoredRecord = RecordOf[StoredRow]
"""As its JSON has it; items and maps lie beside."""
