"""Rows of Parquet files, in batches, as the hub has most data sets."""

from collections.abc import Iterator
from pathlib import Path

from mechdrift.errors import InputError
from mechdrift.prompts.data_files.text_formats import Place, Row

MAGIC = b"PAR1"  # the first bytes of such a file
BATCH = 256  # rows: some megabytes, whatever is in them


def parquet_rows(path: Path, what: str) -> Iterator[tuple[Place, Row]]:
    """The rows of a Parquet file. Raises InputError."""
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise InputError(
            f"{what} {path}: a Parquet file, and pyarrow is not installed",
            "the extra parquet",
            "type: pip install 'mechdrift[parquet]'",
        ) from error
    try:
        with ParquetFile(path) as file:
            names = file.schema_arrow.names
            if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
                raise InputError(f"{what} {path}: column {twice[0]!r} stands twice", "a name for each column", "rename one")
            number = 0
            for batch in file.iter_batches(BATCH):
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path}, row {number}", row
    except (ArrowException, OSError) as error:
        summary = " ".join(str(error).split())[:200]
        raise InputError(f"{what} {path}: {summary}", "a whole Parquet file", "fetch it again") from error
