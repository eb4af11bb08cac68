"""A user's own text classifier, which recognises replies that refuse."""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mechdrift.checkpoints.claims import refuse_impossible_sizes
from mechdrift.checkpoints.hub import Hub
from mechdrift.checkpoints.identity import digest_files, joined
from mechdrift.checkpoints.parts import part_files
from mechdrift.checkpoints.quantised import method_of
from mechdrift.checkpoints.reference import Files, locate
from mechdrift.checkpoints.stored import stored_in
from mechdrift.checkpoints.tokenizer_check import check_tokenizer
from mechdrift.checkpoints.whole import check_whole
from mechdrift.errors import InputError

HEAD = "ForSequenceClassification"
REFUSES = re.compile("refus|reject", re.IGNORECASE)
OPTION = "--mechdrift-reply-classifier"


@dataclass(frozen=True)
class ReplyClassifier:
    """A sequence classifier of transformers, found and checked but not loaded."""

    spec: str
    """The folder, or `org/name@COMMIT`."""
    folder: Path
    """Where its files are."""
    label: str
    """Its name for refusals."""
    index: int
    """That label's place among its logits."""
    digest: str
    """sha256 over its weights, config and tokenizer."""

    def to_dict(self) -> dict[str, Any]:
        """As the record has it."""
        return {"spec": self.spec, "label": self.label, "sha256": self.digest}

    @property
    def key(self) -> str:
        """As it stands in a row's key, wherever it lies: `REJECTION of sha256 0123456789ab`."""
        return f"{self.label} of sha256 {self.digest[:12]}"

    def __str__(self) -> str:
        """For a run's header: `org/name, REJECTION of sha256 0123456789ab`."""
        return f"{self.spec}, {self.key}"


def read_classifier(given: str) -> ReplyClassifier:
    """The classifier of `SPEC` or `SPEC:LABEL`; without a label, the one of its labels that speaks of refusing or rejecting.

    Safetensors only, no code of its own. Raises InputError where it is none, or has not just one such label.
    """
    spec, _, label = given.rpartition(":") if ":" in given else (given, "", "")
    files = locate(spec, Hub())
    refuse_impossible_sizes(spec, files.config, files.weights)
    heads = files.config.get("architectures") or ["nothing"]
    if not str(heads[0]).endswith(HEAD):
        raise InputError(f"{OPTION} {spec}: a {heads[0]}", f"a model {HEAD}", "name a text classifier")
    named = files.config.get("id2label")
    labels = {str(name): int(place) for place, name in named.items()} if isinstance(named, dict) else {}
    if len(labels) < 2 or files.config.get("problem_type") not in (None, "single_label_classification"):
        raise InputError(f"{OPTION} {spec}: labels {', '.join(labels) or 'none'}", "one of several a text", "name another")
    fitting = [name for name in labels if (name == label if label else REFUSES.search(name))]
    if len(fitting) != 1:
        found = f"no label {label}" if label else f"{len(fitting)} labels that speak of refusing"
        raise InputError(
            f"{OPTION} {spec}: {found}; it has {', '.join(labels)}", "its name for refusals", f"type {OPTION} {spec}:LABEL"
        )
    _check_whole(spec, files)
    digests = [(part, digest_files(spec, files.folder, paths)) for part, paths in part_files(files.folder).items()]
    for path in files.weights:
        with path.open("rb") as handle:
            digests.append((path.name, hashlib.file_digest(handle, "sha256").hexdigest()))
    digest = joined(digests)
    check_tokenizer(f"{OPTION} {spec}", files.folder, digest)
    return ReplyClassifier(files.place.pinned, files.folder, fitting[0], labels[fitting[0]], digest)


def _check_whole(spec: str, files: Files) -> None:
    """Raise InputError where a tensor of the classifier is missing: transformers would draw a head at random."""
    from transformers import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING, AutoConfig

    try:
        config = AutoConfig.from_pretrained(files.folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # each family's class does its own arithmetic with what a stranger wrote
        why = " ".join(str(error).split())[:200]
        raise InputError(f"{OPTION} {spec}: its config does not load ({why})", "a text classifier", "check it") from error
    if not method_of(files.config):
        check_whole(f"{OPTION} {spec}", stored_in(files.weights), config, MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING)
