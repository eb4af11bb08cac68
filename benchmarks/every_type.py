"""One tiny random model of every causal type that transformers has, each in a process of its own: what is found and holds."""

import json
import os
import random
import select
import signal
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from mechdrift.engine.selfcheck import check_ablating_everywhere, check_shifting, require_whole_state, self_check
from mechdrift.engine.stored_sweep import fastest_exact
from mechdrift.engine.sweep import Pairs, sweep
from mechdrift.engine.sweep_naive import sweep_naive
from mechdrift.engine.sweep_restarted import sweep_restarted
from mechdrift.errors import InterventionFailed, Unmeasurable
from mechdrift.models.ending import ending_of
from mechdrift.models.head import head_of
from mechdrift.models.sites import blocks, width_of
from mechdrift.models.structure import structure_of

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "helpers"))
from tiny_families import causal_types, tiny_causal

SECONDS = 300
LEAST_READ, LEAST_FAST = 108, 80
"""Of transformers 5.23's 189 types."""
LENGTHS = (3, 8, 25)
"""Of prompts; the longest is longer than every window."""
WAYS: dict[Any, str] = {sweep: "fast", sweep_restarted: "restarted", sweep_naive: "whole"}
NONE = "none"
READ, REFUSED, NOT_BUILT = "read", "refused", "not built"


@dataclass
class Row:
    """What came of one type."""

    type: str
    state: str
    """READ, REFUSED or NOT_BUILT."""
    why: str = ""
    """Why it is not read."""
    writes: str = ""
    """By which modules."""
    float32: str = ""
    """Of the self-check: residual in eps, and batch as a share of the largest value."""
    bfloat16: str = ""
    """The same."""
    sweep: str = ""
    """fast, restarted or whole."""
    whole: str = ""
    """Whether the stream is all that passes from block to block."""
    head: str = ""
    """Factor and cap of the logits, or why not."""
    last_mlp: str = ""
    """Whether its neurons are found."""
    architecture: str = ""
    """Transformers' class."""


def measured() -> Iterator[Row]:
    """Every type, in order; which one it is at goes to the terminal."""
    for number, name in enumerate(causal_types(), 1):
        row = in_a_process(name)
        print(f"{number} {row.type}: {row.state} {row.sweep}{row.why[:60]}", file=sys.stderr, flush=True)
        yield row


def in_a_process(name: str) -> Row:
    """A row; what crashes or takes too long takes nothing else with it."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.close(reader)
        with os.fdopen(writer, "w") as out:
            out.write(json.dumps(asdict(row_of(name))))
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as lines:
        ready, _, _ = select.select([lines], [], [], SECONDS)
        if not ready:
            os.kill(child, signal.SIGKILL)
        text = lines.read()
    os.waitpid(child, 0)
    return Row(**json.loads(text)) if text else Row(name, REFUSED, "took too long" if not ready else "its process died")


def row_of(name: str) -> Row:
    """What is found on a random model of this type, and what holds of it."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    try:
        model = drawn(tiny_causal(name))
    except Exception as error:  # each family's config has conditions of its own
        return Row(name, NOT_BUILT, reason(error))
    try:
        found = structure_of(model)
        row = Row(name, READ, architecture=type(model).__name__, writes=found.words().partition("written by ")[2])
        row.float32 = figures(model)
        intervened(name, model)
    except (Unmeasurable, InterventionFailed) as error:
        return Row(name, REFUSED, str(error).removeprefix("self-check: "))
    except Exception as error:  # a family's own code on what it takes for no prompt
        return Row(name, REFUSED, reason(error))
    row.whole = found_or_why(lambda: whole_state(model))
    row.sweep = WAYS[fastest_exact(model, pair())[0]] if row.whole == "yes" else NONE
    row.head = found_or_why(
        lambda: f"{head_of(model).factor:g}" + (f", cap {head_of(model).cap:g}" if head_of(model).cap else "")
    )
    row.last_mlp = found_or_why(lambda: "found" if ending_of(model).after is None else "found, a norm after it")
    row.bfloat16 = found_or_why(lambda: figures(model.to(torch.bfloat16)))
    return row


def whole_state(model: Any) -> str:
    """Nothing but the stream passes from block to block. Raises Unmeasurable."""
    require_whole_state(model, prompts()[-1])
    return "yes"


def drawn(model: Any) -> Any:
    """Every weight and constant drawn anew: what starts at 1 or 0 hides what it is for."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            noise = torch.randn(weight.shape, generator=generator)
            weight.copy_(weight + 0.1 * noise if weight.ndim < 2 else noise * min(0.2, 1.2 * weight.shape[-1] ** -0.5))
        for name, constant in model.named_buffers():
            if "scalar" in name:
                constant.mul_(1.3)
    return model.eval()


def prompts() -> list[list[int]]:
    """Of random tokens."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(2, 250, (length,), generator=generator).tolist() for length in LENGTHS]


def pair() -> Pairs:
    """The longest prompt, and the same with another third token."""
    prompt = prompts()[-1]
    return Pairs([[*prompt[:2], prompt[-1], *prompt[3:]]], [prompt], [(prompt[1], prompt[3])], [2])


def figures(model: Any) -> str:
    """Of the self-check."""
    found = self_check(model, prompts())
    return f"{found.residual / torch.finfo(model.dtype).eps:.2f}, {found.batch:.1e}"


def intervened(name: str, model: Any) -> None:
    """A push at a block drawn by the type's name, and an ablation everywhere. Raises InterventionFailed."""
    generator = torch.Generator().manual_seed(2)
    layer = random.Random(name).randrange(max(1, len(blocks(model)) - 1))
    check_shifting(model, prompts()[1], torch.randn(width_of(model), generator=generator), layer)
    check_ablating_everywhere(model, prompts()[1], torch.randn(width_of(model), generator=generator))


def found_or_why(find: Callable[[], str]) -> str:
    """What is found, or why nothing is."""
    try:
        return find()
    except Unmeasurable as error:
        return f"no: {str(error).partition(':')[0].partition(',')[0]}"
    except Exception as error:
        return f"no: {reason(error)}"


def reason(error: Exception) -> str:
    """In one short line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:90]}"


def enough(rows: Sequence[Row]) -> bool:
    """Whether as many types are read, and swept fast, as they were."""
    return sum(row.state == READ for row in rows) >= LEAST_READ and sum(row.sweep == WAYS[sweep] for row in rows) >= LEAST_FAST


def tables(rows: Sequence[Row], minutes: float, vllm: Collection[str]) -> Iterator[str]:
    """Counts and two tables, in Markdown. vllm: the architectures that it lists."""
    read = [row for row in rows if row.state == READ]
    ways = {way: sum(row.sweep == way for row in read) for way in (*WAYS.values(), NONE)}
    yield f"{len(read)} of {len(rows)} causal types are read; sweeps: {', '.join(f'{way} in {n}' for way, n in ways.items())}."
    yield f"transformers {version('transformers')}, {minutes:.0f} minutes on one core.\n"
    yield (
        "| type | a block adds | float32 | bfloat16 | whole state | sweep | factor of the logits | last MLP | vLLM |\n|"
        + "---|" * 9
    )
    for row in read:
        ends = f"{row.head} | {row.last_mlp} | {'listed' if row.architecture in vllm else ''}"
        yield f"| {row.type} | {row.writes} | {row.float32} | {row.bfloat16} | {row.whole} | {row.sweep} | {ends} |"
    yield "\n| type | not read, because |\n|---|---|"
    for row in rows:
        if row.state != READ:
            yield f"| {row.type} | {'no tiny model: ' if row.state == NOT_BUILT else ''}{row.why.replace('|', '/')} |"
