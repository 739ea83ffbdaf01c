"""Groups of zarr."""

import zarr

from pipeline.storage import StorageOptions, write_collection
from pipeline.storage.zarr_tree import delete_tree, write_group


def test_zarr_reads_the_group(tmp_path):
    write_group(str(tmp_path / "g"), {"k": [1]}, StorageOptions())
    assert zarr.open_group(tmp_path / "g", mode="r").attrs["k"] == [1]


def test_a_collection_names_its_classes(tmp_path):
    write_collection(str(tmp_path / "g"), ["mito", "glia"], StorageOptions())
    assert zarr.open_group(tmp_path / "g", mode="r").attrs["ome"]["labels"] == ["mito", "glia"]


def test_only_named_things_go(tmp_path):
    for name in ("a/x", "b/x", "f", "g"):
        (tmp_path / "t" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "t" / name).write_text("x")
    delete_tree(str(tmp_path / "t"), ["a", "none"], ["f"], StorageOptions())
    assert sorted(p.name for p in (tmp_path / "t").iterdir()) == ["b", "g"]
    delete_tree(str(tmp_path / "t"), ["b"], ["g"], StorageOptions())
    assert not (tmp_path / "t").exists()
