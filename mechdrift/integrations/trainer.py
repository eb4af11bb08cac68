"""A gate on a training run: a callback of transformers' Trainer, and so of TRL's."""

import json
import logging
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import transformers
from accelerate.utils import broadcast_object_list
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from mechdrift.errors import InputError
from mechdrift.files import write_whole
from mechdrift.integrations.beside import ERROR, Beside, Outcome, gates_collected, outcome_of
from mechdrift.session.many_runs import Run

if TYPE_CHECKING:
    from transformers import Trainer, TrainerControl, TrainerState, TrainingArguments

POLICIES = ("mark", "warn", "stop")  # the strictest last
SAYS_NOTHING = ("ungated", "identical")
MARK = "mechdrift-verdict.json"
POLL = 10.0  # seconds: between two signs of life, far below the time after which processes that wait for one give up

Read = TypeVar("Read")

log = logging.getLogger("mechdrift")


class TrainerCallback(transformers.TrainerCallback):  # type: ignore[misc]  # transformers is not followed
    """Compares checkpoints of a training run with its start while it trains, logs the rows, and marks, warns or stops.

    `trainer.add_callback(TrainerCallback(trainer, every=200, only=["refusal"]))`. See docs/training.md.
    """

    def __init__(
        self,
        trainer: "Trainer",
        *,
        every: int | None = None,
        on_drift: str = "stop",
        on_undecided: str = "mark",
        on_unmeasurable: str = "warn",
        on_error: str = "warn",
        base: str | None = None,
        only: Sequence[str] = (),
        profile: str | None = None,
        tier: str | None = None,
        device: str = "cpu",
        options: Sequence[str] = (),
        folder: str | Path | None = None,
        timeout: float = 3600.0,
    ) -> None:
        """Raises InputError for a value that is none; what pytest would refuse is refused when training begins.

        trainer: whose `log` hands numbers to all trackers of `report_to`. every: saves and measures a checkpoint after so many
        steps, and the last one; None: measures those that the trainer saves. on_drift, on_undecided, on_unmeasurable, on_error:
        `mark` writes the verdict into each checkpoint, `warn` warns of it too, `stop` ends the training too; of several verdicts
        that make one run fail the strictest. A run that gates or compares nothing is warned of in any case. base: spec of what
        is compared with; None: the model as training begins. only, profile, tier, device: as the options of pytest; the CPU
        unless told, for the model in training fills its GPU. options: further arguments of pytest, suites among them. folder:
        of start and records; None: `mechdrift` in the trainer's output folder. timeout: of one run, in seconds.
        """
        policies = {"drift": on_drift, "undecided": on_undecided, "unmeasurable": on_unmeasurable, "error": on_error}
        for name, policy in policies.items():
            if policy not in POLICIES:
                raise InputError(f"on_{name}={policy!r}", f"one of {', '.join(POLICIES)}", "see docs/training.md")
        if every is not None and every < 1:
            raise InputError(f"every={every}", "a number of steps, 1 or more, or None", "leave it out for every save")
        if timeout <= 0:
            raise InputError(f"timeout={timeout}", "seconds, more than 0", "give the longest that a run may take")
        named = {"--mechdrift-profile": profile, "--mechdrift-tier": tier, "--mechdrift-device": device}
        self._options = (
            *(word for name in only for word in ("--mechdrift-only", name)),
            *(word for name, value in named.items() if value is not None for word in (name, value)),
            *options,
        )
        self._trainer, self._every, self._base, self._timeout = trainer, every, base, timeout
        self._policies = {"drifted": policies.pop("drift"), **policies}
        self._folder = Path(folder if folder is not None else Path(trainer.args.output_dir) / "mechdrift").absolute()
        self.outcomes: list[Outcome] = []
        """What was reported on each checkpoint so far; the same in all processes."""

    @property
    def _records(self) -> Path:
        return self._folder / "records"

    def on_train_begin(self, args: "TrainingArguments", state: "TrainerState", control: "TrainerControl", **given: Any) -> None:
        """Save the start, and try the options on it, so that a slip shows now and not at the first checkpoint.

        Raises InputError, in all processes.
        """
        self.outcomes.clear()
        message = [self._in_the_way(state.global_step) if state.is_world_process_zero else None]
        broadcast_object_list(message)
        if message[0]:
            raise InputError(*message[0])
        start = self._folder / "start"
        if self._base is None and state.global_step == 0:
            if state.is_world_process_zero:
                shutil.rmtree(start, ignore_errors=True)
            self._trainer.save_model(str(start))  # in all processes: it gathers what is spread over them
        post = self._base or start
        refused, gates = self._watched("options", post, state, _collected, "--collect-only")
        if refused:
            raise InputError(refused, "options that pytest takes", "fix them")
        if state.is_world_process_zero:
            if not gates:
                log.warning("mechdrift: nothing is gated: no checkpoint will be held, none can drift")
            if self._every is None and args.save_strategy == "no":
                log.warning("mechdrift: no checkpoint will be measured: the trainer saves none; give every=STEPS")

    def on_step_end(self, args: "TrainingArguments", state: "TrainerState", control: "TrainerControl", **given: Any) -> None:
        """Have the trainer save what is to be measured."""
        if self._every and self._is_due(state):
            control.should_save = True

    def on_save(self, args: "TrainingArguments", state: "TrainerState", control: "TrainerControl", **given: Any) -> None:
        """Measure what was saved, log it, and do what the policy says."""
        if not self._is_due(state) or (self.outcomes and self.outcomes[-1].step == state.global_step):
            return
        checkpoint = Path(args.output_dir) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"
        outcome = self._watched(f"step-{state.global_step:08}", checkpoint, state, outcome_of)
        self.outcomes.append(outcome)
        if state.is_world_process_zero:
            mark = {name: value for name, value in asdict(outcome).items() if name != "numbers"}
            write_whole(checkpoint / MARK, (json.dumps(mark, indent=1) + "\n").encode())
            if self._policy(outcome) != "mark":
                log.warning("mechdrift: step %d: %s", outcome.step, outcome.message)
        self._trainer.log(dict(outcome.numbers))
        if self._policy(outcome) == "stop":
            control.should_training_stop = True

    def on_train_end(self, args: "TrainingArguments", state: "TrainerState", control: "TrainerControl", **given: Any) -> None:
        """Say it where a training ends of which no checkpoint was held: that looks as fine training does."""
        if state.is_world_process_zero and not any(outcome.verdict in ("held", "drifted") for outcome in self.outcomes):
            found = ", ".join(sorted({outcome.verdict for outcome in self.outcomes})) or "none measured"
            log.warning("mechdrift: no checkpoint of this training was held or drifted: %s", found)

    def _policy(self, outcome: Outcome) -> str:
        """What is to be done: the strictest for the verdicts by which a run failed; `warn` where it gated nothing."""
        if outcome.verdict == ERROR:
            return self._policies[ERROR]
        if outcome.verdict in SAYS_NOTHING:
            return "warn"
        requested = [self._policies[name] for name in outcome.failing if name in self._policies]
        return max(requested, key=POLICIES.index, default="mark")

    def _is_due(self, state: "TrainerState") -> bool:
        return not self._every or state.global_step % self._every == 0 or state.global_step >= state.max_steps

    def _in_the_way(self, step: int) -> tuple[str, str, str] | None:
        """What an InputError would say: found, expected, what to do."""
        start = self._folder / "start"
        if self._base is None and step > 0 and not start.is_dir():
            return f"a run that goes on at step {step}, and no {start}", "the start that it had", "give base="
        if step == 0 and (left := sorted(self._records.glob("*.json"))):
            return f"{left[0]}: of an earlier run", "no records before the first step", "move them, or give folder="
        return None

    def _watched(self, name: str, post: str | Path, state: "TrainerState", read: Callable[[Beside], Read], *more: str) -> Read:
        """What is read of a run that has ended, in all processes.

        The main one runs it. The others wait for its result, a short wait at a time, so that no collective times out.
        """
        beside = None
        if state.is_world_process_zero:
            self._records.mkdir(parents=True, exist_ok=True)
            base = self._base or self._folder / "start"
            run = Run(name, _spec(base), _spec(post), (*self._options, *more))
            beside = Beside(run, state.global_step, self._records, self._timeout)
        try:
            while True:
                summary = [(read(beside),) if beside and beside.has_ended(POLL) else None]
                broadcast_object_list(summary)
                if summary[0] is not None:
                    return summary[0][0]
        finally:
            if beside:
                beside.end()


def _spec(written: str | Path) -> str:
    """A spec as it is given; a folder that a trainer wrote: a checkpoint, or an adapter on the model that it names."""
    if isinstance(written, str) or not (adapter := written / "adapter_config.json").is_file():
        return str(written)
    return f"{json.loads(adapter.read_bytes())['base_model_name_or_path']}+{written}"


def _collected(beside: Beside) -> tuple[str, int]:
    """Why pytest refuses the options, and how many gates it found."""
    return (beside.why() if beside.code != 0 else ""), gates_collected(beside)
