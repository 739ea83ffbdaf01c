"""Small files in the layout of each published data set."""

import json

import h5py
import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image

from pipeline.errors import ConfigError, VolumeNotFound
from pipeline.storage import StorageOptions
from pipeline.training import TrainingFile, load_volume
from pipeline.training.datasets import resolve_dataset

SHAPE = (5, 11, 13)
OPTIONS = StorageOptions()


@pytest.fixture
def image():
    return np.random.default_rng(2).integers(0, 256, SHAPE).astype(np.uint8)


def section(kind, path, labels="mitochondria", **changes):
    dataset = {"kind": kind, "path": str(path), **changes.pop("dataset", {})}
    values = {"name": "v", "dataset": dataset, "labels": {"c": labels}, "train": [0, 3], **changes}
    return TrainingFile.model_validate({"volumes": [values], "training": {}}).volumes[0]


def load(*arguments, **changes):
    return load_volume(section(*arguments, **changes), ("c",), OPTIONS)


def write_slices(folder, names, voxels):
    folder.mkdir(parents=True)
    for name, plane in zip(names, voxels, strict=True):
        if name.endswith(".tif"):
            tifffile.imwrite(folder / name, plane)
        else:
            Image.fromarray(plane).save(folder / name)


def test_lucchi_is_a_pair_of_tiff_stacks(tmp_path, image):
    mask = np.where(image > 99, 255, 0).astype(np.uint8)
    tifffile.imwrite(tmp_path / "testing.tif", image)
    tifffile.imwrite(tmp_path / "testing_groundtruth.tif", mask)
    volume = load("lucchi", tmp_path, dataset={"part": "test"})
    np.testing.assert_array_equal(volume.image_zyx, image)
    np.testing.assert_array_equal(volume.labels_czyx[0], image > 99)
    assert volume.voxel_size_zyx_nm == (5.0, 5.0, 5.0)
    with pytest.raises(VolumeNotFound):
        load("lucchi", tmp_path, dataset={"part": "train"})


@pytest.mark.parametrize(("kind", "size_nm"), [("lucchi++", (5.0, 5.0, 5.0)), ("kasthuri++", (30.0, 3.0, 3.0))])
def test_the_sets_of_casser_are_folders_of_png_with_colored_masks(tmp_path, image, kind, size_nm):
    mask = np.where(image > 99, 255, 0).astype(np.uint8)
    mask[:, :, :2] = 2
    write_slices(tmp_path / "Train_In", [f"mask{z:04}.png" for z in range(5)], image)
    write_slices(tmp_path / "Train_Out", [f"{z}.png" for z in range(5)], np.stack([mask] * 3, axis=-1))
    volume = load(kind, tmp_path, dataset={"part": "train"})
    expected = (mask == 255).astype(np.uint8)
    if kind == "kasthuri++":
        expected[mask == 2] = 255
    np.testing.assert_array_equal(volume.image_zyx, image)
    np.testing.assert_array_equal(volume.labels_czyx[0], expected)
    assert volume.voxel_size_zyx_nm == size_nm


def test_labels_of_mitoem_lie_where_their_names_say(tmp_path, image):
    ids = np.arange(2 * 11 * 13, dtype=np.uint16).reshape(2, 11, 13)
    write_slices(tmp_path / "im", [f"im{z:04}.png" for z in range(398, 403)], image)
    write_slices(tmp_path / "mito-val-v2", ["seg0400.tif", "seg0401.tif"], ids)
    volume = load("mitoem", tmp_path, dataset={"part": "val"}, train=None, choose=[2, 4])
    assert volume.voxel_size_zyx_nm == (30.0, 8.0, 8.0)
    np.testing.assert_array_equal(volume.labels_czyx[0, 2:4], ids != 0)
    assert (volume.labels_czyx[0, [0, 1, 4]] == 255).all()
    write_slices(tmp_path / "mito-train-v2", ["a.tif"], ids[:1])
    with pytest.raises(ConfigError, match="no number"):
        load("mitoem", tmp_path, dataset={"part": "train"})


@pytest.mark.parametrize("is_padded", [False, True])
def test_cremi_is_one_file(tmp_path, image, is_padded):
    path = tmp_path / "sample_A.hdf"
    clefts = np.full((3, 5, 7) if is_padded else SHAPE, 2**64 - 1, np.uint64)
    clefts[1, 2, 3] = 7
    with h5py.File(path, "w") as file:
        file["volumes/raw"] = image
        file["volumes/labels/clefts"] = clefts
        for name in ("volumes/raw", "volumes/labels/clefts"):
            file[name].attrs["resolution"] = (40.0, 4.0, 4.0)
        if is_padded:
            file["volumes/labels/clefts"].attrs["offset"] = (40.0, 8.0, 12.0)
    volume = load("cremi", path, "clefts")
    np.testing.assert_array_equal(volume.image_zyx, image)
    assert volume.voxel_size_zyx_nm == (40.0, 4.0, 4.0)
    expected = np.full(SHAPE, 255 if is_padded else 0, np.uint8)
    if is_padded:
        expected[1:4, 2:7, 3:10] = 0
    expected[(2, 4, 6) if is_padded else (1, 2, 3)] = 1
    np.testing.assert_array_equal(volume.labels_czyx[0], expected)
    with pytest.raises(ConfigError, match="neuron_ids and clefts"):
        load("cremi", path, "mitochondria")
    with h5py.File(path, "a") as file:
        file["volumes/labels/clefts"].attrs["offset"] = (40.0, 9.0, 12.0)
    with pytest.raises(ConfigError, match="whole number"):
        load("cremi", path, "clefts")


def write_multiscale(group, levels, scale, translation):
    """Write levels as OpenOrganelle's zarr has them: OME-NGFF 0.4 with s0, s1, ..."""
    root = zarr.open_group(str(group), mode="w", zarr_format=2)
    datasets = []
    for index, voxels in enumerate(levels):
        root.create_array(f"s{index}", data=voxels, chunks=(4, 5, 6))
        sizes = [float(size) * 2**index for size in scale]
        transforms = [{"type": "scale", "scale": sizes}, {"type": "translation", "translation": list(translation)}]
        datasets.append({"path": f"s{index}", "coordinateTransformations": transforms})
    axes = [{"name": axis, "type": "space", "unit": "nanometer"} for axis in "zyx"]
    root.attrs["multiscales"] = [{"version": "0.4", "axes": axes, "datasets": datasets}]


def test_openorganelle_takes_the_level_of_the_labels(tmp_path, image):
    half = np.ascontiguousarray(image[::2, ::2, ::2])
    labels = (half > 99).astype(np.uint16)
    write_multiscale(tmp_path / "em" / "fibsem-uint8", [image, half], (3.0, 4.0, 4.0), (0.0, 0.0, 0.0))
    write_multiscale(
        tmp_path / "labels" / "inference" / "segmentations" / "mito", [labels], (6.0, 8.0, 8.0), (0.0, 0.0, 0.0)
    )
    found = load(
        "openorganelle", tmp_path, "inference/segmentations/mito", dataset={"image": "em/fibsem-uint8"}, train=[0, 2]
    )
    np.testing.assert_array_equal(found.image_zyx, half)
    np.testing.assert_array_equal(found.labels_czyx[0], labels)
    assert found.voxel_size_zyx_nm == (6.0, 8.0, 8.0)


def test_openorganelle_labels_of_a_part_and_of_no_level(tmp_path, image):
    write_multiscale(tmp_path / "em" / "fibsem-uint8", [image], (3.0, 4.0, 4.0), (0.0, 0.0, 0.0))
    part = np.ones((2, 3, 4), np.uint16)
    write_multiscale(tmp_path / "labels" / "mito", [part], (3.0, 4.0, 4.0), (6.0, 8.0, 4.0))
    write_multiscale(tmp_path / "labels" / "other", [part], (5.0, 4.0, 4.0), (0.0, 0.0, 0.0))
    dataset = {"image": "em/fibsem-uint8"}
    found = load("openorganelle", tmp_path, "mito", dataset=dataset)
    expected = np.full(SHAPE, 255, np.uint8)
    expected[2:4, 2:5, 1:5] = 1
    np.testing.assert_array_equal(found.labels_czyx[0], expected)
    with pytest.raises(ConfigError, match=r"\(5\.0, 4\.0, 4\.0\) nm; the levels of"):
        load("openorganelle", tmp_path, "other", dataset=dataset)
    with pytest.raises(ConfigError, match=r"dataset\.image"):
        load("openorganelle", tmp_path, "mito")


def test_openorganelle_as_n5(tmp_path, image):
    tensorstore = pytest.importorskip("tensorstore")
    for name, voxels in (("em/fibsem-uint8", image), ("labels/mito_seg", (image > 99).astype(np.uint64))):
        path = tmp_path / "jrc.n5" / name / "s0"
        metadata = {
            "dimensions": [13, 11, 5],
            "blockSize": [4, 4, 4],
            "dataType": str(voxels.dtype),
            "compression": {"type": "gzip"},
        }
        spec = {"driver": "n5", "kvstore": {"driver": "file", "path": f"{path}/"}, "metadata": metadata}
        tensorstore.open(spec, create=True).result()[...].write(voxels.transpose(2, 1, 0)).result()
        transform = {"axes": ["z", "y", "x"], "units": ["nm"] * 3, "scale": [3, 4, 4], "translate": [0, 0, 0]}
        attributes = {"multiscales": [{"datasets": [{"path": "s0", "transform": transform}]}]}
        (path.parent / "attributes.json").write_text(json.dumps(attributes))
    found = load("openorganelle", tmp_path / "jrc.n5", "mito_seg", dataset={"image": "em/fibsem-uint8"})
    np.testing.assert_array_equal(found.image_zyx, image)
    np.testing.assert_array_equal(found.labels_czyx[0], image > 99)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dataset": {"part": "all"}}, "train and test"),
        ({"dataset": {"part": "train"}, "labels": "neurons"}, "neurons"),
    ],
)
def test_unknown_parts_and_labels(tmp_path, changes, message):
    with pytest.raises(ConfigError, match=message):
        resolve_dataset(section("lucchi++", tmp_path, **changes), OPTIONS)
