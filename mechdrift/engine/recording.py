"""Recordings: block outputs and next-token logits of a prompt set, in as few forwards as batches allow."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from mechdrift.engine.batches import Progress, batches_by_length, forwards, padded
from mechdrift.models.devices import input_device, last_only
from mechdrift.models.ending import ending_of
from mechdrift.models.sites import blocks, final_norm, stream, width_of

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel

HEAD_TOKENS = 256
Edit = Callable[[Any, list[int], list[int]], AbstractContextManager[None]]


def record_blocks(
    model: "PreTrainedModel",
    prompts: Sequence[Sequence[int]],
    positions: Sequence[int],
    batch_tokens: int,
    progress: Progress | None = None,
    share: bool = False,
) -> "Tensor":
    """Outputs of every block at one position a prompt: float32 [prompt, layer, d_model] on the CPU.

    One forward a batch for all layers; the head is not run. share: what prompts begin with alike is run once.
    """
    import torch

    layers = blocks(model)
    recorded = torch.empty(len(prompts), len(layers), width_of(model))
    decoder = model.get_decoder()
    for batch in forwards(model, prompts, positions, batch_tokens, share, progress):
        rows = torch.arange(len(batch.prompts))
        columns = torch.tensor([positions[index] for index in batch.prompts]) - torch.tensor(batch.before)
        with _outputs(layers) as outputs:
            decoder(**batch.inputs)
        # Blocks may lie on several devices.
        taken = [output[rows.to(output.device), columns.to(output.device)].to(outputs[0].device) for output in outputs]
        recorded[batch.prompts] = torch.stack(taken, dim=1).float().cpu()
    return recorded


def record_columns(
    model: "PreTrainedModel",
    prompts: Sequence[Sequence[int]],
    first: Sequence[int],
    batch_tokens: int = 4096,
    progress: Progress | None = None,
    share: bool = False,
) -> "Tensor":
    """Outputs of every block at every token from first[k] on: [prompt, layer, column, d_model] on the CPU, in the model's dtype.

    Column j of prompt k is its token first[k] + j; zero beyond its last. The head is not run. share: as in record_blocks.
    """
    import torch

    layers = blocks(model)
    widest = max(len(prompt) - start for prompt, start in zip(prompts, first, strict=True))
    recorded = torch.zeros(len(prompts), len(layers), widest, width_of(model), dtype=model.dtype)
    decoder = model.get_decoder()
    for batch in forwards(model, prompts, first, batch_tokens, share, progress):
        with _outputs(layers) as outputs:
            decoder(**batch.inputs)
        for layer, output in enumerate(outputs):
            for row, (index, before) in enumerate(zip(batch.prompts, batch.before, strict=True)):
                columns = output[row, first[index] - before : len(prompts[index]) - before]
                recorded[index, layer, : len(columns)] = columns.cpu()
    return recorded


def record_last_mlp(
    model: "PreTrainedModel",
    prompts: Sequence[Sequence[int]],
    first: Sequence[int],
    neurons: Sequence[int],
    batch_tokens: int,
    progress: Progress | None = None,
    share: bool = False,
) -> "Tensor":
    """What the next token is computed from, at every token from first[k] on: float32 [prompt, column, value] on the CPU.

    Values: the stream that enters the final norm, d_model of them; in families with a norm between the last MLP and the stream
    what enters that norm, as many; the activations of these neurons of the last MLP, which may be none. Column j of prompt k is
    its token first[k] + j; zero beyond its last. One forward a batch; the head is not run. share: as in record_blocks.
    """
    import torch

    widest = max(len(prompt) - start for prompt, start in zip(prompts, first, strict=True))
    ending = ending_of(model) if neurons else None
    places = [final_norm(model)]
    if ending is not None:
        places += [ending.down] if ending.after is None else [ending.after, ending.down]
    recorded: Tensor | None = None
    decoder = model.get_decoder()
    for batch in forwards(model, prompts, first, batch_tokens, share, progress):
        entered: dict[nn.Module, Tensor] = {}

        def enter(module: "nn.Module", args: tuple[Any, ...], entered: "dict[nn.Module, Tensor]" = entered) -> None:
            entered[module] = args[0]

        handles = [place.register_forward_pre_hook(enter) for place in places]
        try:
            decoder(**batch.inputs)
        finally:
            for handle in handles:
                handle.remove()
        if neurons:
            entered[places[-1]] = entered[places[-1]].reshape(*batch.inputs["input_ids"].shape, -1)[..., list(neurons)]
        found = torch.cat([entered[place].float().cpu() for place in places], dim=-1)
        if recorded is None:
            recorded = torch.zeros(len(prompts), widest, found.shape[-1])
        for row, (index, before) in enumerate(zip(batch.prompts, batch.before, strict=True)):
            columns = found[row, first[index] - before : len(prompts[index]) - before]
            recorded[index, : len(columns)] = columns
    assert recorded is not None
    return recorded


def record_logits(
    model: "PreTrainedModel",
    prompts: Sequence[Sequence[int]],
    tokens: Sequence[Sequence[int]],
    batch_tokens: int,
    progress: Progress | None = None,
    edit: Edit | None = None,
    share: bool = False,
) -> "Tensor":
    """Next-token logits of the asked tokens after each prompt, and their log-normaliser, under an intervention if one is given.

    tokens[i] are k token ids for prompt i. Returns float32 [prompt, k + 1] on the CPU; the last column is the logsumexp over
    the vocabulary, so exp(logit - last) is a probability. Only the last positions pass through the head. share: as in
    record_blocks; not under an intervention, which may move what is shared.
    """
    import torch

    recorded = torch.empty(len(prompts), len(tokens[0]) + 1)
    lasts = [len(prompt) - 1 for prompt in prompts]
    for batch in forwards(model, prompts, lasts, batch_tokens, share and edit is None, progress):
        device = batch.inputs["input_ids"].device
        ends = torch.tensor([lasts[index] for index in batch.prompts]) - torch.tensor(batch.before)
        kept, places = torch.unique(ends.to(device), return_inverse=True)
        with nullcontext() if edit is None else edit(model, batch.prompts, batch.before):
            logits = model(**batch.inputs, logits_to_keep=kept).logits
        last = logits[torch.arange(len(places), device=device), places].float()
        requested = torch.tensor([list(tokens[index]) for index in batch.prompts], device=device)
        recorded[batch.prompts] = torch.cat([last.gather(1, requested), last.logsumexp(1, keepdim=True)], dim=1).cpu()
    return recorded


def record_under(
    model: "PreTrainedModel",
    prompts: Sequence[Sequence[int]],
    tokens: Sequence[Sequence[int]],
    edits: Sequence["Edit"],
    first_edited: Sequence[int],
    batch_tokens: int,
    progress: Progress | None = None,
) -> "Tensor":
    """record_logits under each of several interventions, none of which touches a token before first_edited of its prompt.

    What lies before is the same in all of them, so it is run once a batch and its keys and values serve every intervention: the
    work is one forward of the prompts and, per intervention, one of their last few tokens. An edit is given the model, the
    indices of the batch, and how many tokens of each of its prompts are not in what it is run on. Returns float32
    [edit, prompt, k + 1] on the CPU.
    """
    import torch
    from transformers import DynamicCache

    recorded = torch.empty(len(edits), len(prompts), len(tokens[0]) + 1)
    done = 0
    with torch.inference_mode():
        for batch in batches_by_length([len(prompt) for prompt in prompts], batch_tokens):
            # One suffix length for the batch, so that only the prefixes need padding, on the left.
            kept = max(len(prompts[index]) - first_edited[index] for index in batch)
            widest = len(prompts[batch[-1]])
            ids, mask = padded([prompts[index] for index in batch], left=True)
            places = (mask.cumsum(1) - 1).clamp(min=0)
            ids, mask, places = (tensor.to(input_device(model)) for tensor in (ids, mask, places))
            split = widest - kept
            cache = None
            if split:
                # A plain cache also where attention slides: the family's own forgets what a crop would have to bring back.
                cache = DynamicCache()
                model.get_decoder()(
                    input_ids=ids[:, :split],
                    attention_mask=mask[:, :split],
                    position_ids=places[:, :split],
                    past_key_values=cache,
                    use_cache=True,
                )
            requested = torch.tensor([list(tokens[index]) for index in batch], device=ids.device)
            before = [len(prompts[index]) - kept for index in batch]
            for number, edit in enumerate(edits):
                with edit(model, batch, before):
                    last = model(
                        input_ids=ids[:, split:],
                        attention_mask=mask,
                        position_ids=places[:, split:],
                        past_key_values=cache,
                        use_cache=cache is not None,
                        logits_to_keep=last_only(model),
                    ).logits[:, -1]
                if cache is not None:
                    cache.crop(-kept)
                last = last.float()
                recorded[number, batch] = torch.cat([last.gather(1, requested), last.logsumexp(1, keepdim=True)], dim=1).cpu()
            done += len(batch)
            if progress is not None:
                progress(done, len(prompts))
    return recorded


def record_under_whole(
    model: "PreTrainedModel",
    prompts: Sequence[Sequence[int]],
    tokens: Sequence[Sequence[int]],
    edits: Sequence["Edit"],
    batch_tokens: int,
    progress: Progress | None = None,
) -> "Tensor":
    """What record_under returns, by a whole forward for every intervention: slower, without a cache or padding on the left."""
    import torch

    return torch.stack([record_logits(model, prompts, tokens, batch_tokens, progress, edit) for edit in edits])


def record_losses(
    model: "PreTrainedModel", prompts: Sequence[Sequence[int]], batch_tokens: int, progress: Progress | None = None
) -> "Tensor":
    """Loss of every token but the first, in nats, of prompts of one length: float32 [prompt, token] on the CPU.

    One forward a batch through the blocks; the head, with whatever scales and caps it, takes HEAD_TOKENS positions at a time, as
    logits of thousands of tokens over a whole vocabulary may not fit.
    """
    import torch

    length = len(prompts[0])
    recorded = torch.empty(len(prompts), length - 1)
    decoder = model.get_decoder()
    for batch in forwards(model, prompts, [length - 1] * len(prompts), batch_tokens, False, progress):
        ids = batch.inputs["input_ids"]
        with standing_in(decoder, decoder(**batch.inputs)):
            for start in range(0, length - 1, HEAD_TOKENS):
                places = torch.arange(start, min(start + HEAD_TOKENS, length - 1), device=ids.device)
                logits = model(**batch.inputs, logits_to_keep=places).logits.float()
                wanted = ids[:, places + 1].to(logits.device)
                losses = logits.logsumexp(-1) - logits.gather(-1, wanted[..., None])[..., 0]
                recorded[batch.prompts, start : start + len(places)] = losses.cpu()
    return recorded


@contextmanager
def standing_in(module: "nn.Module", output: Any) -> Iterator[None]:
    """Inside, calls of the module return this output and compute nothing."""
    own = module.__dict__.get("forward")  # accelerate sets one on modules that it spreads
    module.forward = lambda *_args, **_named: output
    try:
        yield
    finally:
        if own is None:
            del module.forward
        else:
            module.forward = own


@contextmanager
def _outputs(layers: "list[nn.Module]") -> "Iterator[list[Tensor]]":
    """The blocks' outputs of the forwards run inside; the hooks always come off."""
    outputs: list[Tensor] = []
    handles = [layer.register_forward_hook(lambda _m, _i, output: outputs.append(stream(output))) for layer in layers]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()
