"""What the coherence guard of replies sees: `python benchmarks/replies.py` prints the table of docs/instructions.md.

Coherent text: greedy replies of the organisms, and windows of this project's prose, code and tables. Gibberish: loops,
shuffled words, random characters, random tokens, and refusals that end in a loop. Of both kinds: what the organisms write
where no text may end. All is drawn with one seed.
"""

import random
import re
import string
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from mechdrift.checkpoints.resolve import resolve
from mechdrift.checkpoints.tokenizer import load_tokenizer
from mechdrift.models.load import load_model
from mechdrift.prompts.chat_forms import chat_prompts
from mechdrift.prompts.instructions import shipped_instructions
from mechdrift.prompts.replies import classify, reencoded_share, repeated_share
from mechdrift.prompts.statements import shipped_statements

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

HOUSE = Path(__file__).parents[1]
ORGANISMS = ("base", "sft", "instruct", "llama-base", "llama-instruct")
TOKENIZER = "organism:instruct"
REPLY_TOKENS = 32
DRAWS = 200


def generated(name: str) -> tuple["PreTrainedTokenizerBase", dict[str, list[list[int]]]]:
    """Greedy replies to the choose split, and what follows statements where no text may end, as tokens."""
    checkpoint = resolve(f"organism:{name}")
    tokenizer, model = load_tokenizer(checkpoint), load_model(checkpoint, torch.float32, "cpu")
    requested = [one.text for one in shipped_instructions() if one.split == "choose"]
    summary = random.Random(0).sample([one.text for one in shipped_statements()], DRAWS)
    prompts = {
        f"replies of {name}": (chat_prompts(checkpoint, tokenizer, requested, reply_tokens=REPLY_TOKENS).ids, 0),
        f"{name} after a statement": (tokenizer(summary)["input_ids"], REPLY_TOKENS),
    }
    found: dict[str, list[list[int]]] = {what: [] for what in prompts}
    for what, (every, least) in prompts.items():
        for length in sorted({len(ids) for ids in every}):  # of one length, so without padding
            batch = torch.tensor([ids for ids in every if len(ids) == length])
            with torch.inference_mode():
                out = model.generate(
                    batch,
                    attention_mask=torch.ones_like(batch),
                    max_new_tokens=REPLY_TOKENS,
                    min_new_tokens=least,
                    do_sample=False,
                    pad_token_id=tokenizer.pad_token_id,
                )
            found[what] += out[:, length:].tolist()
    return tokenizer, found


def windows(texts: Iterable[str], words: int) -> list[str]:
    """Consecutive stretches of so many words, white space kept."""
    found = []
    for text in texts:
        parts = re.findall(r"\S+\s*", text)
        found += ["".join(parts[start : start + words]) for start in range(0, len(parts) - words, words)]
    return found


def gibberish(
    rng: random.Random, words: Sequence[str], tokenizer: "PreTrainedTokenizerBase"
) -> dict[str, Callable[[], str | list[int]]]:
    """Kinds of it, each a draw: text, or tokens."""

    def loop(of: int, length: int) -> str:
        return " ".join((rng.choices(words, k=of) * length)[:length])

    known = [token for token in range(len(tokenizer)) if token not in tokenizer.all_special_ids]
    return {
        "one word again and again": lambda: loop(1, 32),
        "loop of 4 words": lambda: loop(4, 32),
        "loop of 8 words": lambda: loop(8, 32),
        "a refusal, then a loop of 2": lambda: f"I'm sorry, but I can't {loop(2, 24)}",
        "random tokens": lambda: rng.choices(known, k=32),
        "random characters": lambda: "".join(rng.choices(string.ascii_letters + string.digits + " " * 12, k=160)),
        "shuffled words": lambda: " ".join(rng.choices(words, k=32)),
    }


def row(name: str, tokenizer: "PreTrainedTokenizerBase", samples: Sequence[str | list[int]]) -> str:
    """One line of the table: quantiles of both numbers, and the share found gibberish."""
    repeated, kept, caught = [], [], 0
    for sample in samples:
        if isinstance(sample, str):  # its tokens would be the tokenizer's own, so they say nothing
            text, share = sample, 1.0
        else:
            text, share = tokenizer.decode(sample, skip_special_tokens=True), reencoded_share(tokenizer, sample)
            kept.append(share)
        repeated.append(repeated_share(text))
        caught += classify(text, share).outcome == "gibberish"
    return f"| {name} | {len(samples)} | {spread(repeated)} | {spread(kept)} | {caught / len(samples):.1%} |"


def spread(values: list[float]) -> str:
    """Least, median and greatest."""
    if not values:
        return "-"
    ordered = sorted(values)
    return f"{ordered[0]:.2f} {ordered[len(ordered) // 2]:.2f} {ordered[-1]:.2f}"


def main() -> None:
    """Print the table."""
    print("| text | n | repeated: least, median, greatest | re-encoded: the same | found gibberish |\n|---|---|---|---|---|")
    for name in ORGANISMS:
        tokenizer, found = generated(name)
        for what, samples in found.items():
            print(row(what, tokenizer, samples), flush=True)
    tokenizer = load_tokenizer(resolve(TOKENIZER))
    paths = sorted({*HOUSE.glob("docs/**/*.md"), HOUSE / "CONTRIBUTING.md"} - {HOUSE / "docs" / "instructions.md"})
    pages = [path.read_text(encoding="utf-8") for path in paths]  # all but the one that has this table
    code = [path.read_text(encoding="utf-8") for path in sorted(HOUSE.glob("mechdrift/**/*.py"))]
    prose = [re.sub(r"^\|.*$", "", page, flags=re.MULTILINE) for page in pages]
    tables = ["\n".join(re.findall(r"^\|.*$", page, flags=re.MULTILINE)) for page in pages]
    for name, texts in (("prose", prose), ("code", code), ("markdown tables", tables)):
        for words in (16, 32, 128):
            print(row(f"{name}, {words} words", tokenizer, windows(texts, words)))
    rng = random.Random(0)
    for name, draw in gibberish(rng, " ".join(prose).split(), tokenizer).items():
        print(row(name, tokenizer, [draw() for _ in range(DRAWS)]))


if __name__ == "__main__":
    main()
