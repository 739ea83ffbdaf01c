import tracemalloc

import numpy as np
import pytest

from sam4em_core import tiles
from sam4em_core.blocks import BlockInput
from sam4em_core.footprint import projected_bytes
from sam4em_core.propagate import predict_block

TILES = {"tile_side": 64, "tile_overlap": 16, "window_slices": 6, "warm_up_slices": 2}
BOUNDS = ((0, 0, 0), (60, 250, 250))
DOMAIN = BOUNDS[1]


def header_of(network, tiny_header):
    return tiny_header(network.config, **TILES)


def test_a_projection_grows_with_what_it_depends_on(tiny_network, tiny_header):
    header = header_of(tiny_network(), tiny_header)
    host, device = projected_bytes((6, 96, 96), DOMAIN, header, 3)
    assert projected_bytes((12, 96, 96), DOMAIN, header, 3)[0] > host
    assert projected_bytes((6, 144, 96), DOMAIN, header, 3)[0] > host
    assert projected_bytes((6, 96, 96), DOMAIN, header, 4)[1] > device
    assert projected_bytes((6, 97, 96), DOMAIN, header, 3)[0] > 1.1 * host, "it may begin inside a tile"


def test_the_memory_and_the_unet_count(tiny_spatial, tiny_header):
    def projected(memory=None, **unet):
        config = tiny_spatial(memory=memory).config
        config = config.model_copy(update={"unet": config.unet.model_copy(update=unet)})
        return projected_bytes((10, 64, 64), DOMAIN, tiny_header(config), 3)

    host, device = projected()
    assert projected({"reach": 12})[0] > host
    assert projected({"reach": 12})[1] > device
    assert projected(widths=(64, 64, 64, 64))[1] > device
    assert projected(patch_zyx=(32, 64, 64))[0] > host


@pytest.mark.parametrize("is_spatial", [False, True])
def test_what_numpy_holds_stays_below_the_projection(tiny_network, tiny_spatial, tiny_header, is_spatial):
    network = tiny_spatial() if is_spatial else tiny_network()
    header = header_of(network, tiny_header)
    start, stop = (24, 48, 48), (48, 240, 240)
    tracemalloc.start()
    low, high = tiles.context_of(start, stop, BOUNDS, DOMAIN, header)
    shape = tuple(b - a for a, b in zip(low, high, strict=True))
    image = np.random.default_rng(0).random(shape, dtype=np.float32)
    unet_image = None
    if is_spatial:
        gatherer = tiles.gatherer_of(start, stop, BOUNDS, DOMAIN, header)
        (first, *low_yx), (last, *high_yx) = gatherer.box
        for z in range(first, last, gatherer.slab_slices):
            plane = (b - a for a, b in zip(low_yx, high_yx, strict=True))
            gatherer.add(np.zeros((min(gatherer.slab_slices, last - z), *plane), np.float32))
        unet_image = gatherer.image()
    predict_block(network, header, BlockInput(image, low, BOUNDS, DOMAIN, start, stop, unet_image))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    host, _ = projected_bytes((24, 192, 192), DOMAIN, header, header.batch_tiles)
    assert 0.5 * host < peak < host
