import numpy as np
import pytest

from pipeline.errors import OurError
from pipeline.labels.merges import MergeKind, MergeRule, accept_edges
from pipeline.labels.overlaps import OverlapTable

# Shared, lower and upper voxels: IoU 1, 1/2, 1/3, 1/19.
TABLE = OverlapTable(
    *(np.array(c, np.uint64) for c in ([1, 2, 3, 4], [1, 2, 3, 4], [10, 4, 3, 1], [10, 6, 6, 10], [10, 6, 6, 10]))
)


def test_any_takes_every_shared_voxel():
    scored = accept_edges(TABLE, MergeRule(MergeKind.ANY))
    assert scored.accepted.all()
    assert not scored.near_miss.any()
    assert scored.score.tolist() == pytest.approx([1, 0.5, 1 / 3, 1 / 19])


def test_iou_takes_the_threshold_itself_and_keeps_near_misses():
    scored = accept_edges(TABLE, MergeRule(MergeKind.IOU, 0.5))
    assert scored.accepted.tolist() == [True, True, False, False]
    assert scored.near_miss.tolist() == [False, False, True, False]


@pytest.mark.parametrize("min_iou", [0.0, -0.1, 1.1])
def test_thresholds_that_merge_everything_or_nothing(min_iou):
    with pytest.raises(OurError, match="min_iou"):
        MergeRule(MergeKind.IOU, min_iou)
