"""The contract of every readable format."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.errors import ConfigError, CorruptData, UserError, VolumeFormatError, VolumeNotFound
from pipeline.geometry import Box
from pipeline.storage import StorageOptions, open_volume
from pipeline.storage.volume import checked_voxel_size, readable_dtype

SHAPE = (11, 23, 37)
VOXEL_SIZE = (30.0, 8.0, 6.0)
WHOLE = Box.of_shape(SHAPE)


def grey(dtype="uint8"):
    return np.random.default_rng(5).integers(1, np.iinfo(dtype).max, SHAPE).astype(dtype)


@pytest.fixture(params=["uint8", "uint16"])
def written(request, volume_format, tmp_path):
    image = grey(request.param)
    return volume_format, volume_format.write(tmp_path / "v", image), image


def test_whole_volume_comes_back(written):
    _, url, image = written
    voxels = open_volume(url).read(WHOLE)
    assert voxels.dtype == image.dtype
    assert voxels.flags.writeable
    np.testing.assert_array_equal(voxels, image)


def test_info_says_what_was_written(written):
    volume_format, url, image = written
    info = open_volume(url).info
    assert info.shape_zyx == info.shape == SHAPE
    assert info.dtype == image.dtype
    assert all(c > 0 for c in info.chunk_zyx)
    assert info.levels[0].shape_zyx == SHAPE
    if volume_format.has_voxel_size:
        np.testing.assert_allclose(info.voxel_size_zyx_nm, VOXEL_SIZE, rtol=1e-6)
    else:
        assert info.voxel_size_zyx_nm is None


def test_any_box_comes_back(volume_format, tmp_path):
    image = grey()
    volume = open_volume(volume_format.write(tmp_path / "v", image))

    @settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.tuples(*[st.tuples(st.integers(0, n), st.integers(0, n)) for n in SHAPE]))
    def check(pairs):
        box = Box(tuple(min(p) for p in pairs), tuple(max(p) for p in pairs))
        np.testing.assert_array_equal(volume.read(box), image[box.slices])

    check()


def test_box_outside_names_both(volume_format, tmp_path):
    volume = open_volume(volume_format.write(tmp_path / "v", grey()))
    with pytest.raises(UserError, match=r"8:12,0:3,0:3.*0:11,0:23,0:37"):
        volume.read(Box((8, 0, 0), (12, 3, 3)))
    with pytest.raises(UserError):
        volume.read(Box((-1, 0, 0), (2, 3, 3)))


def test_given_voxel_size_wins(volume_format, tmp_path):
    url = volume_format.write(tmp_path / "v", grey())
    assert open_volume(url, voxel_size_zyx_nm=(5.0, 4.0, 3.0)).require_voxel_size() == (5.0, 4.0, 3.0)


def test_missing_voxel_size_names_the_option(volume_format, tmp_path):
    volume = open_volume(volume_format.write(tmp_path / "v", grey()))
    if volume_format.has_voxel_size:
        np.testing.assert_allclose(volume.require_voxel_size(), VOXEL_SIZE, rtol=1e-6)
    else:
        with pytest.raises(ConfigError, match=r"--voxel-size Z,Y,X"):
            volume.require_voxel_size()


@pytest.mark.parametrize("size", [(0.0, 1.0, 1.0), (-1.0, 1.0, 1.0), (float("nan"), 1.0, 1.0), (1.0, 1.0)])
def test_impossible_voxel_size_is_refused(size, volume_format, tmp_path):
    url = volume_format.write(tmp_path / "v", grey())
    with pytest.raises(ConfigError, match="--voxel-size"):
        open_volume(url, voxel_size_zyx_nm=size)


def test_fingerprint_is_stable_and_knows_the_source(volume_format, tmp_path):
    url = volume_format.write(tmp_path / "v", grey())
    other = volume_format.write(tmp_path / "w", grey("uint16"))
    assert open_volume(url).fingerprint() == open_volume(url).fingerprint()
    assert open_volume(url).fingerprint() != open_volume(other).fingerprint()


@pytest.mark.parametrize("kept", ["half", "tail", "none"])
def test_truncated_data_is_an_error_that_names_the_box(volume_format, tmp_path, kept):
    url = volume_format.write(tmp_path / "v", grey())
    victim = volume_format.damage(tmp_path / "v")
    data = victim.read_bytes()
    victim.write_bytes({"half": data[: len(data) // 2], "tail": data[:-21], "none": b""}[kept])
    with pytest.raises((CorruptData, VolumeFormatError)) as caught:
        open_volume(url).read(WHOLE)
    # A container that cannot even be opened is a format error that names the file.
    assert str(WHOLE) in str(caught.value) or "slice" in str(caught.value) or "stack" in str(caught.value)


def test_wrong_dtypes_are_refused_with_the_mend(volume_format, tmp_path):
    if volume_format.name == "png":
        pytest.skip("PNG holds no floats")
    url = volume_format.write(tmp_path / "v", grey().astype("float32"))
    with pytest.raises(VolumeFormatError, match=r"float32.*uint8 or uint16"):
        open_volume(url)


def test_levels_that_do_not_exist_are_refused(volume_format, tmp_path):
    url = volume_format.write(tmp_path / "v", grey())
    for level in (-1, 7):
        with pytest.raises(ConfigError, match="level"):
            open_volume(url, level=level)


def test_missing_file_is_not_found(volume_format, tmp_path):
    url = volume_format.write(tmp_path / "v", grey()).replace("/v", "/nothing")
    with pytest.raises(VolumeNotFound, match="nothing"):
        open_volume(url, StorageOptions())


def test_labels_may_be_any_unsigned_and_never_signed():
    for dtype in ("uint8", "uint32", "uint64", "bool"):
        assert readable_dtype(np.dtype(dtype), "labels", "u").kind == "u"
    for dtype in ("int64", "float32"):
        with pytest.raises(VolumeFormatError, match=f"{dtype}.*unsigned"):
            readable_dtype(np.dtype(dtype), "labels", "u")
    with pytest.raises(VolumeFormatError):
        readable_dtype(np.dtype("uint64"), "image", "u")
    assert readable_dtype(np.dtype(">u2"), "image", "u") == np.dtype("uint16")


def test_checked_voxel_size_passes_none():
    assert checked_voxel_size(None, "u") is None
