"""What this process has done so far, as its recorder counts it."""

import pytest

from mechdrift.engine.generate.classified import ClassifierJudge
from mechdrift.engine.generate.judged import EndpointJudge
from mechdrift.engine.generate.reply_judge import Agreement
from mechdrift.engine.stored_recordings import Recorder
from mechdrift.engine.work import NOTHING, Work

RECORDER = pytest.StashKey[Recorder]()
JUDGE = pytest.StashKey[ClassifierJudge | EndpointJudge]()


def work_done(config: pytest.Config) -> dict[str, int]:
    """Models loaded, prompts recorded, cache hits and misses."""
    recorder = config.stash.get(RECORDER, None)
    if recorder is None:
        return {"model_loads": 0, "recorded_prompts": 0, "cache_hits": 0, "cache_misses": 0}
    judge = config.stash.get(JUDGE, None)
    verdicts = {}
    if isinstance(judge, EndpointJudge):
        verdicts = {"verdicts_requested": judge.requested, "verdicts_remembered": judge.remembered}
    return {
        "model_loads": recorder.pool.loads,
        "recorded_prompts": recorder.recorded_prompts,
        "cache_hits": recorder.store.hits,
        "cache_misses": recorder.store.misses,
        **verdicts,
    }


def work_so_far(config: pytest.Config) -> tuple[int, Work]:
    """Models loaded, and work done."""
    recorder = config.stash.get(RECORDER, None)
    return (recorder.pool.loads, recorder.store.work) if recorder else (0, NOTHING)


def streams_found(config: pytest.Config) -> dict[str, str]:
    """By spec of each model that was loaded where its residual stream was found."""
    recorder = config.stash.get(RECORDER, None)
    return dict(recorder.pool.streams) if recorder else {}


def agreements_found(config: pytest.Config) -> dict[str, Agreement]:
    """By the replies that they are of: the user's judge with the shipped classifier."""
    judge = config.stash.get(JUDGE, None)
    return dict(judge.agreements) if judge else {}


def warnings_given(config: pytest.Config) -> list[str]:
    """What a reader of the numbers should know of how they were taken, and what went wrong with the store."""
    recorder = config.stash.get(RECORDER, None)
    return [*recorder.warnings, *recorder.store.warnings] if recorder else []
