"""What is particular to OME-Zarr labels."""

import json

import pytest
import zarr

from pipeline.errors import ManifestMismatch
from pipeline.storage import ImageSpec, ImageWriter, LabelVolumeSpec, OmeZarrLabels


def spec_of(url, **changes):
    values = {"shape_zyx": (11, 23, 37), "voxel_size_zyx_nm": (30.0, 8.0, 6.0), "chunk_zyx": (4, 8, 16)}
    return LabelVolumeSpec(str(url), **(values | changes))


def test_metadata_follows_version_0_5(tmp_path):
    spec = spec_of(tmp_path / "s", shard_zyx=(8, 16, 32), factors_zyx=((1, 2, 2),), offset_zyx_voxels=(1, 2, 3))
    OmeZarrLabels(spec).create()
    document = json.loads((tmp_path / "s" / "zarr.json").read_text())
    assert (document["zarr_format"], document["node_type"]) == (3, "group")
    ome = document["attributes"]["ome"]
    assert ome["version"] == "0.5"
    assert "image-label" in ome
    (image,) = ome["multiscales"]
    assert [axis["unit"] for axis in image["axes"]] == ["nanometer"] * 3
    scale, translation = image["datasets"][0]["coordinateTransformations"]
    assert (scale["scale"], translation["translation"]) == ([30, 8, 6], [30, 16, 18])
    assert image["datasets"][1]["coordinateTransformations"][1]["translation"] == [30, 20, 21]
    array = zarr.open_array(tmp_path / "s", path="0", mode="r")
    assert (array.chunks, array.shards, str(array.dtype)) == ((4, 8, 16), (8, 16, 32), "uint64")
    assert array.metadata.dimension_names == ("z", "y", "x")
    assert document["attributes"]["sam4em"]["complete"] is False


def test_a_create_that_was_killed_goes_on(tmp_path):
    spec = spec_of(tmp_path / "s", factors_zyx=((1, 2, 2),))
    OmeZarrLabels(spec).create()
    (tmp_path / "s" / "zarr.json").unlink()
    OmeZarrLabels(spec).create()
    assert not OmeZarrLabels(spec).is_complete()
    (tmp_path / "s" / "zarr.json").unlink()
    with pytest.raises(ManifestMismatch, match="another array"):
        OmeZarrLabels(spec_of(tmp_path / "s", chunk_zyx=(4, 8, 8))).create()


def test_a_folder_that_happens_to_be_called_0_is_left_alone(tmp_path):
    (tmp_path / "s" / "0").mkdir(parents=True)
    (tmp_path / "s" / "0" / "notes.txt").write_text("mine")
    OmeZarrLabels(spec_of(tmp_path / "s")).create()
    (tmp_path / "i" / "0").mkdir(parents=True)
    (tmp_path / "i" / "0" / "notes.txt").write_text("mine")
    ImageWriter(ImageSpec(str(tmp_path / "i"), (5, 7, 11), "uint8", (1.0, 1.0, 1.0))).create()
    for folder in ("s", "i"):
        assert (tmp_path / folder / "0" / "notes.txt").read_text() == "mine"


def test_a_foreign_group_is_not_touched(tmp_path):
    zarr.open_group(tmp_path / "s", mode="w").create_array("0", shape=(3,), dtype="uint8")
    for call in ("create", "delete"):
        with pytest.raises(ManifestMismatch, match="another volume"):
            getattr(OmeZarrLabels(spec_of(tmp_path / "s")), call)()
    assert (tmp_path / "s" / "0" / "zarr.json").is_file()
