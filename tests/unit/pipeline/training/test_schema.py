import pytest


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"phantom": {"seed": 1, "shape_zyx": [1, 1, 1], "voxel_size_zyx_nm": [5.0] * 3}},
            "give one of image, phantom and dataset",
        ),
        ({"dataset": {"kind": "mitoem", "path": "x"}}, "give one of image, phantom and dataset"),
        ({"image": None, "dataset": {"kind": "cremi", "path": "x"}, "labels": {"c": {"url": "y"}}}, "are names"),
        ({"region": {"z": [0, 3]}}, r"leaves the slices that are read, \(0, 3\)"),
        ({"region": {"y": [4, 4]}}, "holds nothing"),
        ({"labelled_every": 2, "labelled_slices": [1]}, "either labelled_slices or labelled_every"),
        ({"trian": [0, 3]}, "trian"),
    ],
)
def test_refuses_sections_that_contradict_themselves(changes, message, section):
    with pytest.raises(ValueError, match=message):
        section(**changes)
