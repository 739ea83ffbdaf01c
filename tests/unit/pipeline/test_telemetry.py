import io
import logging

import pytest
from rich.console import Console

from pipeline.telemetry import (
    LiveReporter,
    PlainReporter,
    Progressed,
    RateMeter,
    SilentReporter,
    StageProgress,
    describe_stage,
    describe_workers,
    format_duration,
    make_reporter,
    set_up_logging,
)


@pytest.fixture
def root_logger():
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield root
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(3.6, "4 s"), (59.4, "59 s"), (61, "1 min"), (7500, "2 h 05 min"), (3 * 86400 + 4 * 3600, "3 d 04 h")],
)
def test_durations(seconds, text):
    assert format_duration(seconds) == text


def test_rates_follow_the_last_minute():
    now = [0.0]
    meter = RateMeter(lambda: now[0])
    assert meter.update(0) is None
    now[0] = 10.0
    assert meter.update(20) == 2.0
    for step in range(1, 13):
        now[0] = 10.0 + 10 * step
        rate = meter.update(20 + 50 * step)
    assert rate == 5.0


def test_plain_lines_come_at_intervals_and_at_the_end():
    stream, now = io.StringIO(), [0.0]
    with PlainReporter(stream, clock=lambda: now[0]) as reporter:
        for done in range(1, 31):
            reporter.update(Progressed({"label": StageProgress(103, done, 1, 4), "match": StageProgress(7, 0)}))
            now[0] += 1.0
    assert stream.getvalue().splitlines() == [
        "label: 1 of 103 done, 1 failed or blocked, 4 running",
        "label: 11 of 103 done, 1 failed or blocked, 4 running, 1/s, 2 min left",
        "label: 21 of 103 done, 1 failed or blocked, 4 running, 1/s, 1 min left",
        "label: 30 of 103 done, 1 failed or blocked, 4 running, 0.967/s, 1 min left",
    ]


def test_a_finished_stage_has_no_time_left():
    assert describe_stage("label", StageProgress(11, 11), 3.0) == "label: 11 of 11 done"


def test_bars_on_a_terminal():
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=100)
    with LiveReporter(console) as reporter:
        reporter.update(Progressed({"label": StageProgress(13, 5, 2)}))
    assert "label" in stream.getvalue()
    assert "5/13" in stream.getvalue()
    assert "2 failed" in stream.getvalue()


def test_below_the_bars_stands_what_is_about_all_stages():
    stream = io.StringIO()
    now = [0.0]
    console = Console(file=stream, force_terminal=True, width=200)
    with LiveReporter(console, clock=lambda: now[0]) as reporter:
        reporter.update(Progressed({"label": StageProgress(100, 0)}))
        now[0] = 10.0
        reporter.update(Progressed({"label": StageProgress(100, 10, 3)}, 4, 0.91, 3 * 2**30, 2))
    shown = stream.getvalue()
    for text in ("about 1 min left", "workers: 4", "91% of their time", "3.00 GiB", "tries repeated: 2", "blocked: 3"):
        assert text in shown


def test_a_run_of_which_nothing_is_known_has_no_line():
    assert describe_workers(Progressed({}), None) == ""


def test_a_pipe_gets_lines():
    assert isinstance(make_reporter(io.StringIO()), PlainReporter)


def test_silence_keeps_the_last_state():
    with SilentReporter() as reporter:
        reporter.update(Progressed({"label": StageProgress(13, 5)}))
    assert reporter.latest.stages["label"].done == 5


@pytest.mark.usefixtures("root_logger")
def test_logs_are_plain_lines_in_a_file_and_libraries_are_quiet():
    stream = io.StringIO()
    set_up_logging("info", stream)
    set_up_logging("info", stream)
    logging.getLogger("pipeline.run").info("hello")
    logging.getLogger("pipeline.run").debug("too much")
    logging.getLogger("distributed.scheduler").info("about myself")
    assert stream.getvalue().count("hello") == 1
    assert "INFO    pipeline.run: hello" in stream.getvalue()
    assert "myself" not in stream.getvalue()
    assert "too much" not in stream.getvalue()
