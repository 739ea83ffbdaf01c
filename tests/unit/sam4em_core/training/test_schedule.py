import pytest

from sam4em_core.training.schedule import rate_factor, stage_progress


def test_warm_up_begins_with_the_first_step_and_ends_in_time():
    factors = [rate_factor(step, 0.0, 4, 0.0) for step in range(6)]
    assert factors == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]


def test_cosine_ends_at_its_floor():
    assert rate_factor(100, 0.5, 0, 0.1) == pytest.approx(0.55)
    assert rate_factor(100, 1.0, 0, 0.1) == pytest.approx(0.1)
    assert rate_factor(100, 1.7, 0, 0.1) == pytest.approx(0.1)


def test_the_further_of_steps_and_minutes_counts():
    assert stage_progress(25, 100, 999.0, None) == 0.25
    assert stage_progress(25, 100, 3.0, 6.0) == 0.5
    assert stage_progress(75, 100, 3.0, 6.0) == 0.75
    assert stage_progress(75, 100, 9.0, 6.0) == 1.0
