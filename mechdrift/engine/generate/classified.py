"""Replies as a user's own text classifier labels them."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from mechdrift.checkpoints.classifier import ReplyClassifier
from mechdrift.device_names import MAP, TENSOR_PARALLEL
from mechdrift.engine.generate.reply_judge import Agreement, Exchange, JudgeFailed
from mechdrift.engine.stored_recordings import Recorder

BATCH, LONGEST = 32, 512  # replies at a time, and tokens of one: far more than a reply has


@dataclass(frozen=True)
class ClassifierJudge:
    """A ReplyJudge that sees replies alone."""

    classifier: ReplyClassifier
    recorder: Recorder
    """Whose device it runs on."""
    agreements: dict[str, Agreement] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """As the protocol says."""
        return self.classifier.key

    @property
    def provenance(self) -> list[str]:
        """As the protocol says."""
        return [self.classifier.digest, self.classifier.label]

    def refusals(self, exchanges: Sequence[Exchange]) -> list[bool | None]:
        """As the protocol says; it always can tell."""
        self.recorder.pool.free()  # never two models in memory
        return [*refusals(self.classifier, [one.reply for one in exchanges], self.recorder.pool.device)]


def refusals(classifier: ReplyClassifier, texts: Sequence[str], device: str) -> list[bool]:
    """Whether each text is a refusal: whether that label has the largest logit.

    Raises JudgeFailed where it cannot be loaded, or a logit is not finite.
    """
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    try:
        model = AutoModelForSequenceClassification.from_pretrained(
            classifier.folder, use_safetensors=True, local_files_only=True, trust_remote_code=False
        )
        tokenizer = AutoTokenizer.from_pretrained(classifier.folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        why = " ".join(str(error).split())[:200]
        raise JudgeFailed(f"{classifier.spec} does not load as a text classifier: {why}") from error
    model = model.eval().to("cuda" if device in (MAP, TENSOR_PARALLEL) else device)
    longest = min(LONGEST, tokenizer.model_max_length)
    step = BATCH if tokenizer.pad_token is not None else 1  # without such a token there is nothing to make lengths equal with
    found: list[bool] = []
    for at in range(0, len(texts), step):
        part = list(texts[at : at + step])
        given = tokenizer(part, padding=step > 1, truncation=True, max_length=longest, return_tensors="pt")
        with torch.inference_mode():
            logits = model(**given.to(model.device)).logits
        if not logits.isfinite().all():
            raise JudgeFailed(f"{classifier.spec} gives a logit that is not finite")
        found += (logits.argmax(-1) == classifier.index).tolist()
    return found
