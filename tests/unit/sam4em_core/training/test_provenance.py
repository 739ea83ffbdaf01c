import numpy as np
import pytest

from sam4em_core.training.errors import TrainingSetupError
from sam4em_core.training.provenance import check_apart, code_digest, describe_origin, volume_digest


def test_an_origin_names_code_data_base_and_versions(make_volume):
    origin = describe_origin([make_volume()], "ab")
    assert origin["code_sha256"] == code_digest()
    assert origin["data_sha256"] == {"ball": volume_digest(make_volume())}
    assert origin["base_sha256"] == "ab"
    assert "torch" in origin["versions"]


@pytest.mark.parametrize("what", ["image", "labels", "train", "voxel"])
def test_a_volume_is_known_by_all_that_it_is(make_volume, what):
    labels = make_volume().labels_czyx.copy()
    labels[0, 18, 52, 60] = 1
    image = make_volume().image_zyx.copy()
    image[0, 0, 0] ^= 1
    changes = {
        "image": {"image_zyx": image},
        "labels": {"labels_czyx": labels},
        "train": {"train": (0, 12)},
        "voxel": {"voxel_size_zyx_nm": (8.0, 8.0, 9.0)},
    }[what]
    assert volume_digest(make_volume(**changes)) != volume_digest(make_volume())


def test_one_image_twice_may_not_choose_where_it_trains(make_volume):
    first = make_volume(choose=None)
    with pytest.raises(TrainingSetupError, match=r"ball and again are the same image.*12:13"):
        check_apart([first, make_volume(name="again", train=None, choose=(12, 19))])
    check_apart([first, make_volume(name="again", train=None, choose=(13, 19))])
    other = np.flip(first.image_zyx, 1).copy()
    check_apart([first, make_volume(name="again", train=None, choose=(12, 19), image_zyx=other)])
