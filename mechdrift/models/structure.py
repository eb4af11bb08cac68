"""Where a model's residual stream is: found on the model itself, by one forward of a few tokens.

The blocks are the longest list of modules of which each one's output enters the next. The final norm is what takes the last
one's output. A block's writes are the shallowest of its modules whose outputs, times one factor, sum to its output minus its
input. What is found is proven afterwards, on the user's own prompts, by the self-check.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, groupby, pairwise
from typing import TYPE_CHECKING, Any

from mechdrift.errors import Unmeasurable
from mechdrift.models.devices import input_device
from mechdrift.models.families import Family, listed
from mechdrift.models.once import once_a_model

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel

TOKENS = 12
"""Of the forward: as many as a sum of wrong modules cannot be right on by chance."""
PROVEN = 20.0
"""By how much the sum's error must grow where a write is left out: else whether it writes is not shown."""
LEAST_SCALE = 0.01
"""Of what enters a block: BLOOM's attention gives its input too, and so a sum without it."""
MOST_WRITES, DEEPEST = 3, 3
"""How many modules write in a block, and how deep they lie in it, at most."""

SUM_TOLERANCE = 2.0
"""In eps of the dtype, whatever the model: a block adds twice, rounding by at most eps/2 of what is added, so by one eps of the
terms in all, and the check's own float32 sum by one more in float32. Where what is written is multiplied first, the product is
rounded too: one more. Seen: 1.00. A wrong site is off by .55 and more, where eps is 1e-7, 1e-3, 8e-3."""


@dataclass(frozen=True, eq=False)
class Block:
    """One block, and what it adds to the stream."""

    module: "nn.Module"
    names: tuple[str, ...]
    """Of the writes, in the block."""
    writes: "tuple[nn.Module, ...]"
    """Modules whose outputs are added to the stream, and nothing else is."""
    factor: float = 1.0
    """Of their sum."""
    scale: float = 1.0
    """Of all that leaves the block (Gemma 4): scale * (what enters + factor * the writes)."""

    def tolerance(self, eps: float) -> float:
        """Of sum_error, in a dtype of this eps."""
        return _tolerance((self.factor, self.scale), eps)


@dataclass(frozen=True, eq=False)
class Structure:
    """The residual stream of a model."""

    blocks: tuple[Block, ...]
    """In order."""
    norm: "nn.Module"
    """What the last block's output goes through before the head."""

    def words(self) -> str:
        """In one line: blocks, the norm, and what writes, once for neighbours that are alike."""
        names = [", ".join(block.names) + _factors(block) for block in self.blocks]
        return f"{len(names)} blocks, then {type(self.norm).__name__}; written by {'; '.join(_written_by(names))}"


def _factors(block: Block) -> str:
    factor = f" times {block.factor:g}" if block.factor != 1 else ""
    return factor + (f", all that leaves times {block.scale:g}" if block.scale != 1 else "")


def _written_by(names: list[str]) -> Iterator[str]:
    """What writes in which blocks; where all are alike, without their numbers."""
    place = 0
    for written, run in groupby(names):
        count = len(list(run))
        yield written + ("" if count == len(names) else f" in {place}..{place + count - 1}" if count > 1 else f" in {place}")
        place += count


@once_a_model
def structure_of(model: "PreTrainedModel") -> Structure:
    """A model's structure: by the table where its family is in it, else as found. Raises Unmeasurable with what was not found."""
    family = listed(text_type(model))
    return found(model) if family is None else _tabled(model, family)


def text_type(model: "PreTrainedModel") -> str:
    """Transformers' model_type of the decoder: of a model that reads more than text, of the one inside."""
    return str(model.config.get_text_config(decoder=True).model_type)


def _tabled(model: "PreTrainedModel", family: Family) -> Structure:
    decoder = model.get_decoder()
    blocks = [
        Block(block, family.writes, tuple(block.get_submodule(name) for name in family.writes), family.factor)
        for block in getattr(decoder, family.blocks)
    ]
    return Structure(tuple(blocks), getattr(decoder, family.norm))


@dataclass(frozen=True)
class _Call:
    """What one module was given and gave in one forward."""

    module: "nn.Module"
    entered: "Tensor | None"
    left: "Tensor | None"


def found(model: "PreTrainedModel") -> Structure:
    """Find the structure. Raises Unmeasurable with what was not found."""
    calls = _traced(model)
    by_module: dict[nn.Module, list[_Call]] = {}
    for call in calls:
        by_module.setdefault(call.module, []).append(call)
    modules = _blocks(model, by_module)
    inner = {module for block in modules for module in block.modules()}
    last = by_module[modules[-1]][0].left
    norm = next((call.module for call in calls if call.module not in inner and _same(call.entered, last)), None)
    if norm is None:
        raise Unmeasurable("no final norm: nothing takes the last block's output")
    blocks: list[Block] = []
    for number, module in enumerate(modules):
        like = list(dict.fromkeys((block.names, (block.factor, block.scale)) for block in blocks))
        blocks.append(_writes(number, module, by_module, like))
    return Structure(tuple(blocks), norm)


def probe_ids(model: "PreTrainedModel") -> "Tensor":
    """TOKENS different tokens, [1, TOKENS]."""
    import torch

    rows = int(model.get_input_embeddings().weight.shape[0])
    return torch.arange(TOKENS, device=input_device(model))[None] * 7 % rows


def _traced(model: "PreTrainedModel") -> list[_Call]:
    """What every module of the decoder was given and gave, in the order in which they ended."""
    import torch

    decoder, calls = model.get_decoder(), []

    def leave(module: "nn.Module", args: tuple[Any, ...], more: dict[str, Any], output: Any) -> None:
        entered, left = _tensor((*args, *more.values())), _tensor(output)
        calls.append(_Call(module, None if entered is None else entered.clone(), None if left is None else left.clone()))

    handles = [module.register_forward_hook(leave, with_kwargs=True) for module in decoder.modules() if module is not decoder]
    try:
        with torch.inference_mode():
            decoder(input_ids=probe_ids(model), use_cache=False)
    except Exception as error:  # of each family's own code, on what it takes for no prompt
        raise Unmeasurable(f"a forward of {TOKENS} tokens fails: {' '.join(str(error).split())[:200]}") from error
    finally:
        for handle in handles:
            handle.remove()
    return calls


def _tensor(values: Any) -> "Tensor | None":
    """The first tensor of numbers among what a module is given or gives."""
    import torch

    each = [values] if isinstance(values, torch.Tensor) else list(values.values() if hasattr(values, "values") else values or ())
    return next((one for one in each if isinstance(one, torch.Tensor) and one.is_floating_point() and one.ndim > 1), None)


def _same(one: "Tensor | None", other: "Tensor | None") -> bool:
    import torch

    return one is not None and other is not None and one.shape == other.shape and torch.equal(one, other.to(one.device))


def _blocks(model: "PreTrainedModel", calls: "dict[nn.Module, list[_Call]]") -> "list[nn.Module]":
    """The longest list of modules of which each one's output enters the next."""
    import torch

    chains = [
        list(each)
        for each in model.get_decoder().modules()
        if isinstance(each, torch.nn.ModuleList)
        and len(each)
        and all(one in calls for one in each)
        and all(_same(calls[one][0].left, calls[other][0].entered) for one, other in pairwise(each))
        and calls[each[0]][0].left is not None
    ]
    if not chains:
        raise Unmeasurable("no blocks: none of its lists of modules hands on what one gives to the next")
    longest = max(chains, key=len)
    if twice := [number for number, one in enumerate(longest) if len(calls[one]) > 1]:
        raise Unmeasurable(f"block {twice[0]} runs more than once in a forward")
    return longest


Coefficients = tuple[float, float]
"""A block's factor and scale."""


def _writes(
    number: int, block: "nn.Module", calls: "dict[nn.Module, list[_Call]]", like: Sequence[tuple[tuple[str, ...], Coefficients]]
) -> Block:
    """What a block adds; like: what others of the model do, tried first."""
    entered, left = calls[block][0].entered, calls[block][0].left
    assert entered is not None
    assert left is not None
    inner = dict(_candidates(block, calls, left))
    for names, by in like:
        if all(name in inner for name in names) and _adds(entered, left, [inner[name] for name in names], by):
            return _block(block, names, by)
    for depth in range(DEEPEST + 1):
        near = {name: value for name, value in inner.items() if name.count(".") <= depth}
        for size in range(1, MOST_WRITES + 1):
            for names in combinations(near, size):
                if _nested(names):
                    continue
                parts = [near[name] for name in names]
                for by in _coefficients(entered, left, parts):
                    if _adds(entered, left, parts, by):
                        _require_provable(number, entered, left, near, names, by)
                        return _block(block, names, by)
    raise Unmeasurable(
        f"block {number}: no sum of up to {MOST_WRITES} of its modules' outputs is what it adds to the residual stream"
    )


def _block(module: "nn.Module", names: tuple[str, ...], by: Coefficients) -> Block:
    return Block(module, names, tuple(module.get_submodule(name) for name in names), *by)


def _candidates(block: "nn.Module", calls: "dict[nn.Module, list[_Call]]", left: "Tensor") -> "Iterator[tuple[str, Tensor]]":
    """Modules whose outputs may be added, by name: of several that give the same, as dropout does, the shallowest."""
    seen: list[Tensor] = []
    named = [(name, module) for name, module in block.named_modules() if name and len(calls.get(module, ())) == 1]
    for name, module in sorted(named, key=lambda one: one[0].count(".")):
        value = calls[module][0].left
        if value is None or value.numel() != left.numel():
            continue
        value = value.reshape(left.shape)
        if not _same(value, left) and not any(_same(value, other) for other in seen):
            seen.append(value)
            yield name, value


def _nested(names: Sequence[str]) -> bool:
    return any(one.startswith(f"{other}.") for one in names for other in names)


def _coefficients(entered: "Tensor", left: "Tensor", parts: "Sequence[Tensor]") -> Iterator[Coefficients]:
    """Factors and scales by which the parts may be added: none, a factor alone, both; as a config has them, or as they are."""
    import torch

    yield 1.0, 1.0
    before, after, total = entered.double().flatten(), left.double().flatten(), sum(part.double().flatten() for part in parts)
    factor = float(((after - before) * total).sum() / (total * total).sum())
    yield float(f"{factor:.4g}"), 1.0
    yield factor, 1.0
    scale, product = torch.linalg.lstsq(torch.stack([before, total], dim=1), after[:, None]).solution[:, 0].tolist()
    if abs(scale) > LEAST_SCALE:
        yield float(f"{product / scale:.4g}"), scale
        yield product / scale, scale


def _adds(entered: "Tensor", left: "Tensor", parts: "Sequence[Tensor]", by: Coefficients) -> bool:
    import torch

    factor, scale = by
    error = sum_error(left, [entered, *parts], [scale, *[scale * factor] * len(parts)])
    return error <= _tolerance(by, torch.finfo(left.dtype).eps)


def _tolerance(by: Coefficients, eps: float) -> float:
    return (SUM_TOLERANCE + sum(number != 1.0 for number in by)) * eps


def sum_error(found: "Tensor", terms: "Sequence[Tensor]", factors: Sequence[float]) -> float:
    """Largest |found - sum of terms| over the sum of their sizes, element by element; infinite where anything is not finite.

    Terms may have another shape, of as many elements: some families flatten a batch before its MLP.
    """
    import torch

    parts = torch.stack(
        [factor * term.reshape(found.shape).float().to(found.device) for term, factor in zip(terms, factors, strict=True)]
    )
    error = (found.float() - parts.sum(0)).abs() / parts.abs().sum(0).clamp(min=torch.finfo(torch.float32).tiny)
    gap = float(error.max())
    return gap if gap == gap else float("inf")


def _require_provable(
    number: int, entered: "Tensor", left: "Tensor", near: "dict[str, Tensor]", names: Sequence[str], by: Coefficients
) -> None:
    """Raise Unmeasurable where it makes next to no difference whether a module's output is in the sum: it may write or not."""
    import torch

    factor, scale = by

    def error(of: Sequence[str]) -> float:
        return sum_error(left, [entered, *(near[name] for name in of)], [scale, *[scale * factor] * len(of)])

    least = PROVEN * max(error(names), torch.finfo(left.dtype).eps)  # a sum may be exact by chance
    faint = [name for name in names if error([other for other in names if other != name]) < least]
    others = [name for name in near.keys() - {*names} if not _nested((*names, name))]
    faint += [name for name in others if _adds(entered, left, [near[each] for each in (*names, name)], by)]
    if faint:
        raise Unmeasurable(
            f"block {number}: whether {faint[0]} writes to the residual stream cannot be told: it gives next to nothing"
        )
