import itertools

import numpy as np
import pytest
import torch

from sam4em_core import tiles
from sam4em_core.errors import CoreConfigError, ImageShapeError, NonFiniteError
from sam4em_core.propagate import BlockInput, predict_block

DOMAIN = (13, 47, 53)
WHOLE = ((0, 0, 0), DOMAIN)
BOUNDS_ROI = ((-3, -17, -5), (17, 49, 53))
SMALL_TILES = {"tile_side": 32, "tile_overlap": 7}


def _volume(bounds, seed=0):
    shape = tuple(stop - start for start, stop in zip(*bounds, strict=True))
    rng = np.random.default_rng(seed)
    coarse = rng.random(tuple(-(-n // 4) + 1 for n in shape), dtype=np.float32)
    for axis in range(3):
        coarse = np.repeat(coarse, 4, axis=axis)
    return np.ascontiguousarray(coarse[tuple(slice(0, n) for n in shape)])


def _predict(network, header, volume, bounds, core_start, core_stop, **kwargs):
    low, high = tiles.context_of(core_start, core_stop, bounds, DOMAIN, header)
    if header.model.needs_field:
        low, high = tiles.gatherer_of(core_start, core_stop, bounds, DOMAIN, header).box
    window = tuple(slice(a - b, c - b) for a, b, c in zip(low, bounds[0], high, strict=True))
    block = BlockInput(volume[window].copy(), low, bounds, DOMAIN, core_start, core_stop)
    return predict_block(network, header, block, **kwargs)


def _in_blocks(network, header, volume, bounds, cuts):
    result = np.zeros((header.model.num_classes, *DOMAIN), dtype=np.uint8)
    edges = [list(itertools.pairwise((0, *cut, extent))) for cut, extent in zip(cuts, DOMAIN, strict=True)]
    for spans in itertools.product(*edges):
        start, stop = tuple(s[0] for s in spans), tuple(s[1] for s in spans)
        inside = (slice(None), *(slice(*s) for s in spans))
        result[inside] = _predict(network, header, volume, bounds, start, stop)
    return result


@pytest.mark.parametrize(("bounds", "classes"), [(WHOLE, 1), (BOUNDS_ROI, 1), (BOUNDS_ROI, 2)])
def test_a_voxel_does_not_depend_on_the_cut(tiny_network, tiny_header, bounds, classes):
    """1, 2 and 24 blocks, cut inside windows and inside tiles, with image data beyond the domain and without."""
    network = tiny_network(num_classes=classes)
    header = tiny_header(network.config, **SMALL_TILES)
    volume = _volume(bounds)
    whole = _in_blocks(network, header, volume, bounds, ((), (), ()))
    assert len(np.unique(whole)) > 20
    assert np.array_equal(whole, _in_blocks(network, header, volume, bounds, ((5,), (), ())))
    if classes == 1:
        many = _in_blocks(network, header, volume, bounds, ((3, 7), (23,), (11, 27, 39)))
        assert np.array_equal(whole, many)


def test_the_sums_before_rounding_do_not_depend_on_the_cut(tiny_network, tiny_header, monkeypatch):
    """uint8 could hide a difference: compare the exact sums."""
    network = tiny_network()
    header = tiny_header(network.config, **SMALL_TILES)
    bounds = WHOLE
    volume = _volume(bounds)
    monkeypatch.setattr("sam4em_core.propagate.as_bytes", lambda sums: sums)
    whole = _predict(network, header, volume, bounds, (0, 0, 0), DOMAIN)
    part = _predict(network, header, volume, bounds, (4, 15, 9), (9, 38, 46))
    assert whole.dtype == np.int32
    assert np.array_equal(whole[:, 4:9, 15:38, 9:46], part)


def test_memory_none_is_cut_free_too(tiny_network, tiny_header):
    network = tiny_network(memory="none")
    header = tiny_header(network.config, **SMALL_TILES)
    bounds = WHOLE
    volume = _volume(bounds)
    whole = _in_blocks(network, header, volume, bounds, ((), (), ()))
    assert np.array_equal(whole, _in_blocks(network, header, volume, bounds, ((6,), (26,), ())))


def test_one_tile_equals_the_network_by_hand(tiny_network, tiny_header):
    """A single tile and window: both directions stepped by forward_window, weighted mean of the logits, sigmoid."""
    network = tiny_network()
    header = tiny_header(network.config, batch_tiles=1)
    image = _volume(((0, 0, 0), (5, 64, 64)))
    bounds = ((0, 0, 0), image.shape)
    result = predict_block(network, header, BlockInput(image, (0, 0, 0), bounds, image.shape, (0, 0, 0), image.shape))
    with torch.inference_mode():
        window = torch.from_numpy(image)[None]
        up = network.forward_window(window).refined_BTKHW[0, :, 0]
        down = network.forward_window(window.flip(1)).refined_BTKHW[0, :, 0].flip(0)
        seen = torch.arange(1, 6).clamp(max=2 * network.config.memory_slots)[:, None, None]
        expected = ((up * seen + down * seen.flip(0)) / (seen + seen.flip(0))).sigmoid().numpy() * 255
    assert np.abs(result[0] - expected).max() < 0.51
    assert expected.std() > 1


def test_a_chain_counts_by_the_slices_it_has_seen(tiny_network, tiny_header, monkeypatch):
    """With logits of +1 upward and -1 downward the mean is the weight of a slice; the warm-up counts as seen."""
    network = tiny_network(memory_slots=2)
    header = tiny_header(network.config, batch_tiles=1, window_slices=4, warm_up_slices=2)
    image = _volume(((0, 0, 0), (10, 64, 64)))
    bounds = ((0, 0, 0), image.shape)
    means = {}

    def run(network, cache, sources, order, wanted):
        return ((z, torch.full((1, 1, 64, 64), float(order.step))) for z in order if wanted[0] <= z < wanted[1])

    def kept(logits, z):
        means[z] = float(logits[0, 0, 0, 0])
        return logits.sigmoid().numpy()

    monkeypatch.setattr("sam4em_core.propagate._run", run)
    monkeypatch.setattr("sam4em_core.propagate.probability_of", kept)
    predict_block(network, header, BlockInput(image, (0, 0, 0), bounds, image.shape, (0, 0, 0), image.shape))
    # Windows own 0..3, 4..7, 8..9 and read 0..5, 2..9, 6..9; more than four slices count as four.
    seen = [(1, 4), (2, 4), (3, 4), (4, 3), (3, 4), (4, 4), (4, 4), (4, 3), (3, 2), (4, 1)]
    assert [means[z] for z in range(10)] == pytest.approx([(up - down) / (up + down) for up, down in seen])


def test_mirrored_in_z_is_mirrored(tiny_network, tiny_header):
    """Both directions count alike: a volume of one whole window turned upside down gives the result upside down."""
    network = tiny_network()
    header = tiny_header(network.config, batch_tiles=1)
    image = _volume(((0, 0, 0), (5, 64, 64)))
    bounds = ((0, 0, 0), image.shape)

    def run(volume):
        block = BlockInput(volume, (0, 0, 0), bounds, image.shape, (0, 0, 0), image.shape)
        return predict_block(network, header, block)

    assert np.array_equal(run(image)[:, ::-1], run(np.ascontiguousarray(image[::-1])))


def test_each_slice_is_encoded_once_per_batch_of_tiles(tiny_network, tiny_header, monkeypatch):
    network = tiny_network()
    header = tiny_header(network.config, **SMALL_TILES)
    volume = _volume(WHOLE)
    encode, shapes = network.encode, []

    def counted(image):
        shapes.append(tuple(image.shape))
        return encode(image)

    monkeypatch.setattr(network, "encode", counted)
    _predict(network, header, volume, WHOLE, (0, 0, 0), DOMAIN)
    assert set(shapes) == {(3, 1, 32, 32)}
    assert len(shapes) == DOMAIN[0] * 2


def test_bad_blocks_are_refused(tiny_network, tiny_header):
    network = tiny_network()
    header = tiny_header(network.config)
    image, bounds = np.zeros((5, 64, 64), np.float32), ((0, 0, 0), (5, 64, 64))
    whole = ((0, 0, 0), bounds, (5, 64, 64), (0, 0, 0), (5, 64, 64))
    with pytest.raises(ImageShapeError, match="float32"):
        predict_block(network, header, BlockInput(image.astype(np.uint8), *whole))
    with pytest.raises(ImageShapeError, match="the image has"):
        predict_block(network, header, BlockInput(image[:4], *whole))
    with pytest.raises(CoreConfigError, match="inside the domain"):
        predict_block(network, header, BlockInput(image, (0, 0, 0), bounds, (5, 64, 64), (0, 0, 0), (6, 64, 64)))


def test_a_nan_is_an_error(tiny_network, tiny_header):
    network = tiny_network()
    header = tiny_header(network.config)
    image, bounds = np.full((5, 64, 64), np.nan, np.float32), ((0, 0, 0), (5, 64, 64))
    with pytest.raises(NonFiniteError, match="slice 4"):
        predict_block(network, header, BlockInput(image, (0, 0, 0), bounds, (5, 64, 64), (0, 0, 0), (5, 64, 64)))


def test_flips_do_not_care_which_way_the_image_lies(tiny_network, tiny_header):
    network = tiny_network()
    header = tiny_header(network.config, batch_tiles=1)
    image = _volume(((0, 0, 0), (5, 64, 64)))
    bounds = ((0, 0, 0), image.shape)

    def run(volume, flips):
        block = BlockInput(np.ascontiguousarray(volume), (0, 0, 0), bounds, image.shape, (0, 0, 0), image.shape)
        return predict_block(network, header, block, flips=flips)

    assert not np.array_equal(run(image, False)[:, :, ::-1], run(image[:, ::-1], False))
    averaged = run(image, True)
    for mirrored in ((slice(None), slice(None, None, -1)), (slice(None), slice(None), slice(None, None, -1))):
        assert np.array_equal(averaged[(slice(None), *mirrored)], run(image[mirrored], True))
    views = [run(image[:, ::y, ::x], False)[:, :, ::y, ::x].astype(int) for y in (1, -1) for x in (1, -1)]
    assert np.abs(averaged - np.mean(views, axis=0)).max() <= 1


@pytest.mark.parametrize("spatial", [False, True])
def test_with_flips_a_voxel_does_not_depend_on_the_cut(tiny_network, tiny_spatial, tiny_header, spatial):
    network = tiny_spatial() if spatial else tiny_network()
    header = tiny_header(network.config, **SMALL_TILES)
    volume = _volume(WHOLE)
    whole = _predict(network, header, volume, WHOLE, (0, 0, 0), DOMAIN, flips=True)
    part = _predict(network, header, volume, WHOLE, (4, 15, 9), (9, 38, 46), flips=True)
    assert np.array_equal(whole[:, 4:9, 15:38, 9:46], part)
