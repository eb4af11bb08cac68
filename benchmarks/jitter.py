"""How far a jittered copy is from its checkpoint, beside dtypes and batch shapes: `python benchmarks/jitter.py [SPEC]`."""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from mechdrift.checkpoints.resolve import Checkpoint, resolve
from mechdrift.checkpoints.tokenizer import load_tokenizer
from mechdrift.commands.null_copies import jittered
from mechdrift.models.load import load_model
from mechdrift.prompts.statements import shipped_statements

TEXTS = 64
BATCH = 16


def last_logits(point: Checkpoint, dtype: torch.dtype, batch: int) -> torch.Tensor:
    """Logits after each of the texts: float32 [text, vocabulary]."""
    model, tokenizer = load_model(point, dtype, "cpu"), load_tokenizer(point)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    texts = [statement.text for statement in shipped_statements(0)][:TEXTS]
    found = []
    for start in range(0, TEXTS, batch):
        requested = tokenizer(texts[start : start + batch], return_tensors="pt", padding=True, padding_side="left")
        with torch.no_grad():
            output = model(input_ids=requested["input_ids"], attention_mask=requested["attention_mask"])
        found.append(output.logits[:, -1].float())
    return torch.cat(found)


def main(spec: str) -> None:
    """One table."""
    point = resolve(spec)
    with TemporaryDirectory() as folder:
        copy = resolve(str(jittered(point, Path(folder), seed=0)))
        print(f"{spec}, {TEXTS} statements: root mean square of the logits' difference")
        for dtype in (torch.float32, torch.bfloat16):
            name = str(dtype).removeprefix("torch.")
            plain, exact = last_logits(point, dtype, 1), last_logits(point, torch.float32, 1)
            against = {
                f"computed in {name} against float32": exact,
                f"in {name}, batches of {BATCH} against 1": last_logits(point, dtype, BATCH),
                f"in {name}, a jittered copy": last_logits(copy, dtype, 1),
            }
            for what, other in against.items():
                print(f"  {what:45} {(plain - other).square().mean().sqrt():.1e}")


if __name__ == "__main__":
    main(*sys.argv[1:] or ["organism:instruct"])
