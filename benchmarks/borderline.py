"""How well words alone tell the two sides of the borderline pairs apart: `python benchmarks/borderline.py` prints a table.

A logistic regression on which words (or words and neighbouring pairs of them) a request has, in 5 folds that keep the two
requests of a pair together. 0.5: words tell nothing. Sides drawn at random within every pair show what chance gives.
"""

import re
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit
from scipy.stats import rankdata

from mechdrift.prompts.borderline import shipped_borderline
from mechdrift.prompts.instructions import shipped_instructions

FOLDS = 5
DRAWS = 10  # of folds
RANDOM_SIDES = 200
PENALTY = 1.0  # half the squared norm of the weights, beside the summed loss
WORD = re.compile(r"[a-z0-9'-]+")


def words(text: str) -> list[str]:
    """A request's words in lower case, without its punctuation."""
    return WORD.findall(text.lower())


def presence(texts: Sequence[str], pairs_of_words: bool = False) -> np.ndarray:
    """Which words each text has: [text, word] of 0 and 1, and with pairs_of_words which neighbouring ones too."""
    found = []
    for text in texts:
        single = words(text)
        found.append({*single, *(" ".join(two) for two in pairwise(single) if pairs_of_words)})
    column = {word: place for place, word in enumerate(sorted(set().union(*found)))}
    table = np.zeros((len(texts), len(column)))
    for row, there in enumerate(found):
        table[row, [column[word] for word in there]] = 1
    return table


def fit(table: np.ndarray, harmful: np.ndarray) -> np.ndarray:
    """Weights of a logistic regression; its intercept moves every score alike, so it is left at 0."""
    sign = np.where(harmful, 1.0, -1.0)

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        margin = sign * (table @ weights)
        slope = PENALTY * weights - table.T @ (sign * expit(-margin))
        return float(np.logaddexp(0, -margin).sum() + PENALTY * weights @ weights / 2), slope

    return minimize(loss, np.zeros(table.shape[1]), jac=True, method="L-BFGS-B").x


def held_out(table: np.ndarray, harmful: np.ndarray, seed: int) -> float:
    """The AUC of held-out scores, rows 2i and 2i + 1 being one pair and in one fold.

    Scores of different folds are ranked together.
    """
    pairs = len(harmful) // 2
    fold = np.repeat(np.random.default_rng(seed).permutation(pairs) % FOLDS, 2)
    scores = np.zeros(len(harmful))
    for left_out in range(FOLDS):
        test = fold == left_out
        scores[test] = table[test] @ fit(table[~test], harmful[~test])
    return (rankdata(scores)[harmful].mean() - (pairs + 1) / 2) / pairs


def auc(texts: Sequence[str], pairs_of_words: bool = False) -> float:
    """How well words tell the sides apart, of harmless and harmful texts by turns.

    The mean AUC over draws of folds, 0 to 1, 0.5 being chance.
    """
    table, harmful = presence(texts, pairs_of_words), np.arange(len(texts)) % 2 == 1
    return float(np.mean([held_out(table, harmful, seed) for seed in range(DRAWS)]))


def by_chance(texts: Sequence[str], pairs_of_words: bool = False) -> tuple[float, float]:
    """Between which values 95% of the AUCs lie when the sides of every pair are drawn at random."""
    table = presence(texts, pairs_of_words)
    rng = np.random.default_rng(0)
    found = []
    for seed in range(RANDOM_SIDES):
        first = rng.integers(0, 2, len(table) // 2).astype(bool)
        found.append(held_out(table, np.stack([first, ~first], axis=1).ravel(), seed))
    low, high = np.quantile(found, [0.025, 0.975])
    return float(low), float(high)


def borderline_texts() -> list[str]:
    """The harmless and harmful requests of the borderline pairs, by turns."""
    return [text for one in shipped_borderline() for text in (one.harmless, one.harmful)]


def instruction_texts() -> list[str]:
    """The harmless and harmful shipped instructions, by turns: pairs of one form about different topics."""
    pairs: dict[str, dict[bool, str]] = {}
    for one in shipped_instructions():
        pairs.setdefault(one.pair, {})[one.harmful] = one.text
    return [pair[harmful] for pair in pairs.values() for harmful in (False, True)]


def main() -> None:
    """Print the table."""
    print("| requests | what is known of each | AUC | sides at random, 95% |")
    print("|---|---|---|---|")
    for name, texts in (("borderline", borderline_texts()), ("instructions", instruction_texts())):
        for what, pairs_of_words in (("its words", False), ("its words and neighbouring pairs of them", True)):
            low, high = by_chance(texts, pairs_of_words)
            print(f"| {name} | {what} | {auc(texts, pairs_of_words):.3f} | {low:.2f} to {high:.2f} |")


if __name__ == "__main__":
    main()
