"""What is particular to TIFF."""

import numpy as np
import pytest
import tifffile

from pipeline.errors import CorruptData, VolumeFormatError
from pipeline.geometry import Box
from pipeline.storage import open_volume

IMAGE = np.random.default_rng(0).integers(1, 65535, (5, 7, 11)).astype(np.uint16)
WHOLE = Box.of_shape(IMAGE.shape)


@pytest.mark.parametrize(
    "arguments", [{"byteorder": ">"}, {"bigtiff": True}, {"tile": (16, 16)}, {"compression": "zlib"}]
)
def test_variants(tmp_path, arguments):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, IMAGE, photometric="minisblack", **arguments)
    volume = open_volume(str(path))
    assert volume.info.dtype == np.uint16
    np.testing.assert_array_equal(volume.read(WHOLE), IMAGE)


def test_one_page_is_a_volume_of_one_slice(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", IMAGE[0])
    assert open_volume(str(tmp_path / "a.tif")).info.shape_zyx == (1, 7, 11)


def test_colors_and_several_page_axes_are_refused(tmp_path):
    tifffile.imwrite(tmp_path / "rgb.tif", np.zeros((5, 7, 11, 3), np.uint8), photometric="rgb")
    with pytest.raises(VolumeFormatError, match="rgb"):
        open_volume(str(tmp_path / "rgb.tif"))
    metadata = {"axes": "TZYX"}
    tifffile.imwrite(tmp_path / "t.tif", np.zeros((2, 3, 7, 11), np.uint8), imagej=True, metadata=metadata)
    with pytest.raises(VolumeFormatError, match=r"t\.tif.*2 elements along axis 't'"):
        open_volume(str(tmp_path / "t.tif"))


def test_other_files_and_cut_chains(tmp_path):
    path = tmp_path / "a.tif"
    path.write_bytes(b"not a picture at all")
    with pytest.raises(VolumeFormatError, match="not a TIFF"):
        open_volume(str(path))
    tifffile.imwrite(path, IMAGE, photometric="minisblack")
    data = path.read_bytes()
    path.write_bytes(data[:-30])
    with pytest.raises(CorruptData, match="cut short"):
        open_volume(str(path))


def test_entities_in_ome_xml_are_not_expanded(tmp_path):
    xml = '<!DOCTYPE x [<!ENTITY a "b">]><OME><Pixels PhysicalSizeX="1"/></OME>'
    tifffile.imwrite(tmp_path / "a.ome.tif", IMAGE[0], description=xml, metadata=None)
    assert open_volume(str(tmp_path / "a.ome.tif")).info.voxel_size_zyx_nm is None
