"""Do verdicts depend on the draw of splits, prompts and examples? One null and one real pair at many `--mechdrift-seed`."""

from collections import Counter, defaultdict
from pathlib import Path

from mechdrift.prompts.instructions import shipped_instructions
from mechdrift.prompts.judgement import judgement_prompts
from mechdrift.prompts.statements import Split, shipped_statements
from mechdrift.session.many_runs import Run
from mechdrift.verdict.profiles import load_profile

from .null import NO_SHORT_CUT, ORIGIN
from .tables import not_held, percent, read, rows_of, share, table

PAIRS = {"null": (ORIGIN, "organism:retrained@0"), "real": ("organism:base", ORIGIN)}


def flip_runs(seeds: int) -> list[Run]:
    """The gates of both pairs at each seed; seed by seed, so that a killed series has as many of either."""
    gates = sorted(name for name, rule in load_profile("base-to-post").rules.items() if rule.role == "gate")
    only = [word for name in gates for word in ("--mechdrift-only", name)]
    return [
        Run(f"{which}-seed={seed}", base, post, (NO_SHORT_CUT, "--mechdrift-seed", str(seed), *only))
        for seed in range(seeds)
        for which, (base, post) in PAIRS.items()
    ]


def flip_table(folder: Path, seeds: int) -> str:
    """Gates whose verdict is not the same at all seeds; a flip is a seed at which it is not the most frequent one."""
    found = read(folder, (run.name for run in flip_runs(seeds)))
    parts = []
    for which, (base, post) in PAIRS.items():
        records = [record for name, record in found.items() if name.startswith(f"{which}-")]
        verdicts: dict[str, Counter[str]] = defaultdict(Counter)
        for record in records:
            for label, row in rows_of(record).items():
                if row["role"] == "gate":
                    verdicts[label][row["verdict"]] += 1
        lines, steady = [], Counter[str]()
        for label, counts in sorted(verdicts.items()):
            flips = counts.total() - max(counts.values())
            if not flips:
                steady[next(iter(counts))] += 1
            else:
                summary = ", ".join(f"{verdict} {times}" for verdict, times in counts.most_common())
                lines.append([label, summary, share(flips, counts.total())])
        lines += [[f"{gates} gates", f"{verdict} at all", share(0, len(records))] for verdict, gates in steady.items()]
        summary = table(["gate", "verdicts", "seeds that flip"], lines)
        failing = share(sum(bool(not_held(record)) for record in records), len(records))
        parts.append(f"{base} and {post}, {len(records)} seeds; runs with a gated row not held: {failing}.\n\n{summary}")
    return "\n\n".join([*parts, _shared()])


def _shared() -> str:
    """How much of what a model is shown is the same at two seeds: what runs at different seeds could share."""

    def shown(seed: int) -> dict[str, set[str]]:
        statements = shipped_statements(seed)
        affirmed = [statement for statement in statements if not statement.negated]
        splits: tuple[Split, ...] = ("choose", "test")
        return {
            "statements": {statement.text for statement in statements},
            "judged prompts": {text for split in splits for text in judgement_prompts(affirmed, seed, split).values()},
            "instructions": {instruction.text for instruction in shipped_instructions(seed)},
        }

    one, other = shown(0), shown(1)
    summary = [f"{percent(len(one[what] & other[what]) / len(one[what]))} of {len(one[what])} {what}" for what in one]
    return f"The same at seeds 0 and 1: {', '.join(summary)}."
