"""Guards around zarr's stores."""

import numpy as np
import pytest
import zarr
from numcodecs import Blosc
from zarr.codecs import BloscCodec

from pipeline.errors import ConfigError, CorruptData, VolumeNotFound
from pipeline.geometry import Box
from pipeline.storage import StorageOptions, open_volume
from pipeline.storage.zarr_store import ZarrNode, open_array, open_store

IMAGE = np.random.default_rng(0).integers(0, 255, (5, 7, 11)).astype(np.uint8)


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("kept", [7, 40, -1])
def test_short_blosc_chunks_are_refused_before_the_decoder_reads_past_them(tmp_path, zarr_format, kept):
    codec = Blosc(cname="lz4") if zarr_format == 2 else BloscCodec(cname="lz4")
    zarr.create_array(tmp_path / "a", data=IMAGE, chunks=(5, 7, 11), zarr_format=zarr_format, compressors=codec)
    victim = next(p for p in (tmp_path / "a").rglob("*0") if p.is_file())
    victim.write_bytes(victim.read_bytes()[:kept])
    with pytest.raises(CorruptData, match=r"0:5,0:7,0:11.*Blosc"):
        open_volume(str(tmp_path / "a")).read(Box.of_shape((5, 7, 11)))


def test_nodes(tmp_path):
    options = StorageOptions()
    assert not ZarrNode(str(tmp_path), options).exists
    zarr.create_array(tmp_path / "a", data=IMAGE, zarr_format=2).attrs["k"] = 1
    node = ZarrNode(str(tmp_path / "a"), options)
    assert node.is_array
    assert node.attributes == {"k": 1}
    zarr.open_group(tmp_path / "g", mode="w")
    assert not ZarrNode(str(tmp_path / "g"), options).is_array


def test_missing_arrays_and_read_only_schemes(tmp_path):
    with pytest.raises(VolumeNotFound, match="nothing"):
        open_array(str(tmp_path / "nothing"), StorageOptions())
    with pytest.raises(ConfigError, match="only be read"):
        open_store("https://h/a", StorageOptions(), writable=True)
