"""The view over a real training run of twelve checkpoints in which a drift is provoked, slowly."""

import json
from pathlib import Path

from training import trainer_of, write_statements

from mechdrift.commands.cli import main
from mechdrift.integrations import TrainerCallback

ROW, CHECKPOINTS, SLOWLY = "truth.judgement_accuracy", 12, 2.5e-4


def test_the_step_that_drifted_is_marked(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path / "run", CHECKPOINTS, False, [], learning_rate=SLOWLY)
    options = ["--mechdrift-statements", str(write_statements(tmp_path / "own.csv"))]
    callback = TrainerCallback(trainer, every=1, on_drift="mark", only=[ROW], options=options)
    trainer.add_callback(callback)
    trainer.train()
    verdicts = [outcome.verdict for outcome in callback.outcomes]
    assert len(verdicts) == CHECKPOINTS
    assert verdicts[0] == "held"
    first = verdicts.index("drifted")
    assert 1 < first < CHECKPOINTS - 1, verdicts

    records = sorted((tmp_path / "run" / "mechdrift" / "records").glob("*.json"), reverse=True)  # the report sorts them
    page, text = tmp_path / "view.html", tmp_path / "view.md"
    code = main(["report", *map(str, records), "--by-time", "--html", str(page), "--markdown", str(text)])
    assert code == 1, "as the latest run, whose gate drifted"
    assert json.loads(records[-1].read_text())["extra"] == {"step": 1}
    assert f"drifted first in step {first + 1}" in page.read_text()
    assert f"marked: step {first + 1}" in page.read_text()
    assert f"drifted first in step {first + 1}" in text.read_text().replace("\\", "")
