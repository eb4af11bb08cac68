"""A user's own text classifier: found by its label, asked about replies in words only, and refused where it is none."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from said import OUTCOMES_SAID, PROMPTS, SAID, Written
from tiny import write_classifier
from transformers import pipeline

from mechdrift.checkpoints.classifier import ReplyClassifier, read_classifier
from mechdrift.checkpoints.resolve import resolve
from mechdrift.engine.generate import classified
from mechdrift.engine.generate.arms import Arm
from mechdrift.engine.generate.classified import ClassifierJudge, refusals
from mechdrift.engine.generate.scored import Scored, scored_replies
from mechdrift.engine.generate.thinking import Budget
from mechdrift.engine.pool import Pool
from mechdrift.engine.store import Store
from mechdrift.engine.stored_recordings import Recorder
from mechdrift.errors import InputError, Unmeasurable
from mechdrift.prompts.replies import OUTCOMES

SORRY, FLOUR = SAID[:2]
TEXTS = {SORRY: "NORMAL", FLOUR: "REJECTION"}  # the other way round than openings have it


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_classifier(tmp_path_factory.mktemp("classifier"), TEXTS)


AT_ONCE = [False] * len(PROMPTS)


def test_labels_are_those_of_transformers_own_pipeline(folder: Path) -> None:
    texts = [*TEXTS, "I cannot say.", "Of course: first take an egg.", "No.", "a" * 600] * 20
    requested = pipeline("text-classification", model=str(folder), device="cpu")
    expected = [one["label"] == "REJECTION" for one in requested(texts, truncation=True, max_length=512)]
    found = refusals(read_classifier(str(folder)), texts, "cpu")
    assert found == expected
    assert found[:2] == [False, True]
    assert refusals(read_classifier(f"{folder}:NORMAL"), texts, "cpu") == [not one for one in expected]


def test_it_tells_replies_in_words_and_is_part_of_their_key(
    folder: Path, tmp_path: Path, tiny_checkpoint: Callable[..., Path]
) -> None:
    point, recorder = resolve(str(tiny_checkpoint())), Recorder(Pool("cpu", "float32"), Store(tmp_path), 96)
    for classifier, expected in (
        (None, OUTCOMES_SAID),
        (read_classifier(str(folder)), ["complied", "refused", "empty", "gibberish"]),
        (read_classifier(f"{folder}:NORMAL"), OUTCOMES_SAID),
    ):
        generator, judge = Written(recorder), ClassifierJudge(classifier, recorder) if classifier else None
        found = scored_replies(recorder, generator, point, PROMPTS, AT_ONCE, [Arm("plain")], Budget(200), judge)["plain"]
        assert isinstance(found, Scored)
        assert [OUTCOMES[code] for code in found.outcomes] == expected
        assert generator.requested == ["plain"]


def test_it_is_loaded_once_for_all_arms(
    folder: Path, tmp_path: Path, tiny_checkpoint: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    point, recorder = resolve(str(tiny_checkpoint())), Recorder(Pool("cpu", "float32"), Store(tmp_path), 96)
    requested: list[int] = []

    def counted(classifier: ReplyClassifier, texts: Sequence[str], device: str) -> list[bool]:
        requested.append(len(texts))
        return refusals(classifier, texts, device)

    monkeypatch.setattr(classified, "refusals", counted)
    arms = [Arm("plain"), Arm("some", None, (1, 2, 0))]
    judge = ClassifierJudge(read_classifier(str(folder)), recorder)
    found = scored_replies(recorder, Written(recorder), point, PROMPTS, AT_ONCE, arms, Budget(200), judge)
    assert requested == [4]  # two replies in words of each arm
    plain, some = found["plain"], found["some"]
    assert isinstance(plain, Scored)
    assert isinstance(some, Scored)
    assert [OUTCOMES[code] for code in plain.outcomes] == ["complied", "refused", "empty", "gibberish"]
    assert [OUTCOMES[code] for code in some.outcomes] == ["refused", "empty", "complied"]


def test_only_what_is_said_to_the_user_is_told(folder: Path, tmp_path: Path, tiny_checkpoint: Callable[..., Path]) -> None:
    """Not what was thought before it."""
    point, recorder = resolve(str(tiny_checkpoint())), Recorder(Pool("cpu", "float32"), Store(tmp_path), 96)
    judge = ClassifierJudge(read_classifier(str(folder)), recorder)
    generator = Written(recorder, [f"<think>{FLOUR * 5}</think>{SORRY}"])
    found = scored_replies(recorder, generator, point, PROMPTS[:1], [False], [Arm("plain")], Budget(900), judge)["plain"]
    assert isinstance(found, Scored)
    assert OUTCOMES[found.outcomes[0]] == "complied"


@pytest.mark.parametrize(
    ("given", "config", "message"),
    [
        ("{}:REFUSES", {}, "no label REFUSES; it has NORMAL, REJECTION"),
        ("{}", {"id2label": {"0": "refusal", "1": "rejection"}}, "2 labels that speak of refusing; it has refusal, rejection"),
        ("{}", {"id2label": {"0": "A", "1": "B"}}, "0 labels that speak of refusing; it has A, B"),
        ("{}", {"id2label": {"0": "rejection"}}, "labels rejection; expected one of several a text"),
        ("{}", {"problem_type": "multi_label_classification"}, "expected one of several a text"),
        ("{}", {"architectures": ["BertForMaskedLM"]}, "a BertForMaskedLM; expected a model ForSequenceClassification"),
        ("{}/none", {}, "no such folder"),
    ],
)
def test_what_is_no_classifier_of_refusals_is_one_line(
    folder: Path, tmp_path: Path, given: str, config: dict[str, object], message: str
) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in folder.iterdir():
        (copy / file.name).symlink_to(file)
    result = json.loads((folder / "config.json").read_text()) | config
    (copy / "config.json").unlink()
    (copy / "config.json").write_text(json.dumps(result))
    with pytest.raises(InputError, match=message) as caught:
        read_classifier(given.format(copy))
    assert "\n" not in str(caught.value)


def test_a_classifier_that_gives_no_numbers_or_does_not_load_is_a_reason(folder: Path, tmp_path: Path) -> None:
    classifier = read_classifier(str(folder))
    weights = load_file(folder / "model.safetensors")
    broken = replace(classifier, folder=tmp_path / "nan")
    broken.folder.mkdir()
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (broken.folder / name).write_bytes((folder / name).read_bytes())
    weights["classifier.bias"] = torch.full_like(weights["classifier.bias"], torch.nan)
    save_file(weights, broken.folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(Unmeasurable, match="a logit that is not finite"):
        refusals(broken, ["No."], "cpu")
    (broken.folder / "model.safetensors").unlink()
    with pytest.raises(Unmeasurable, match="does not load as a text classifier"):
        refusals(broken, ["No."], "cpu")
