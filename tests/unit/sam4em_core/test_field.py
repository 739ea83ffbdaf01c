import itertools

import numpy as np
import pytest
import torch
from torch.nn import functional

from sam4em_core.config import UnetConfig
from sam4em_core.errors import ImageShapeError, NonFiniteError
from sam4em_core.field import predict_field
from sam4em_core.lattice import LatticeImage, lattice_image
from sam4em_core.patches import patch_grid
from sam4em_core.unet3d import build_unet

UNET = UnetConfig(widths=(8, 8, 8, 8), patch_zyx=(8, 16, 16), overlap_zyx=(2, 3, 3), num_classes=2)
BOUNDS = ((-3, -5, 0), (19, 47, 53))


@pytest.fixture
def network():
    torch.manual_seed(3)
    net = build_unet(UNET).eval()
    with torch.no_grad():
        net.out.weight.mul_(6)
    return net


def volume(seed=0):
    shape = tuple(b - a for a, b in zip(*BOUNDS, strict=True))
    return np.random.default_rng(seed).random(shape, dtype=np.float32)


def predict(network, grid, image, start, stop):
    low, high = grid.context(start, stop)
    window = tuple(slice(a - c, b - c) for a, b, c in zip(low, high, BOUNDS[0], strict=True))
    piece = lattice_image(grid, image[window].copy(), low, start, stop)
    return predict_field(network, grid, piece, start, stop).inside(start, stop)


@pytest.mark.parametrize("factors", [(2, 2, 2), (1, 2, 2), (1, 1, 1)])
def test_a_voxel_does_not_depend_on_the_cut(network, factors):
    grid, image = patch_grid(UNET, factors, BOUNDS), volume()
    whole = predict(network, grid, image, *BOUNDS)
    assert whole.std() > 0.2
    assert -1 <= whole.min() < whole.max() <= 1
    cuts = ((-3, 4, 19), (-5, 18, 29, 47), (0, 31, 53))
    for spans in itertools.product(*(itertools.pairwise(cut) for cut in cuts)):
        start, stop = tuple(s[0] for s in spans), tuple(s[1] for s in spans)
        inner = tuple(slice(a - c, b - c) for (a, b), c in zip(spans, BOUNDS[0], strict=True))
        assert np.array_equal(predict(network, grid, image, start, stop), whole[(slice(None), *inner)])


def test_one_patch_equals_the_network_and_torchs_interpolation(network):
    image = np.random.default_rng(1).random((16, 32, 32), dtype=np.float32)
    bounds = ((0, 0, 0), image.shape)
    grid = patch_grid(UNET, (2, 2, 2), bounds)
    found = predict_field(network, grid, lattice_image(grid, image, (0, 0, 0), *bounds), *bounds).inside(*bounds)
    with torch.inference_mode():
        coarse = network(functional.avg_pool3d(torch.from_numpy(image)[None, None], 2))
        wanted = functional.interpolate(coarse, scale_factor=2, mode="trilinear", align_corners=False)
    np.testing.assert_allclose(found, wanted[0].clamp(-1, 1).numpy(), atol=1e-4)


@pytest.mark.parametrize("factors", [(2, 2, 2), (1, 2, 2)])
def test_a_part_has_the_bits_of_the_whole(network, factors):
    grid, image = patch_grid(UNET, factors, BOUNDS), volume()
    start, stop = (1, 0, 7), (12, 31, 40)
    field = predict_field(network, grid, lattice_image(grid, image, BOUNDS[0], start, stop), start, stop)
    whole = field.inside(start, stop)
    assert whole.shape == (2, 11, 31, 33)
    for z in range(1, 12):
        part = field.inside((z, 3 + z, 9), (z + 1, 17 + z, 38))
        assert np.array_equal(part[:, 0], whole[:, z - 1, 3 + z : 17 + z, 2:31])


def test_too_little_image_is_refused_and_a_nan_is_an_error(network):
    grid, image = patch_grid(UNET, (2, 2, 2), BOUNDS), volume()
    whole = lattice_image(grid, image, BOUNDS[0], *BOUNDS)
    with pytest.raises(ImageShapeError, match="along axis 0 it reads U-Net voxels 0 to 11, the image has 1 to 11"):
        predict_field(network, grid, LatticeImage(whole.image_zyx[1:], (1, 0, 0)), *BOUNDS)
    with pytest.raises(NonFiniteError, match="patch"):
        predict_field(network, grid, LatticeImage(whole.image_zyx * np.nan, whole.start), *BOUNDS)
