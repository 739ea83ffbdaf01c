"""The Python interface on a small phantom, in this process."""

import dask.array
import numpy as np
import pytest
import xarray

import pipeline
from pipeline.errors import ConfigError, UserError, VolumeFormatError
from pipeline.geometry import Box
from pipeline.phantom import PhantomSpec, render

SHAPE = (12, 96, 128)
SIZE_NM = (10.0, 10.0, 10.0)
SETTINGS = {"model": "phantom", "classes": {"mitochondrion": {"min_size_nm3": 0}}}


@pytest.fixture(scope="module")
def tissue():
    """A piece of tissue that a mitochondrion fills to a sixth, and its truth."""
    drawn = render(PhantomSpec(seed=5, voxel_size_zyx_nm=SIZE_NM), Box.of_shape(SHAPE, (12, 20, 110)))
    return drawn.image_zyx, drawn.mitochondria_zyx


@pytest.fixture(scope="module")
def found(tissue):
    return pipeline.segment(tissue[0], voxel_size_zyx_nm=SIZE_NM, **SETTINGS)


def test_numpy_in_numpy_out(tissue, found):
    labels = found.labels["mitochondrion"]
    assert isinstance(labels, np.ndarray)
    assert (labels.shape, labels.dtype) == (SHAPE, np.uint64)
    assert found.output is None
    ids, counts = np.unique(labels[labels > 0], return_counts=True)
    assert found.segments["id"].to_pylist() == ids.tolist()
    assert found.segments["voxels"].to_pylist() == counts.tolist()
    scores = pipeline.evaluate(labels, tissue[1], voxel_size_zyx_nm=SIZE_NM)
    assert scores.binary.iou > 0.5
    assert scores.surface is not None


def test_dask_in_dask_out(tissue, found, tmp_path):
    image = dask.array.from_array(tissue[0], chunks=(7, 32, 40))
    output = str(tmp_path / "cells.zarr")
    result = pipeline.segment(image, voxel_size_zyx_nm=SIZE_NM, output=output, **SETTINGS)
    labels = result.labels["mitochondrion"]
    assert isinstance(labels, dask.array.Array)
    assert (labels.shape, labels.dtype) == (SHAPE, np.uint64)
    np.testing.assert_array_equal(labels.compute(scheduler="sync"), found.labels["mitochondrion"])
    np.testing.assert_array_equal(
        labels[3:5, ::2, 7].compute(scheduler="sync"), found.labels["mitochondrion"][3:5, ::2, 7]
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cells.zarr", "cells.zarr.run"], "no copy is left"
    with pytest.raises(UserError, match="restart"):
        pipeline.segment(image + 1, voxel_size_zyx_nm=SIZE_NM, output=output, **SETTINGS)


def test_xarray_in_xarray_out(tissue, found):
    coords = {
        axis: ("zyx"[k], (np.arange(n) + 0.5) * 10.0, {"units": "nm"})
        for k, (axis, n) in enumerate(zip("zyx", SHAPE, strict=True))
    }
    image = xarray.DataArray(tissue[0], dims=("z", "y", "x"), coords=coords)
    labels = pipeline.segment(image, **SETTINGS).labels["mitochondrion"]
    assert isinstance(labels, xarray.DataArray)
    assert labels.dims == ("z", "y", "x")
    np.testing.assert_array_equal(labels["x"], image["x"])
    np.testing.assert_array_equal(labels.values, found.labels["mitochondrion"])


def test_an_address_in_dask_out(tissue, found, tmp_path):
    first = pipeline.segment(tissue[0], voxel_size_zyx_nm=SIZE_NM, output=str(tmp_path / "first.zarr"), **SETTINGS)
    assert first.output == str(tmp_path / "first.zarr")
    assert "Slices through the middle" in (tmp_path / "first.zarr.run" / "report.html").read_text(encoding="utf-8")
    pipeline_image = tmp_path / "em.zarr"
    dask.array.to_zarr(dask.array.from_array(tissue[0], chunks=SHAPE), str(pipeline_image))
    call = {"voxel_size_zyx_nm": SIZE_NM, "output": str(tmp_path / "out"), **SETTINGS}
    result = pipeline.segment(str(pipeline_image), **call)
    np.testing.assert_array_equal(
        result.labels["mitochondrion"].compute(scheduler="sync"), found.labels["mitochondrion"]
    )
    again = pipeline.segment(str(pipeline_image), **call)
    assert again.segments.equals(result.segments)
    volume = pipeline.open_volume(str(tmp_path / "out"), kind="labels")
    assert volume.info.format == "precomputed"


def test_settings_reach_the_config(tissue, found):
    blocks = {"plan": {"block_zyx": [64, 64, 64]}}
    result = pipeline.segment(tissue[0], voxel_size_zyx_nm=SIZE_NM, settings=blocks, **SETTINGS)
    assert (result.labels["mitochondrion"] > 0).sum() == (found.labels["mitochondrion"] > 0).sum()
    with pytest.raises(ConfigError, match="block_zxy"):
        pipeline.segment(tissue[0], voxel_size_zyx_nm=SIZE_NM, settings={"plan": {"block_zxy": [1, 1, 1]}}, **SETTINGS)


@pytest.mark.parametrize(
    ("image", "changes", "error", "message"),
    [
        (np.zeros(SHAPE, np.float32), {}, VolumeFormatError, "float32"),
        (np.zeros(SHAPE[1:], np.uint8), {}, VolumeFormatError, r"\(96, 128\)"),
        (np.zeros(SHAPE, np.uint8), {"voxel_size_zyx_nm": None}, ConfigError, "voxel_size_zyx_nm"),
        (dask.array.zeros(SHAPE, dtype=np.uint8), {}, UserError, "output"),
        ("em.zarr", {}, UserError, "output"),
        ([[1]], {"output": "x.zarr"}, UserError, "found list"),
    ],
)
def test_what_cannot_be_segmented(image, changes, error, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=message):
        pipeline.segment(image, **{"voxel_size_zyx_nm": SIZE_NM, **changes}, **SETTINGS)


def test_evaluate_by_hand():
    one, other = np.zeros((3, 5, 7), np.uint8), np.zeros((3, 5, 7), bool)
    one[1, 1:3, 2:6] = 4
    other[1, 1:3, 4:7] = True
    scores = pipeline.evaluate(dask.array.from_array(one), other)
    assert scores.binary.iou == pytest.approx(4 / 10)
    assert scores.surface is None
    with pytest.raises(UserError, match=r"\(3, 5, 6\)"):
        pipeline.evaluate(one, other[..., 1:])


def test_the_names_are_there_and_no_others():
    for name in pipeline.__all__:
        assert getattr(pipeline, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'segmnt'"):
        _ = pipeline.segmnt


def test_the_table_of_a_run_of_several_groups(tissue, tmp_path):
    settings = {
        "plan": {"block_zyx": [64, 64, 64], "resolve_group_blocks": 1},
        "outputs": [{"url": str(tmp_path / "cells.zarr"), "chunk_zyx": [64, 64, 64]}],
    }
    result = pipeline.segment(
        tissue[0], voxel_size_zyx_nm=SIZE_NM, output=str(tmp_path / "cells.zarr"), settings=settings, **SETTINGS
    )
    assert (tmp_path / "cells.zarr.run" / "segments.parquet").is_dir()
    ids, counts = np.unique(result.labels["mitochondrion"], return_counts=True)
    assert sorted(zip(*(result.segments[name].to_pylist() for name in ("id", "voxels")), strict=True)) == list(
        zip(ids[1:].tolist(), counts[1:].tolist(), strict=True)
    )
