"""Real shapes of mitochondria, grown until they touch: a watershed on signed distances parts them again."""

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage
from skimage.segmentation import expand_labels

from pipeline.geometry import Box
from pipeline.labels.contingency import count_pairs
from pipeline.labels.instances import segment_components
from pipeline.labels.scores import detection_scores
from pipeline.labels.splits import inside_distance, segment_watershed
from pipeline.storage import open_volume
from sam4em_core.sdf import signed_distance

DATA = Path(__file__).parents[4] / "shared/data/urocell_mito_labels.zarr"
SPACING = (30.0, 32.0, 32.0)
TAU_NM = 256.0
# What a U-Net gets wrong, as a fraction of tau: smooth, so that surfaces move and do not fray.
NOISE = 0.06
pytestmark = pytest.mark.skipif(not DATA.exists(), reason=f"{DATA} is not here (UroCell, non-commercial)")


def touching(name):
    """Every second voxel of the instances, each grown by two voxels: neighbors meet along faces."""
    volume = open_volume(str(DATA / name / "0"), kind="labels")
    labels = volume.read(Box.of_shape(volume.info.shape))[::2, ::2, ::2]
    return np.ascontiguousarray(expand_labels(labels, 2).astype(np.uint32))


def predicted(instances):
    """Signed distances between the instances as a U-Net might give them, as stored bytes."""
    field = signed_distance(instances, SPACING, TAU_NM)
    noise = ndimage.gaussian_filter(np.random.default_rng(5).normal(size=field.shape), 2.0)
    noisy = np.clip(field + NOISE * noise / noise.std(), -1, 1)
    return np.rint((noisy + 1) * 127.5).astype(np.uint8)


def ap75(found, truth):
    return detection_scores(count_pairs(found, truth), 75).average_precision


@pytest.mark.parametrize("name", ["fib1-3-3-0", "fib1-4-3-0"])
def test_the_watershed_on_signed_distances_finds_more_of_them(name):
    truth = touching(name)
    sdf = predicted(truth)
    # The network's mask does not know the surfaces between objects that touch.
    probability = np.where(truth > 0, 255, 0).astype(np.uint8)
    components = segment_components(probability, 128, 0)
    parted = segment_watershed(probability, 128, SPACING, 200.0, 0, inside_distance(sdf, TAU_NM))
    by_components, by_watershed = ap75(components, truth), ap75(parted, truth)
    assert by_watershed > by_components + 0.3
    assert by_watershed > 0.9
