from pipeline.run.timeline import MOST_POINTS, TIMELINE_KEY, Timeline


def test_points_are_bounded_however_long_a_run_takes():
    timeline = Timeline()
    for step in range(20_000):
        timeline.note(step * 0.6, {"label": step}, 2, 0.5)
    assert MOST_POINTS / 4 < len(timeline.points) < MOST_POINTS
    times = [point["s"] for point in timeline.points]
    assert times == sorted(times)
    assert times[0] == 0
    assert times[-1] > 0.95 * 20_000 * 0.6


def test_notes_that_come_too_fast_are_passed_over():
    timeline = Timeline()
    for step in range(100):
        timeline.note(step * 0.01, {}, 1, None)
    assert len(timeline.points) == 2


def test_calls_before_are_kept(fake):
    fake.drive()
    first = Timeline.of(fake.store)
    assert len(first.earlier) == 1
    first.note(1.0, {"label": 3}, 1, None)
    fake.store.put(TIMELINE_KEY, b"no JSON")
    assert Timeline.of(fake.store).earlier == []
