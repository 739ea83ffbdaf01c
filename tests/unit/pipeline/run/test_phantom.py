import tracemalloc

import numpy as np
import pytest

from pipeline.errors import ConfigError
from pipeline.geometry import Box
from pipeline.phantom import PhantomSpec, render
from pipeline.run import phantom
from pipeline.run.phantom import PhantomLayer, write_phantom
from pipeline.storage import open_volume

SPEC = PhantomSpec(seed=3, shape_zyx=(19, 67, 71), voxel_size_zyx_nm=(20.0, 16.0, 16.0))


def test_the_volume_written_block_by_block_is_the_phantom(tmp_path, monkeypatch):
    monkeypatch.setattr(phantom, "_BLOCK", (64, 64, 64))
    image, truth = str(tmp_path / "image.zarr"), str(tmp_path / "truth.zarr")
    told = []
    write_phantom(
        SPEC,
        (PhantomLayer("image", image), PhantomLayer("mitochondria", truth)),
        on_block=lambda done, total: told.append((done, total)),
    )
    whole = render(SPEC, SPEC.box)
    np.testing.assert_array_equal(open_volume(image).read(Box.of_shape(SPEC.shape_zyx)), whole.image_zyx)
    found = open_volume(truth, kind="labels")
    np.testing.assert_array_equal(found.read(Box.of_shape(SPEC.shape_zyx)), whole.mitochondria_zyx)
    assert found.require_voxel_size() == SPEC.voxel_size_zyx_nm
    assert told[-1] == (4, 4)


def test_the_image_has_a_pyramid(tmp_path):
    write_phantom(SPEC, (PhantomLayer("image", str(tmp_path / "image.zarr")),))
    assert [level.shape_zyx for level in open_volume(str(tmp_path / "image.zarr")).info.levels] == [
        (19, 67, 71),
        (10, 34, 36),
        (5, 17, 18),
    ]


def test_an_unknown_layer_is_named(tmp_path):
    with pytest.raises(ConfigError, match="no layer dendrites; there are image"):
        write_phantom(SPEC, (PhantomLayer("dendrites", str(tmp_path / "a.zarr")),))


def test_the_blocks_of_a_huge_phantom_are_not_listed(tmp_path, monkeypatch):
    spec = PhantomSpec(seed=3, shape_zyx=(10**5, 10**6, 10**6), voxel_size_zyx_nm=(20.0, 16.0, 16.0))
    drawn = []

    def draw(spec, specs, options, index):
        drawn.append(index)
        if len(drawn) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(phantom, "_draw_block", draw)
    tracemalloc.start()
    with pytest.raises(KeyboardInterrupt):
        write_phantom(spec, (PhantomLayer("image", str(tmp_path / "image.zarr")),))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert drawn == [0, 1, 2]
    assert peak < 16 * 2**20
