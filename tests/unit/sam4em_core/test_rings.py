import itertools

import numpy as np
import pytest
import torch

from sam4em_core import tiles
from sam4em_core.blocks import BlockInput
from sam4em_core.lattice import lattice_image
from sam4em_core.neighborhood import forward_fields
from sam4em_core.propagate import predict_block
from sam4em_core.rings import field_of_block

DOMAIN = (11, 47, 53)
WHOLE = ((0, 0, 0), DOMAIN)
BOUNDS_ROI = ((-3, -17, -5), (14, 49, 53))
TILES = {"tile_side": 32, "tile_overlap": 7}
LOGITS = {"source": "logits", "direction": "lower", "injection": "sigmoid"}


def volume(bounds, seed=0):
    shape = tuple(stop - start for start, stop in zip(*bounds, strict=True))
    rng = np.random.default_rng(seed)
    coarse = rng.random(tuple(-(-n // 4) + 1 for n in shape), dtype=np.float32)
    for axis in range(3):
        coarse = np.repeat(coarse, 4, axis=axis)
    return np.ascontiguousarray(coarse[tuple(slice(0, n) for n in shape)])


def block_of(header, image, bounds, start, stop):
    low, high = tiles.context_of(start, stop, bounds, DOMAIN, header)
    window = tuple(slice(a - b, c - b) for a, b, c in zip(low, bounds[0], high, strict=True))
    grid = tiles.field_grid(bounds, header) if header.model.needs_field else None
    unet_image = None if grid is None else lattice_image(grid, image, bounds[0], low, high)
    return BlockInput(image[window].copy(), low, bounds, DOMAIN, start, stop, unet_image)


def in_blocks(network, header, image, bounds, cuts):
    edges = [list(itertools.pairwise((0, *cut, extent))) for cut, extent in zip(cuts, DOMAIN, strict=True)]
    channels = header.model.num_classes * (2 if header.model.needs_field else 1)
    result = np.zeros((channels, *DOMAIN), dtype=np.uint8)
    for spans in itertools.product(*edges):
        start, stop = tuple(s[0] for s in spans), tuple(s[1] for s in spans)
        part = predict_block(network, header, block_of(header, image, bounds, start, stop))
        result[(slice(None), *(slice(*span) for span in spans))] = part
    return result


@pytest.mark.parametrize(
    ("bounds", "classes", "memory"),
    [(WHOLE, 1, {}), (BOUNDS_ROI, 2, {}), (BOUNDS_ROI, 1, {"stride": 2, "include_own": True}), (BOUNDS_ROI, 1, LOGITS)],
)
def test_a_voxel_does_not_depend_on_the_cut(tiny_spatial, tiny_header, bounds, classes, memory):
    """Blocks cut inside windows, tiles and patches, with image data beyond the domain and without."""
    network = tiny_spatial(classes=classes, memory=memory)
    header = tiny_header(network.config, **TILES)
    image = volume(bounds)
    whole = in_blocks(network, header, image, bounds, ((), (), ()))
    for channel in whole:
        assert len(np.unique(channel)) > 20
    assert np.array_equal(whole, in_blocks(network, header, image, bounds, ((4,), (23,), (27,))))


def test_one_tile_equals_the_network_by_hand(tiny_spatial, tiny_header):
    network = tiny_spatial()
    header = tiny_header(network.config, batch_tiles=1)
    image = volume(((0, 0, 0), (6, 64, 64)))
    bounds = ((0, 0, 0), image.shape)
    block = BlockInput(image, (0, 0, 0), bounds, image.shape, (0, 0, 0), image.shape)
    found = predict_block(network, header, block)
    with torch.inference_mode():
        field = torch.from_numpy(field_of_block(network, header, block).inside(*bounds))
        masks = forward_fields(network, torch.from_numpy(image)[None], field.transpose(0, 1)[None])
        expected = masks.refined_BTKHW[0, :, 0].sigmoid().numpy() * 255
    assert np.abs(found[0] - expected).max() < 0.51
    assert expected.std() > 1
    assert np.abs(found[1] - (field[0].numpy() + 1) * 127.5).max() < 0.501
    assert np.array_equal(found[1] >= 128, field[0].numpy() >= 0)


def test_each_slice_is_encoded_and_remembered_once(tiny_spatial, tiny_header, monkeypatch):
    network = tiny_spatial()
    header = tiny_header(network.config, **TILES)
    counts = {"levels": 0, "entry": 0}
    levels, entry = network.encoder.levels, network.sdf_memory.entry

    def counted(name, call):
        def run(*given):
            counts[name] += 1
            return call(*given)

        return run

    monkeypatch.setattr(network.encoder, "levels", counted("levels", levels))
    monkeypatch.setattr(network.sdf_memory, "entry", counted("entry", entry))
    image = volume(BOUNDS_ROI)
    predict_block(network, header, block_of(header, image, BOUNDS_ROI, (2, 0, 0), (6, *DOMAIN[1:])))
    # Four slices and two neighbors on each side, for two calls of three tiles.
    assert counts == {"levels": 16, "entry": 16}


def test_tiles_are_squares(tiny_spatial, tiny_header, tiny_network):
    spatial = tiny_header(tiny_spatial().config)
    other = tiny_header(tiny_network().config)
    domain = (5, 40, 300)
    sides = [{axis.side for axis in tiles.tile_axes(domain, header)} for header in (spatial, other)]
    assert len(sides[0]) == 1
    assert max(sides[0]) <= spatial.tile_side
    for axis, extent in zip(tiles.tile_axes(domain, spatial), domain[1:], strict=True):
        assert axis.span(axis.count - 1)[1] >= extent


def test_slices_read_their_neighbors_and_the_unet_whole_patches(tiny_spatial, tiny_header):
    bounds, domain = ((-50, -50, -50), (300, 300, 300)), (250, 250, 250)
    core = (100, 100, 100), (104, 110, 110)
    header = tiny_header(tiny_spatial(memory={"reach": 2}).config, **TILES)
    start, stop = tiles.context_of(*core, bounds, domain, header)
    assert (start[0], stop[0]) == (98, 106)
    gatherer = tiles.gatherer_of(*core, bounds, domain, header)
    assert gatherer.box == tiles.field_grid(bounds, header).context(start, stop)
    assert all(map(lambda a, b: a <= b, gatherer.box[0], start))
    assert all(map(lambda a, b: a >= b, gatherer.box[1], stop))
    far = tiny_header(tiny_spatial(memory={"reach": 60}).config, **TILES)
    assert tiles.context_of(*core, bounds, domain, far)[0][0] == 40


def test_the_voxels_of_every_patch_count(tiny_spatial, tiny_header):
    header = tiny_header(tiny_spatial().config, **TILES)
    bounds = ((0, 0, 0), (250, 250, 250))
    grid = tiles.field_grid(bounds, header)

    def counted(depth):
        core = (100, 0, 0), (100 + depth, 250, 250)
        patches = len(list(grid.touching(*tiles.context_of(*core, bounds, bounds[1], header))))
        return tiles.model_voxels(*core, bounds, bounds[1], header), patches * grid.patch_voxels

    (voxels, in_patches), (deeper, in_more) = counted(10), counted(40)
    assert (voxels - in_patches) * 4 == deeper - in_more > 40 * 250 * 250
    assert in_patches > in_more / 4, "thin blocks share patches and each computes them"
