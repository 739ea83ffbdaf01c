import numpy as np
import pytest
from scipy import ndimage

from sam4em_core.errors import CoreConfigError
from sam4em_core.sdf import halo_voxels, instances_of, mask_of, seeds_of, signed_distance

SPACING = (29.0, 8.0, 5.0)
TAU = 96.0


def blobs(shape=(23, 47, 61), seed=3):
    noise = np.random.default_rng(seed).normal(size=shape)
    return ndimage.gaussian_filter(noise, (1.0, 3.0, 5.0)) > 0.02


def test_by_hand_along_one_axis():
    mask = np.zeros((1, 1, 9), bool)
    mask[..., 3:6] = True
    field = signed_distance(mask, (40.0, 40.0, 4.0), 8.0)
    expected = np.array([-10, -6, -2, 2, 6, 2, -2, -6, -10]) / 8.0
    np.testing.assert_allclose(field[0, 0], np.clip(expected, -1, 1), atol=1e-6)


def test_agrees_with_scipy_in_nm():
    mask = blobs()
    inside = ndimage.distance_transform_edt(mask, sampling=SPACING) - 2.5
    outside = 2.5 - ndimage.distance_transform_edt(~mask, sampling=SPACING)
    expected = np.clip(np.where(mask, inside, outside) / TAU, -1, 1)
    field = signed_distance(mask, SPACING, TAU)
    assert field.dtype == np.float32
    np.testing.assert_allclose(field, expected, atol=1e-6)


@pytest.mark.parametrize(("value", "expected"), [(0, -1.0), (7, 1.0)])
def test_one_side_alone_is_cut_off(value, expected):
    assert (signed_distance(np.full((3, 5, 7), value, np.uint8), SPACING, TAU) == expected).all()


def test_block_by_block_equals_the_whole():
    labels = ndimage.label(blobs())[0].astype(np.uint32)
    whole = signed_distance(labels, SPACING, TAU)
    halo = halo_voxels(SPACING, TAU)
    for start, stop in (((0, 0, 0), (11, 23, 29)), ((7, 19, 31), (23, 47, 61)), ((5, 13, 17), (6, 14, 18))):
        low = [max(0, a - h) for a, h in zip(start, halo, strict=True)]
        high = [min(n, b + h) for b, h, n in zip(stop, halo, labels.shape, strict=True)]
        part = signed_distance(labels[tuple(map(slice, low, high))], SPACING, TAU)
        inner = tuple(slice(a - c, b - c) for a, b, c in zip(start, stop, low, strict=True))
        assert np.array_equal(part[inner], whole[tuple(map(slice, start, stop))])


def test_the_surface_between_touching_objects_counts():
    labels = np.zeros((1, 9, 40), np.uint8)
    labels[:, 1:8, 4:20], labels[:, 1:8, 20:36] = 1, 2
    as_mask = signed_distance(labels > 0, (1.0, 1.0, 1.0), 8.0)
    as_instances = signed_distance(labels, (1.0, 1.0, 1.0), 8.0)
    assert as_mask[0, 4, 19] == as_mask[0, 4, 12]
    assert as_instances[0, 4, 19] == as_instances[0, 4, 20] == np.float32(0.5 / 8)
    assert np.array_equal(as_instances[:, :, 8:16], as_mask[:, :, 8:16])


def test_the_zero_level_is_the_mask_again():
    mask = blobs()
    assert np.array_equal(mask_of(signed_distance(mask, SPACING, TAU)), mask)


def test_touching_objects_part_and_a_thin_one_stays_whole():
    z, y, x = np.ogrid[:31, :41, :67]
    first = (z - 15) ** 2 + (y - 20) ** 2 + (x - 19) ** 2 < 13**2
    second = (z - 15) ** 2 + (y - 20) ** 2 + (x - 41) ** 2 < 13**2
    mask = first | second
    mask[2:4, 3:38, 62:64] = True
    field = signed_distance(mask, (1.0, 1.0, 1.0), 10.0)
    assert seeds_of(field, 0.8).max() == 2
    labels = instances_of(field, 0.8)
    assert np.array_equal(labels > 0, mask)
    assert labels.max() == 3
    assert labels[15, 20, 12] != labels[15, 20, 48] != 0
    assert len(np.unique(labels[2:4, 3:38, 62:64])) == 1
    share = np.bincount(labels[first & ~second])
    assert share.max() / share.sum() > 0.98


@pytest.mark.parametrize(
    ("labels", "spacing", "tau"),
    [
        (np.zeros((3, 3), bool), SPACING, TAU),
        (np.zeros((3, 3, 3), np.float32), SPACING, TAU),
        (np.zeros((3, 3, 3), np.int64), SPACING, TAU),
        (np.zeros((3, 3, 3), bool), (1.0, 0.0, 1.0), TAU),
        (np.zeros((3, 3, 3), bool), SPACING, 2.0),
    ],
)
def test_what_has_no_distance_is_refused(labels, spacing, tau):
    with pytest.raises(CoreConfigError, match="computing signed distances"):
        signed_distance(labels, spacing, tau)


@pytest.mark.parametrize("depth", [0.0, 1.0, -0.5])
def test_seeds_lie_inside(depth):
    with pytest.raises(CoreConfigError, match="depth"):
        seeds_of(np.zeros((3, 3, 3), np.float32), depth)
