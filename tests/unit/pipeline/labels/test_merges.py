import numpy as np
import pytest

from pipeline.errors import OurError
from pipeline.labels.merges import MergeKind, MergeOrders, MergeRule, Reason, accept_edges
from pipeline.labels.overlaps import OverlapTable

# Shared, lower and upper voxels: IoU 1, 1/2, 1/3, 1/19.
TABLE = OverlapTable(
    *(
        np.array(c, np.uint64)
        for c in ([1, 2, 3, 4], [1, 2, 3, 4], [10, 4, 3, 1], [10, 6, 6, 10], [10, 6, 6, 10], [0] * 4)
    )
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


def test_every_judgement_says_why():
    assert set(accept_edges(TABLE, MergeRule(MergeKind.ANY)).reason) == {Reason.SHARED}
    found = accept_edges(TABLE, MergeRule(MergeKind.IOU, 0.5)).reason
    assert found.tolist() == [Reason.OVERLAP, Reason.OVERLAP, Reason.BELOW, Reason.BELOW]


def test_orders_come_before_the_rule_and_a_veto_before_an_order_to_merge():
    pairs = [(3, 3, True), (1, 1, False), (2, 2, True), (2, 2, False), (1, 9, True), (9, 1, False)]
    lower, upper, merge = zip(*pairs, strict=True)
    orders = MergeOrders(np.array(lower, np.uint64), np.array(upper, np.uint64), np.array(merge))
    scored = accept_edges(TABLE, MergeRule(MergeKind.IOU, 0.5), orders)
    assert scored.accepted.tolist() == [False, False, True, False]
    assert scored.reason.tolist() == [Reason.VETO, Reason.VETO, Reason.FORCED, Reason.BELOW]
    assert not scored.near_miss.any()


@pytest.mark.parametrize("min_iou", [0.0, -0.1, 1.1])
def test_thresholds_that_merge_everything_or_nothing(min_iou):
    with pytest.raises(OurError, match="min_iou"):
        MergeRule(MergeKind.IOU, min_iou)
