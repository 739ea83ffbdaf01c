import numpy as np
import pytest

from sam4em_core.config import UnetConfig
from sam4em_core.errors import ImageShapeError
from sam4em_core.lattice import LatticeGatherer, downsampled, lattice_image
from sam4em_core.patches import patch_grid

UNET = UnetConfig(widths=(8, 8, 8, 8), patch_zyx=(8, 16, 16), overlap_zyx=(2, 3, 3))
BOUNDS = ((-3, -5, 0), (18, 47, 53))
SHAPE = (21, 52, 53)


@pytest.fixture
def image():
    return np.random.default_rng(2).random(SHAPE, dtype=np.float32)


def slabs_of(gatherer, image, depth):
    (z, y, x), (end_z, end_y, end_x) = gatherer.box
    rows, columns = slice(y + 5, end_y + 5), slice(x, end_x)
    for first in range(z, end_z, depth):
        yield image[first + 3 : min(end_z, first + depth) + 3, rows, columns]


def test_groups_of_voxels_become_their_mean():
    image = np.arange(2 * 3 * 4, dtype=np.float32).reshape(2, 3, 4)
    np.testing.assert_allclose(downsampled(image, (2, 3, 2)), image.mean((0, 1)).reshape(2, 2).mean(1).reshape(1, 1, 2))


@pytest.mark.parametrize("factors", [(2, 2, 2), (1, 2, 2), (3, 2, 1)])
def test_any_box_holds_the_means_of_the_whole_and_a_cut_group_repeats_its_last_voxel(image, factors):
    padded = np.pad(image, [(0, -extent % factor) for extent, factor in zip(SHAPE, factors, strict=True)], mode="edge")
    means = downsampled(padded, factors)
    grid = patch_grid(UNET, factors, BOUNDS)
    for start, stop in [BOUNDS, ((4, 3, 20), (5, 31, 22)), ((10, 40, 50), (18, 47, 53))]:
        found = lattice_image(grid, image, BOUNDS[0], start, stop)
        inside = tuple(
            slice(first, first + extent) for first, extent in zip(found.start, found.image_zyx.shape, strict=True)
        )
        assert np.array_equal(found.image_zyx, means[inside])
    assert found.image_zyx.size < means.size


def test_slabs_of_any_whole_groups_give_the_same_image(image):
    grid = patch_grid(UNET, (2, 2, 2), BOUNDS)
    wanted = lattice_image(grid, image, BOUNDS[0], *BOUNDS)
    for depth in (2, 4, 10, 21):
        gatherer = LatticeGatherer(grid, *BOUNDS)
        for slab in slabs_of(gatherer, image, depth):
            gatherer.add(slab)
        assert np.array_equal(gatherer.image().image_zyx, wanted.image_zyx)


def test_slabs_that_do_not_fit_and_images_that_are_not_full_are_refused(image):
    gatherer = LatticeGatherer(patch_grid(UNET, (2, 2, 2), BOUNDS), *BOUNDS)
    for slab in (image[:3], image[:4, 1:], np.concatenate([image, image])):
        with pytest.raises(ImageShapeError, match="a slab has shape"):
            gatherer.add(slab)
    with pytest.raises(ImageShapeError, match="0 of 11 slices"):
        gatherer.image()
    gatherer.add(image[:4])
    with pytest.raises(ImageShapeError, match="2 of 11 slices"):
        gatherer.image()


def test_an_array_that_is_no_image_or_too_small_is_refused(image):
    grid = patch_grid(UNET, (2, 2, 2), BOUNDS)
    with pytest.raises(ImageShapeError, match="the image has"):
        lattice_image(grid, image[1:], (-2, -5, 0), *BOUNDS)
    with pytest.raises(ImageShapeError, match="float32"):
        lattice_image(grid, image.astype(np.uint8), BOUNDS[0], *BOUNDS)
