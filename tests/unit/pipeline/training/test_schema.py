import pytest


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"phantom": {"seed": 1, "shape_zyx": [1, 1, 1], "voxel_size_zyx_nm": [5.0] * 3}}, "either image or phantom"),
        ({"read_slices": 3}, "lies beyond"),
        ({"labelled_every": 2, "labelled_slices": [1]}, "either labelled_slices or labelled_every"),
        ({"trian": [0, 3]}, "trian"),
    ],
)
def test_refuses_sections_that_contradict_themselves(changes, message, section):
    with pytest.raises(ValueError, match=message):
        section(**changes)
