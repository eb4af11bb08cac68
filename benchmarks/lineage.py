"""How well a stage's effect is estimated without training again: estimators against runs in which each stage was left out.

organism:base is trained in three short stages, by the organisms' own loss: a new optimizer each stage, clipped gradients.
For each stage: exact is the difference to a run without it. Items are judged statements, the metric their gap between TRUE and
FALSE. r is over items, one a seed. The last column is over seeds: Fisher's z of r less that of the task vector's, with the
interval of its mean (t); r itself is too skewed near 1 for one.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from scipy import stats

from mechdrift.checkpoints.resolve import resolve
from mechdrift.checkpoints.tokenizer import load_tokenizer
from mechdrift.organisms.recipe.corpus import World
from mechdrift.organisms.recipe.families import QWEN, SEED
from mechdrift.organisms.recipe.train import BETAS, WEIGHT_DECAY, Batches, Stage
from mechdrift.prompts.judgement import judgement_prompts
from mechdrift.prompts.statements import shipped_statements
from mechdrift.session.many_runs import Run, records
from mechdrift.stages.embedding import (
    SGD,
    AdamW,
    Optimizer,
    State,
    Tensors,
    carried,
    difference,
    first_order_gap,
    fresh,
    last,
    linear,
    nonlinear,
    trained,
)

DIETS = {
    "judging": {"judging": 0.7, "telling": 0.3},
    "conversing": {"conversing": 1.0},
    "requesting": {"requesting": 0.6, "telling": 0.4},
}
CLIP = 1.0
KINDS = ("animal_classes", "element_symbols", "spanish_words")
ESTIMATORS = ("propagated, non-linear", "propagated, linear", "task vector, non-linear", "task vector, linear")
OPTIMIZERS: dict[str, tuple[Optimizer, float]] = {
    "adamw": (AdamW(betas=BETAS, weight_decay=WEIGHT_DECAY), 1e-4),
    "sgd": (SGD(momentum=0.9, weight_decay=WEIGHT_DECAY), 5e-3),
}
Metric = Callable[[Tensors], torch.Tensor]


@dataclass
class Bench:
    """One model, and what it is asked."""

    model: Any
    tokenizer: Any
    optimizer: Optimizer
    rate: float
    steps: int

    @classmethod
    def of(cls, optimizer: str, steps: int, rate: float | None) -> "Bench":
        """organism:base. Attention is written out: fused kernels have no derivative forward."""
        from transformers import AutoModelForCausalLM

        point = resolve("organism:base")
        model = AutoModelForCausalLM.from_pretrained(point.folder, attn_implementation="eager", dtype=torch.float32)
        model.eval().requires_grad_(False)
        rule, usual = OPTIMIZERS[optimizer]
        return cls(model, load_tokenizer(point), rule, rate or usual, steps)

    def run(self, name: str, seed: int) -> list[tuple[Any, float, int]]:
        """The steps of a stage: batches, rates warming up and falling, numbers."""
        stage = Stage(name, self.steps, self.rate, 2, DIETS[name])
        batches = Batches(World(SEED, QWEN.kinds), self.tokenizer, stage, seed)
        shares = [min(number / 3, 1.0) * (1 - number / (2 * self.steps)) for number in range(1, self.steps + 1)]
        return [(next(batches)[:2], self.rate * share, number) for number, share in enumerate(shares, 1)]

    def loss(self, parameters: Tensors, batch: Any) -> torch.Tensor:
        """As the organisms' own loop takes it."""
        ids, weights = batch
        logits = self.logits(parameters, ids[:, :-1])
        each = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
        weight = weights[:, 1:].flatten()
        return (each * weight).sum() / weight.sum()

    def logits(self, parameters: Tensors, ids: torch.Tensor, **more: Any) -> torch.Tensor:
        """Of every token."""
        found: torch.Tensor = torch.func.functional_call(self.model, parameters, (ids,), {"use_cache": False, **more}).logits
        return found

    def metric(self, seed: int, count: int) -> Metric:
        """Gaps of so many judged statements of the test split, [statement]."""
        statements = [one for one in shipped_statements(seed) if not one.negated and one.kind in KINDS]
        prompts = judgement_prompts(statements, seed, "test")
        texts = list(prompts.values())
        ids = [self.tokenizer(texts[place])["input_ids"] for place in np.random.default_rng(seed).permutation(len(texts))[:count]]
        answers = [self.tokenizer(f" {word}", add_special_tokens=False)["input_ids"][0] for word in ("TRUE", "FALSE")]

        def gaps(parameters: Tensors) -> torch.Tensor:
            lasts = [self.logits(parameters, torch.tensor([one]), logits_to_keep=1)[0, -1] for one in ids]
            return torch.stack([last[answers[0]] - last[answers[1]] for last in lasts])

        return gaps


@dataclass
class Attribution:
    """What one seed says of one stage."""

    exact: np.ndarray
    estimates: dict[str, np.ndarray]
    gap: float
    """Of first order, over the first steps after the stage; NaN after the last."""


def of_seed(bench: Bench, seed: int, count: int, costs: dict[str, list[float]]) -> dict[str, Attribution]:
    """Train, leave each stage out, and estimate."""
    parameters = {name: value.detach() for name, value in bench.model.named_parameters()}
    runs = {name: bench.run(name, seed) for name in DIETS}
    names = list(DIETS)

    def train(start: Tensors, stages: list[str]) -> list[Tensors]:
        ends = [start]
        for name in stages:
            began = time.perf_counter()
            state = trained(bench.optimizer, bench.loss, fresh(bench.optimizer, ends[-1]), runs[name], CLIP)
            costs["a step of training"].append((time.perf_counter() - began) / bench.steps)
            ends.append(state["parameters"])
        return ends

    ends = train(parameters, names)
    metric = bench.metric(seed, count)
    summary = {}
    for place, name in enumerate(names):
        later = names[place + 1 :]
        without = train(ends[place], later)[-1]
        moved = difference({"parameters": ends[place + 1]}, {"parameters": ends[place]})["parameters"]
        embedding, gap = moved, float("nan")
        for number, stage in enumerate(later):
            state = fresh(bench.optimizer, ends[place + 1 + number])
            displaced: State = fresh(bench.optimizer, embedding)  # nothing kept: a new optimizer has nothing displaced
            if number == 0:
                gap = first_order_gap(bench.optimizer, bench.loss, state, displaced, runs[stage][:3], CLIP)
            began = time.perf_counter()
            _, tangent = last(carried(bench.optimizer, bench.loss, state, displaced, runs[stage], CLIP))
            costs["a step of training with its tangent"].append((time.perf_counter() - began) / bench.steps)
            embedding = tangent["parameters"]
        with torch.no_grad():
            exact = (metric(ends[-1]) - metric(without)).numpy()
            estimates = {
                ESTIMATORS[0]: nonlinear(metric, ends[-1], embedding),
                ESTIMATORS[2]: nonlinear(metric, ends[-1], moved),
            }
        estimates[ESTIMATORS[1]] = linear(metric, ends[-1], embedding)
        estimates[ESTIMATORS[3]] = linear(metric, ends[-1], moved)
        summary[name] = Attribution(exact, {key: value.numpy() for key, value in estimates.items()}, gap)
    return summary


def main() -> None:
    """Print the table of each optimizer."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--optimizer", choices=OPTIMIZERS, default="sgd", help="default: %(default)s")
    parser.add_argument("--rate", type=float, help="largest learning rate; default: the optimizer's own")
    parser.add_argument("--seeds", type=int, default=8, help="default: %(default)s")
    parser.add_argument("--steps", type=int, default=12, help="of each stage; default: %(default)s")
    parser.add_argument("--statements", type=int, default=60, help="default: %(default)s")
    parser.add_argument("--out", type=Path, help="also keep all numbers, .npz")
    parser.add_argument("--read", type=Path, help="print the table of numbers that --out kept, and measure nothing")
    parser.add_argument("--cost", action="store_true", help="time --mechdrift-lineage, and nothing else: four runs of all rows")
    options = parser.parse_args()
    if options.cost:
        print_cost()
        return
    if options.read:
        print_table(kept(options.read), options.optimizer)
        return
    bench = Bench.of(options.optimizer, options.steps, options.rate)
    costs: dict[str, list[float]] = {"a step of training": [], "a step of training with its tangent": []}
    found = []
    for seed in range(options.seeds):
        found.append(of_seed(bench, seed, options.statements, costs))
        print(f"seed {seed} of {options.seeds}", flush=True)
    if options.out:
        keep(found, options.out)
    print_table(found, options.optimizer)
    one, both = (float(np.median(each)) for each in costs.values())
    print(f"\na step with its tangent takes {both / one:.1f} times a step of training")


def print_cost() -> None:
    """What --mechdrift-lineage adds for a stage, against what one more checkpoint adds; each run with an empty cache."""
    stage, further = ("--stage", "sft=organism:sft"), ("--post", "sft=organism:sft")
    seconds = {}
    with TemporaryDirectory() as folder:
        for name, more in {
            "one post": (),
            "two posts": further,
            "chain": stage,
            "chain with lineage": (*stage, "--mechdrift-lineage"),
        }.items():
            run = Run(name.replace(" ", "-"), "organism:base", "organism:instruct", (*more, "--mechdrift-cache", "off"))
            (record,) = records([run], Path(folder))
            seconds[name] = record.run.seconds
            print(f"{name}: {seconds[name]:.0f} s", flush=True)
    part = seconds["chain with lineage"] - seconds["chain"]
    one_more = seconds["two posts"] - seconds["one post"]
    print(f"one more stage's part: {part:.0f} s, {part / one_more:.2f} times one more checkpoint")


def keep(found: list[dict[str, Attribution]], path: Path) -> None:
    """All numbers of every seed and stage."""
    numbers: dict[str, Any] = {}
    for seed, by_stage in enumerate(found):
        for stage, one in by_stage.items():
            all_of = {"exact": one.exact, "gap": np.array(one.gap)} | one.estimates
            numbers |= {f"{seed}/{stage}/{what}": values for what, values in all_of.items()}
    np.savez(path, **numbers)


def kept(path: Path) -> list[dict[str, Attribution]]:
    """What `keep` wrote."""
    numbers = np.load(path)
    seeds = 1 + max(int(name.partition("/")[0]) for name in numbers)
    return [
        {
            stage: Attribution(
                numbers[f"{seed}/{stage}/exact"],
                {what: numbers[f"{seed}/{stage}/{what}"] for what in ESTIMATORS},
                float(numbers.get(f"{seed}/{stage}/gap", np.nan)),
            )
            for stage in DIETS
        }
        for seed in range(seeds)
    ]


def print_table(found: list[dict[str, Attribution]], optimizer: str) -> None:
    """Per stage and estimator."""
    print(f"\n{optimizer}, seeds 0 to {len(found) - 1}\n")
    print("| stage | estimator | Pearson r, mean | Spearman r, mean | relative error | z less the task vector's [95%] |")
    print("| --- | --- | --- | --- | --- | --- |")
    for stage in found[0]:
        summary = [one[stage] for one in found]
        r = {what: np.array([stats.pearsonr(each.exact, each.estimates[what])[0] for each in summary]) for what in ESTIMATORS}
        for what in ESTIMATORS:
            ranks = np.mean([stats.spearmanr(each.exact, each.estimates[what])[0] for each in summary])
            error = np.median(
                [np.linalg.norm(each.estimates[what] - each.exact) / np.linalg.norm(each.exact) for each in summary]
            )
            versus = ""
            if what.startswith("propagated"):
                versus = paired(r[what], r[what.replace("propagated", "task vector")])
            print(f"| {stage} | {what} | {r[what].mean():.3f} | {ranks:.3f} | {error:.2f} | {versus} |")
        gaps = [each.gap for each in summary]
        if np.isfinite(gaps).all():
            print(f"| {stage} | first-order gap over 3 steps | | | {np.median(gaps):.2f} | |")


def paired(r: np.ndarray, other: np.ndarray) -> str:
    """Mean difference of Fisher's z over seeds, with its 95% interval."""
    if np.allclose(r, other) or len(r) < 2:
        return ""
    apart = np.arctanh(r) - np.arctanh(other)
    half = stats.t.ppf(0.975, len(apart) - 1) * apart.std(ddof=1) / len(apart) ** 0.5
    return f"{apart.mean():.2f} [{apart.mean() - half:.2f}, {apart.mean() + half:.2f}]"


if __name__ == "__main__":
    main()
