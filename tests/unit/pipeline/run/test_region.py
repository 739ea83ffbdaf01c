import numpy as np
import pytest

from pipeline.errors import UserError
from pipeline.run.region import nearest_level, parse_roi
from pipeline.storage import LevelInfo, VolumeInfo

SHAPE = (165, 768, 1024)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("5:5,0:7,0:7", "holds no voxel"), ("0:200,0:7,0:7", "outside the volume"), ("1:2", "expected z0:z1")],
)
def test_regions_that_cannot_be(text, expected):
    with pytest.raises(UserError, match=expected):
        parse_roi(text, SHAPE)


def test_the_level_nearest_to_the_model_is_read():
    levels = tuple(LevelInfo(str(k), SHAPE, (5.0 * 2**k,) * 3) for k in range(4))
    info = VolumeInfo("em.zarr", "ome-zarr", SHAPE, np.dtype(np.uint8), (64, 64, 64), (5.0,) * 3, levels)
    assert nearest_level(info, (8.0, 8.0, 8.0)) == 1
    assert nearest_level(info, (6.0, 6.0, 6.0)) == 0
    assert nearest_level(info, None) == 0
