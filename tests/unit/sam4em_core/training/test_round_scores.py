import numpy as np
import pytest

from sam4em_core.training.errors import TrainingStopped
from sam4em_core.training.pseudo_labels import PseudoLabels
from sam4em_core.training.round_scores import classes_left_out, merit, reason_to_stop, require_agreement
from sam4em_core.training.spatial_config import StopConfig

STOP = StopConfig(min_change=0.005, min_gain=0.001)


def scores(choose=0.9, agreement=0.8, change=0.1, foreground=0.2, index=1):
    volumes = {"v": {"foreground_fraction": foreground}}
    return {"round": index, "choose_dice": choose, "agreement": agreement, "change": change, "volumes": volumes}


def reason(*rounds):
    return reason_to_stop(rounds, STOP, 0.2)


def test_goes_on_while_it_gains():
    assert reason(scores(change=None)) is None
    assert reason(scores(), scores()) is None
    assert reason(scores(), scores(0.90), scores(0.902)) is None
    assert reason(scores(None), scores(None), scores(None)) is None


@pytest.mark.parametrize(
    ("last", "expected"),
    [
        (scores(change=0.004), "changed by 0.40% only"),
        (scores(agreement=0.1), "agree with Dice 0.100 only"),
        (scores(foreground=0.0, agreement=None), "finds nothing"),
        (scores(0.9005), "rose by 0.0005 only"),
        (scores(0.7), "rose by -0.2000 only"),
    ],
)
def test_stops(last, expected):
    assert expected in reason(scores(), scores(0.9), last)


def test_a_class_that_gives_its_truth_alone_is_named(caplog):
    empty = np.zeros((2, 1, 1, 1), np.uint8)
    whole, doubted = (PseudoLabels(empty > 0, empty > 0, empty, (), classes) for classes in ((), (1,)))
    found = classes_left_out(2, {"one": whole, "other": doubted}, ("glia", "synapse"))
    assert found == {"other": ["synapse"]}
    assert "round 2, volume other: the tracks disagree about synapse as a whole" in caplog.text
    assert "volume one" not in caplog.text


def test_round_0_does_not_count_as_gained(tmp_path):
    assert reason(scores(0.99), scores(0.8), scores(0.9)) is None


def test_nothing_to_learn_from(tmp_path):
    require_agreement(scores(agreement=None), 0.2, tmp_path)
    with pytest.raises(TrainingStopped, match="learn from noise"):
        require_agreement(scores(agreement=0.1), 0.2, tmp_path)
    with pytest.raises(TrainingStopped, match="finds nothing at all in v"):
        require_agreement(scores(foreground=0.0), 0.2, tmp_path)


def test_the_best_round_is_that_of_the_choose_slices_else_of_the_tracks():
    assert merit(scores(0.7, 0.9)) == 0.7
    assert merit(scores(None, 0.9)) == 0.9
    assert merit(scores(None, None)) == 0.0
