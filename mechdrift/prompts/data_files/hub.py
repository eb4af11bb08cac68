"""Data sets of the Hugging Face hub by their id, through the library `datasets`: kept in its cache, read from the disk."""

from collections.abc import Iterator

from mechdrift.errors import InputError
from mechdrift.prompts.data_files.spec import CONFIG, SPLIT, Spec
from mechdrift.prompts.data_files.text_formats import Place, Row


def hub_rows(spec: Spec, what: str) -> tuple[str, Iterator[tuple[Place, Row]]]:
    """The commit that was read (as typed, with HF_HUB_OFFLINE), and the rows of a data set's split, `train` by default.

    Raises InputError.
    """
    try:
        from datasets import load_dataset
    except ImportError as error:
        raise InputError(
            f"{what} {spec.given}: no such file, and the library datasets is not installed",
            "a file that is there; or, for a data set of the hub, the extra data",
            f"check the path, or type: pip install 'mechdrift[data]'; or: {_download(spec)}",
        ) from error
    options = dict(spec.options)
    try:
        revision = _commit(spec)
        table = load_dataset(spec.repo, options.get(CONFIG), split=options.get(SPLIT, "train"), revision=revision)
    except Exception as error:  # its own, of the hub's library, of the network's, of a format's reader
        summary = " ".join(str(error).split())[:300]
        raise InputError(
            f"{what} {spec.given}: no such file, and as a data set of the hub: {summary}",
            "org/name[@revision][:COLUMN][[config=NAME,split=NAME]]",
            f"check the name; or, where there is a network, type: {_download(spec)}",
        ) from error
    rows = ((f"{spec.repo}, row {number}", dict(row)) for number, row in enumerate(table, 1))
    return revision or "", rows


def _commit(spec: Spec) -> str | None:
    """The commit that a branch or tag stands for now; with HF_HUB_OFFLINE what was typed. Raises what the hub's library does."""
    from huggingface_hub import HfApi, is_offline_mode

    return spec.revision if is_offline_mode() else HfApi().dataset_info(spec.repo, revision=spec.revision).sha


def _download(spec: Spec) -> str:
    """What fetches the files of a data set into a folder."""
    return f"hf download {spec.repo} --repo-type dataset --local-dir FOLDER"
