import logging

from sam4em_core.training import report as report_module
from sam4em_core.training.report import StepReporter
from sam4em_core.training.state import LOG_COLUMNS, StepLog, read_log


def row(step, loss):
    return {**dict.fromkeys(LOG_COLUMNS, "0"), "step": step, "stage": "A", "loss": loss}


def test_writes_every_step_and_plain_lines_without_a_terminal(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(report_module, "_LINE_SECONDS", 0.0)
    caplog.set_level(logging.INFO)
    with StepReporter(StepLog(tmp_path / "log.csv", 0), 7, 0) as report:
        report.step(row(0, 0.5))
        report.step(row(1, 0.4))
    assert [item["step"] for item in read_log(tmp_path / "log.csv")] == ["0", "1"]
    assert "A: step 1 of 7, loss 0.4950" in caplog.text


def test_lines_are_rare(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    with StepReporter(StepLog(tmp_path / "log.csv", 0), 7, 0) as report:
        report.step(row(0, 0.5))
    assert caplog.text == ""
