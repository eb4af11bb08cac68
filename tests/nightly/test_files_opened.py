"""All files that a whole run opens or looks for in a checkpoint are in its identity: strace sees what Python cannot."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mechdrift.checkpoints.parts import NAMED, READ, TEMPLATES, matches
from mechdrift.checkpoints.resolve import resolve

STRACE = shutil.which("strace")
PATH = re.compile(r'"((?:[^"\\]|\\.)*)"')
REFUSED = {"adapter_config.json"}  # a folder that holds both is refused: checkpoints/adapters.py
WEIGHTS = {"model.safetensors", "model.safetensors.index.json"}


def looked_for(trace: Path, started: Path, folder: Path) -> tuple[set[str], set[str]]:
    """Names below a folder that system calls were given, and of them those of calls that succeeded."""
    names, found = set(), set()
    for line in trace.read_text(errors="replace").splitlines():
        for text in PATH.findall(line):
            path = Path(os.path.normpath(started / text))
            if folder in path.parents:
                name = path.relative_to(folder).as_posix()
                names.add(name)
                if "= -1 " not in line:
                    found.add(name)
    return names, found


@pytest.mark.skipif(STRACE is None, reason="no strace here: apt-get install strace")
def test_a_whole_run_looks_for_nothing_that_is_no_part_of_the_identity(tmp_path: Path) -> None:
    for name in ("base", "instruct"):
        shutil.copytree(resolve(f"organism:{name}").folder, tmp_path / name, ignore=shutil.ignore_patterns("*.jsonl"))
    trace = tmp_path / "trace.txt"
    run = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--base=base", "--post=instruct", "--mechdrift-cache=cache"]
    command = [str(STRACE), "-f", "-qq", "-s", "4096", "-e", "trace=file", "-o", str(trace), *run]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout[-2000:] + ended.stderr[-2000:]
    for name in ("base", "instruct"):
        looked, found = looked_for(trace, tmp_path, tmp_path / name)
        # The trace sees reads of Python, of tokenizers and of safetensors alike, and looks at what is not there.
        assert {"config.json", "generation_config.json", "tokenizer.json", "model.safetensors"} <= found
        assert {"special_tokens_map.json", "added_tokens.json"} & (looked - found)
        parts = [*READ, *(pattern for patterns in NAMED.values() for pattern in patterns)]
        unknown = {
            each
            for each in looked - WEIGHTS - REFUSED - {TEMPLATES}
            if not (matches(each, tuple(parts)) and "/" not in each) and not each.startswith(f"{TEMPLATES}/")
        }
        assert unknown == set(), f"not in the identity of a checkpoint: {sorted(unknown)}"
