"""Broken and odd inputs, each with what a run has to say of it.

`python tests/helpers/corpus.py [KIND]` runs them and prints a table.

Every case is one command line, typed in a folder that holds what it names.
"""

import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock

from cases import files, identity, pipelines, tokens, whole
from cases.case import Case
from stand_in import environment, stand_in

CASES: tuple[Case, ...] = (*files.CASES, *whole.CASES, *identity.CASES, *tokens.CASES, *pipelines.CASES)

MAKING = Lock()  # transformers is imported part by part, and models are drawn from one seed


def run(case: Case, folder: Path) -> tuple[str, int, str]:
    """One case in a process and with a hub of its own: its command, its exit code, and what it printed."""
    folder.mkdir()
    with stand_in() as server:
        with MAKING:
            arguments = case.make(folder, server)
        command, given = case.command(arguments, folder.parent / "cache")
        variables = os.environ | environment(server, folder / "home") | given | case.environment
        ended = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, check=False)
    return " ".join(arguments), ended.returncode, ended.stdout + ended.stderr


def main() -> int:
    """Print a line a case: class, what is wrong, exit code, message. The number of cases that did not end as they should."""
    wrong = 0
    chosen = [case for case in CASES if case.kind in (sys.argv[1:] or [case.kind])]
    with tempfile.TemporaryDirectory() as home, ThreadPoolExecutor(os.cpu_count()) as pool:
        ended = pool.map(lambda numbered: run(numbered[1], Path(home) / str(numbered[0])), enumerate(chosen))
        for number, (case, (command, code, printed)) in enumerate(zip(chosen, ended, strict=True)):
            result = next((line for line in printed.splitlines() if case.message in line), None)
            fine = (
                result is not None
                and code == case.code
                and "Traceback (most" not in printed
                and (case.may_hold or " passed" not in printed)
            )
            wrong += not fine
            line = (result or f"(not said: {case.message})").removeprefix("ERROR: ").strip().replace(f"{home}/{number}/", "")
            print(f"{'  ' if fine else '! '}{case.kind:<18} {case.name:<40} {code}  {line[:160]}", flush=True)
            if not fine:
                print(f"  {'ARGS=' if case.gate else 'pytest '}{command}")
    print(f"{len(chosen)} cases of {len({case.kind for case in chosen})} classes, {wrong} not as they should be")
    return wrong


if __name__ == "__main__":
    sys.exit(min(main(), 1))
