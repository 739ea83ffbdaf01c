import json

import pytest

from pipeline.evaluation import Scores, shown_scores
from pipeline.geometry import Box
from pipeline.labels.scores import BinaryScores, SurfaceScore


def scores(surface):
    return Scores(
        roi=Box.of_shape((2, 3, 5)),
        voxel_size_zyx_nm=(11.0, 5.0, 7.0),
        binary=BinaryScores(7, 2, 1),
        surface=surface,
        hd95_cap_nm=1000.0,
        instances=None,
        instances_absent="a mask",
        num_predicted=1,
        num_true=1,
    )


@pytest.mark.parametrize(
    ("surface", "text"),
    [
        (SurfaceScore(1000.0, True), ">= 1000 nm"),
        (SurfaceScore(1000.0, False), "1000 nm"),
        (SurfaceScore(41.25, False), "41.25 nm"),
        (SurfaceScore(0.0, False), "0 nm"),
        (None, None),
    ],
)
def test_a_cap_never_looks_like_a_distance(surface, text):
    values = json.loads(json.dumps(scores(surface).as_dict()))
    assert values["hd95"] == text
    assert values["hd95_at_least"] == (None if surface is None else surface.at_least)
    shown = shown_scores(values)
    assert [name for name in shown if "hd95" in name] == ["hd95"]
    assert shown["hd95"] == text
    assert shown["dice"] == pytest.approx(14 / 17)
