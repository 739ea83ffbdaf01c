"""Times of phases."""

import time

import pytest

from pipeline.stages.report import Stopwatch


def test_what_an_inner_phase_counts_the_outer_one_does_not(monkeypatch):
    now = iter([0.0, 1.0, 4.0, 4.5, 5.0, 10.0])
    monkeypatch.setattr(time, "perf_counter", lambda: next(now))
    watch = Stopwatch()
    with watch.phase("compute"):
        with watch.phase("read"):
            pass
        with watch.phase("compute"):
            pass
    assert watch.seconds == {"read_s": 3.0, "compute_s": 7.0}


def test_a_phase_that_fails_counts(monkeypatch):
    now = iter([0.0, 2.0])
    monkeypatch.setattr(time, "perf_counter", lambda: next(now))
    watch = Stopwatch()
    with pytest.raises(ZeroDivisionError), watch.phase("read"):
        _ = 1 / 0
    assert watch.seconds == {"read_s": 2.0}
