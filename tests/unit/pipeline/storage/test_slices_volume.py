"""What is particular to folders of slices."""

import numpy as np
import pytest
from PIL import Image

from pipeline.errors import VolumeFormatError, VolumeNotFound
from pipeline.geometry import Box
from pipeline.storage import open_volume
from pipeline.storage.slices_volume import natural_key

SLICE = np.random.default_rng(0).integers(1, 255, (7, 11)).astype(np.uint8)


def test_natural_order():
    names = ["s10.png", "s9.png", "S1.png", "s2b3.png", "s2b20.png", "s02.png"]
    assert sorted(names, key=natural_key) == ["S1.png", "s02.png", "s2b3.png", "s2b20.png", "s9.png", "s10.png"]


def test_slices_are_read_in_natural_order(tmp_path):
    for z in (1, 2, 10, 11, 100):
        Image.fromarray(SLICE + np.uint8(z)).save(tmp_path / f"em_{z}.PNG")
    (tmp_path / "notes.txt").write_text("not a slice")
    voxels = open_volume(str(tmp_path)).read(Box.of_shape((5, 7, 11)))
    assert [int(v) for v in voxels[:, 0, 0] - SLICE[0, 0]] == [1, 2, 10, 11, 100]


@pytest.mark.parametrize("odd", [SLICE[:6], SLICE.astype(np.uint16)])
def test_slices_must_be_alike(tmp_path, odd):
    Image.fromarray(SLICE).save(tmp_path / "a0.png")
    Image.fromarray(odd).save(tmp_path / "a1.png")
    volume = open_volume(str(tmp_path))
    volume.read(Box((0, 0, 0), (1, 7, 11)))
    with pytest.raises(VolumeFormatError, match=r"a1\.png.*alike"):
        volume.read(Box((1, 0, 0), (2, 6, 11)))


@pytest.mark.parametrize("mode", ["RGB", "P", "RGBA", "LA"])
def test_colors_are_refused(tmp_path, mode):
    picture = Image.new(mode, (11, 7))
    if mode in ("RGB", "RGBA"):
        picture.putpixel((3, 2), (9, 9, 8))
    picture.save(tmp_path / "a.png")
    with pytest.raises(VolumeFormatError, match="grey"):
        open_volume(str(tmp_path))


@pytest.mark.parametrize("channels", [3, 4])
def test_grey_saved_in_color_is_grey(tmp_path, channels):
    color = np.stack([SLICE] * 3 + [np.full_like(SLICE, 255)], axis=-1)[..., :channels]
    Image.fromarray(color).save(tmp_path / "a.png")
    volume = open_volume(str(tmp_path))
    np.testing.assert_array_equal(volume.read(Box((0, 0, 0), (1, *SLICE.shape)))[0], SLICE)


def test_mixed_formats_empty_folders_and_single_pictures(tmp_path):
    with pytest.raises(VolumeNotFound, match=r"looked for.*slices"):
        open_volume(str(tmp_path))
    Image.fromarray(SLICE).save(tmp_path / "a.png")
    with pytest.raises(VolumeFormatError, match="single picture"):
        open_volume(str(tmp_path / "a.png"))
    Image.fromarray(SLICE).save(tmp_path / "b.tif")
    with pytest.raises(VolumeFormatError, match="PNG and TIFF"):
        open_volume(str(tmp_path))


def test_slices_larger_than_pillows_limit_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    Image.fromarray(SLICE).save(tmp_path / "a.png")
    assert open_volume(str(tmp_path)).read(Box.of_shape((1, 7, 11))).shape == (1, 7, 11)
