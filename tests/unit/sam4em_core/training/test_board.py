import logging
import sys

import pytest

from sam4em_core.training.board import Board
from sam4em_core.training.scores import ClassScore
from sam4em_core.training.state import LOG_COLUMNS


def row(step):
    return {**dict.fromkeys(LOG_COLUMNS, "0.5"), "step": step}


def test_curves_can_be_read_back(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = Board(tmp_path / "t", 0, enabled=True)
    board.step(row(0))
    board.step(row(1))
    board.scores(2, {"mito": ClassScore(0.4, 0.8, 0.9, has_truth=True)})
    board.close()
    events = EventAccumulator(str(tmp_path / "t")).Reload()
    assert [(e.step, e.value) for e in events.Scalars("train/loss")] == [(0, 0.5), (1, 0.5)]
    assert events.Scalars("choose/mito IoU")[0].value == pytest.approx(0.8)


def test_a_missing_package_is_said(tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with caplog.at_level(logging.WARNING):
        board = Board(tmp_path / "t", 0, enabled=True)
    assert "pip install tensorboard" in caplog.text
    board.step(row(0))
    board.scores(0, {})
    board.close()
    assert not (tmp_path / "t").exists()


def test_switched_off_it_says_and_writes_nothing(tmp_path, caplog):
    Board(tmp_path / "t", 0, enabled=False).step(row(0))
    assert not caplog.text
    assert not (tmp_path / "t").exists()
