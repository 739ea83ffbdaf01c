from collections import Counter

import numpy as np
import pytest

from pipeline.errors import OurError
from pipeline.labels.downsample import downsample_mode


def slow_mode(labels, factor):
    """Cell by cell, with a counter."""
    shape = [-(-n // f) for n, f in zip(labels.shape, factor, strict=True)]
    out = np.zeros(shape, labels.dtype)
    for cell in np.ndindex(*shape):
        window = tuple(slice(c * f, (c + 1) * f) for c, f in zip(cell, factor, strict=True))
        counts = Counter(labels[window].ravel().tolist())
        most = max(counts.values())
        out[cell] = min((v for v, n in counts.items() if n == most), key=lambda v: (v == 0, v))
    return out


@pytest.mark.parametrize("factor", [(2, 2, 2), (1, 2, 2), (2, 1, 1), (1, 1, 1), (3, 2, 5)])
@pytest.mark.parametrize("shape", [(7, 11, 13), (8, 6, 10), (1, 1, 1), (2, 3, 1)])
def test_against_a_counter(factor, shape):
    rng = np.random.default_rng(17)
    labels = rng.integers(0, 4, shape).astype(np.uint64)
    labels[labels == 3] = 2**63 + 1
    found = downsample_mode(labels, factor)
    assert found.dtype == np.uint64
    assert (found == slow_mode(labels, factor)).all()


def test_a_sheet_one_voxel_thin_survives():
    labels = np.zeros((4, 4, 4), np.uint64)
    labels[1] = 9
    assert (downsample_mode(labels, (2, 2, 2))[0] == 9).all()


def test_the_input_stays_as_it_is():
    labels = np.arange(27, dtype=np.uint64).reshape(3, 3, 3)
    before = labels.copy()
    downsample_mode(labels, (2, 2, 2))
    assert (labels == before).all()


def test_what_cannot_be_halved():
    with pytest.raises(OurError, match="unsigned"):
        downsample_mode(np.zeros((2, 2, 2), np.int64), (2, 2, 2))
    with pytest.raises(OurError, match="positive"):
        downsample_mode(np.zeros((2, 2, 2), np.uint64), (0, 2, 2))
