"""Compares a segmentation with the truth, block by block, for volumes of any size.

    prediction --+                        +-- pair table -----> VOI, adapted Rand, AP50, AP75
                 +-- common voxel grid ---+-- mask counts ----> Dice, IoU, precision, recall
    truth -------+   (the finer of two)   +-- surfaces + EDT -> HD95

The common grid has, along each axis, the smaller of the two voxel sizes; the coarser volume is repeated
(nearest neighbor). Both grids start at the same point of space; a volume that covers a part only says where
its first voxel lies.
"""

from pipeline.evaluation.compare import DEFAULT_BLOCK, evaluate
from pipeline.evaluation.placement import Placed, Readable, Stored, ValuesOnly, place
from pipeline.evaluation.report import InstanceScores, Scores, shown_scores

__all__ = [
    "DEFAULT_BLOCK",
    "InstanceScores",
    "Placed",
    "Readable",
    "Scores",
    "Stored",
    "ValuesOnly",
    "evaluate",
    "place",
    "shown_scores",
]
