"""What a checkpoint is made of beside its weights: every small file that a library may read, so that none is left out."""

from fnmatch import fnmatch
from pathlib import Path

from mechdrift.checkpoints.shards import INDEX

CONFIG, GENERATION, TEMPLATE, TOKENIZER = "config", "generation", "template", "tokenizer"
TEMPLATES = "additional_chat_templates"
"""Folder of named chat templates; `default` in it wins over chat_template.jinja."""
# transformers may be sent to config.4.0.0.json by the config itself.
NAMED = {
    CONFIG: ("config.json", "config.*.json"),
    GENERATION: ("generation_config.json",),
    TEMPLATE: ("chat_template.jinja", "chat_template.json"),
}
# Rather one file too many, which costs a second measurement, than one too few, which serves a number of another checkpoint.
READ = ("*.json", "*.jinja", "*.model", "*.txt", "*.tiktoken")
# What trainers and people leave beside a model, and nothing that loads it reads.
NOT_READ = (
    INDEX,
    "*.index.json",
    "trainer_state.json",
    "*_results.json",
    "mechdrift-verdict.json",
    "[Rr][Ee][Aa][Dd][Mm][Ee]*",
    "LICEN[CS]E*",
    "NOTICE*",
    "requirements*.txt",
)


def part_files(folder: Path) -> dict[str, list[Path]]:
    """The files of each part: config, generation, template, tokenizer; sorted by name, empty where there are none.

    What is none of the first three is the tokenizer's.
    """
    files: dict[str, list[Path]] = {part: [] for part in (*NAMED, TOKENIZER)}
    for path in sorted(folder.iterdir()):
        if path.is_file() and matches(path.name, READ) and not matches(path.name, NOT_READ):
            part = next((part for part, names in NAMED.items() if matches(path.name, names)), TOKENIZER)
            files[part].append(path)
    files[TEMPLATE] += sorted((folder / TEMPLATES).glob("*.jinja"))
    return files


def small_files(folder: Path) -> list[Path]:
    """All of them."""
    return [path for paths in part_files(folder).values() for path in paths]


def copy_parts(source: Path, target: Path, but: tuple[str, ...] = ()) -> None:
    """Copy every part's files, byte for byte, in the same places. Raises OSError."""
    import shutil

    for part, paths in part_files(source).items():
        for path in paths if part not in but else ():
            copy = target / path.relative_to(source)
            copy.parent.mkdir(exist_ok=True)
            shutil.copyfile(path, copy)


def matches(name: str, patterns: tuple[str, ...]) -> bool:
    """Whether a file's name is of any of these patterns."""
    return any(fnmatch(name, pattern) for pattern in patterns)
