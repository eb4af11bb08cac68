"""`mechdrift cache`: what it tells of a folder, what it finds bad, what it removes and what it never touches."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
from filelock import FileLock

from mechdrift.commands.cache import contents
from mechdrift.commands.cli import main
from mechdrift.engine.store import Part, Store

DAY = 86400


def record(folder: Path, label: str, n: int, days_ago: float = 0, numbers: int = 1000) -> list[Path]:
    """A recording of two parts, last used so long ago."""
    known = set(folder.rglob("*.safetensors"))
    Store(folder).get({"n": n}, [Part((numbers,), lambda: torch.full((numbers,), float(n)))] * 2, label)
    files = sorted(set(folder.rglob("*.safetensors")) - known)
    for path in files:
        os.utime(path, (time.time() - days_ago * DAY,) * 2)
    return files


def organism(folder: Path, name: str, days_ago: float = 0) -> Path:
    path = folder / "organisms" / name
    path.mkdir(parents=True)
    for inner in ("model.safetensors", "config.json"):
        (path / inner).write_bytes(bytes(2_000_000))
        os.utime(path / inner, (time.time() - days_ago * DAY,) * 2)
    return path


DRIFT = "drift-basis-turned@0.5-0123456789abcdef"


def line(text: str, start: str) -> list[str]:
    """Cells of the one line that begins so."""
    (found,) = (one for one in text.splitlines() if one.strip().startswith(start))
    return re.split(r"\s{2,}", found.strip())


def test_info_adds_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = record(tmp_path, "organism:base (aaa)", 1, days_ago=40)
    files += record(tmp_path, "organism:base (aaa)", 2)
    files += record(tmp_path, "\x1b[31mevil\n/../x", 3, numbers=300_000)
    organism(tmp_path, DRIFT)
    organism(tmp_path, "instruct-pythia")
    (tmp_path / "v2" / "stranger.txt").write_text("not ours")
    assert main(["cache", "info", "--dir", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    size = sum(path.stat().st_size for path in files)
    assert line(out, "folder") == ["folder", str(tmp_path)]
    assert line(out, "recordings")[:3] == ["recordings", "3", f"{size / 1e6:.1f} MB"]
    old, new = (time.strftime("%Y-%m-%d", time.localtime(time.time() - days * DAY)) for days in (40, 0))
    assert line(out, "organism:base")[1] == "2"
    assert line(out, "organism:base")[3] == f"last used {old} to {new}"
    assert line(out, "�[31mevil�/../x")[1:3] == ["1", "2.4 MB"]
    assert line(out, "derived")[1:3] == ["1", "4.0 MB"]
    assert line(out, "organism:drift-basis-turned@0.5")[1:3] == ["1", "4.0 MB"]
    assert line(out, "built")[1:] == ["1", "4.0 MB", "never pruned"]


def test_an_empty_default_cache_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for action in ("info", "verify", "prune"):
        assert main(["cache", action]) == 0
    assert str(tmp_path / "mechdrift") in capsys.readouterr().out


def test_verify_names_what_is_bad(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record(tmp_path, "a", 1)
    bad, _ = record(tmp_path, "b", 2)
    assert main(["cache", "verify", "--dir", str(tmp_path)]) == 0
    assert capsys.readouterr().out == "4 files read, 0 bad\n"
    content = bytearray(bad.read_bytes())
    content[len(content) // 2] ^= 1
    bad.write_bytes(content)
    assert main(["cache", "verify", "--dir", str(tmp_path)]) == 1
    first, last = capsys.readouterr().out.splitlines()
    assert first == f"{bad.relative_to(tmp_path)}: its content is not what was written"
    assert last.startswith("4 files read, 1 bad")


def test_prune_by_age_goes_by_the_last_use(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old, used, new = (record(tmp_path, "a", n, days) for n, days in ((1, 20), (2, 20), (3, 5)))
    Store(tmp_path).get({"n": 2}, [Part((1000,), pytest.fail)] * 2)
    drift, fresh = organism(tmp_path, DRIFT, 20), organism(tmp_path, DRIFT.replace("0.5", "1"), 5)
    assert main(["cache", "prune", "--dir", str(tmp_path), "--older-than", "10"]) == 0
    out = capsys.readouterr().out
    assert not any(path.exists() for path in [*old, drift])
    assert all(path.exists() for path in [*used, *new, fresh])
    assert "removed: 1 recordings, 0.0 MB" in out
    assert "removed: 1 derived organisms, 4.0 MB" in out
    assert "kept: 2 recordings, 1 derived organisms, 4.0 MB" in out
    assert len(contents(tmp_path).idle_locks) == 0


def test_what_is_remembered_of_weight_files_is_told_and_goes_by_age(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "identities" / "v1"
    folder.mkdir(parents=True)
    old, new, cut = (folder / name for name in (f"{'a' * 64}.json", f"{'b' * 64}.json", f"{'c' * 64}.9.tmp"))
    for path in (old, new, cut):
        path.write_bytes(bytes(500_000))
    os.utime(old, (time.time() - 40 * DAY,) * 2)
    assert main(["cache", "info", "--dir", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert line(out, "identities")[1:3] == ["2", "1.0 MB"]
    assert line(out, "temporary")[1:3] == ["1", "0.5 MB"]
    assert main(["cache", "prune", "--dir", str(tmp_path), "--older-than", "30"]) == 0
    assert "removed: 1 identities, 0.5 MB" in capsys.readouterr().out
    assert list(folder.iterdir()) == [new]


def test_output_that_nobody_reads_to_its_end_is_no_error(tmp_path: Path) -> None:
    """`mechdrift cache info | head -0`."""
    program = "import sys; from mechdrift.commands.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", program, "cache", "info", "--dir", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        assert child.stdout
        assert child.stderr
        child.stdout.close()
        assert child.stderr.read() == ""


def test_prune_by_size_takes_the_least_recently_used(tmp_path: Path) -> None:
    files = [record(tmp_path, "a", n, days_ago=n, numbers=100_000) for n in (1, 2, 3, 4)]
    gigabytes = 2.5 * sum(path.stat().st_size for path in files[0]) / 1e9
    assert main(["cache", "prune", "--dir", str(tmp_path), "--max-size", str(gigabytes)]) == 0
    assert [all(path.exists() for path in both) for both in files] == [True, True, False, False]
    assert main(["cache", "prune", "--dir", str(tmp_path), "--max-size", "0"]) == 0
    assert not list(tmp_path.rglob("*.safetensors"))


def test_prune_touches_nothing_that_is_not_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In a folder that is more than a cache, with links out of it."""
    outside = tmp_path / "outside"
    key = "ab" * 32
    strangers = [
        outside / "ab" / f"{key}.0.safetensors",
        outside / DRIFT / "model.safetensors",
        tmp_path / "here" / "thesis.tex",
        tmp_path / "here" / "v2" / "ab" / "thesis.safetensors",
        tmp_path / "here" / "v2" / "thesis" / f"{key}.0.safetensors",
        tmp_path / "here" / "v2" / "ab" / f"{key}.txt",
        tmp_path / "here" / "organisms" / "base" / "model.safetensors",
        tmp_path / "here" / "organisms" / "base.partial" / "model.safetensors",
    ]
    for path in strangers:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("mine")
        os.utime(path, (0, 0))
    here = tmp_path / "here"
    (here / "v3").symlink_to(outside)
    (here / "v2" / "cd").symlink_to(outside / "ab")
    (here / "v2" / "ab" / f"{key}.1.safetensors").symlink_to(strangers[0])
    (here / "organisms" / DRIFT).symlink_to(outside / DRIFT)
    assert main(["cache", "prune", "--dir", str(here), "--older-than", "0", "--max-size", "0"]) == 0
    assert all(path.read_text() == "mine" for path in strangers)
    assert not (here / "v2" / "ab" / f"{key}.1.safetensors").is_symlink(), "a link in the place of an entry goes, not its target"


def test_what_a_killed_derivation_left_goes_unless_another_is_at_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    left = organism(tmp_path, "tmpab12cd_3")
    lock = left.with_name("drift-basis-turned@0.lock")
    with FileLock(lock):
        assert main(["cache", "prune", "--dir", str(tmp_path)]) == 0
        assert left.exists()
    assert main(["cache", "prune", "--dir", str(tmp_path)]) == 0
    assert not left.exists()
    assert "removed: 1 leftovers of killed runs, 4.0 MB" in capsys.readouterr().out


def test_a_derived_organism_in_the_making_is_left(tmp_path: Path) -> None:
    drift = organism(tmp_path, DRIFT)
    with FileLock(drift.with_suffix(".lock")):
        assert main(["cache", "prune", "--dir", str(tmp_path), "--max-size", "0"]) == 0
        assert drift.exists()
    assert main(["cache", "prune", "--dir", str(tmp_path), "--max-size", "0"]) == 0
    assert not drift.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["prune", "--older-than", "soon"], "'soon'; expected a number, 0 or more"),
        (["prune", "--max-size", "-1"], "'-1'; expected a number, 0 or more"),
        (["prune", "--max-size", "nan"], "'nan'; expected a number, 0 or more"),
        (["info", "--dir", "no/such"], "no/such: no such folder; expected the folder of --mechdrift-cache"),
    ],
)
def test_what_cannot_be_done_is_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cache", *arguments]) == 4
    result = capsys.readouterr().err
    assert message in result
    assert result.count("\n") == 1


def test_what_is_derived_of_the_family_is_what_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The names that derive.py gives are the names that are looked for."""
    from mechdrift.organisms import derive

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(derive, "_derive", lambda _name, _strength, _folder: None)
    nothing = Mock()
    monkeypatch.setattr("mechdrift.organisms.recipe.retraining.retrained", lambda _parent, _seed, _log: (nothing, nothing))
    made = [derive.organism_folder(f"organism:{name}", name) for name in ("drift-refusal-ablated@0.5", "retrained@12")]
    found = contents(tmp_path / "mechdrift")
    assert [kept.paths for kept in found.derived] == [(folder,) for folder in made]
    assert all(kept.lock.is_file() for kept in found.derived)
    assert not found.built
