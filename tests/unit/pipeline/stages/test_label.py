import numpy as np
import pytest

from pipeline.errors import ConfigError
from pipeline.storage import open_volume

FLOOD = {"method": "watershed", "watershed_on": "sdf", "seed_spacing_nm": 60.0}


@pytest.fixture
def touching_boxes():
    """Two boxes with a whole face in common: the mask has no neck."""
    image = np.full((41, 67, 71), 10, np.uint8)
    image[5:35, 9:57, 6:35] = 100
    image[5:35, 9:57, 35:64] = 200
    image[20, 33, 66] = 255
    image[0, 0, 0] = 0
    return image


def labels_of(run):
    run.run_all()
    output = open_volume(run.plan.outputs[0].url, kind="labels")
    return output.read(run.plan.output_domain)


def test_a_flood_of_predicted_distances_parts_what_a_flood_of_the_mask_does_not(make_touching_run, touching_boxes):
    on_sdf = make_touching_run(touching_boxes, "sdf", **FLOOD)
    found = labels_of(on_sdf)
    assert on_sdf.plan.num_channels == 2
    first, second = (np.unique(found[touching_boxes == value]) for value in (100, 200))
    assert len(first) == len(second) == 1
    assert first[0] != second[0]
    on_mask = make_touching_run(touching_boxes, "mask", **{**FLOOD, "watershed_on": "mask"})
    assert on_mask.plan.num_channels == 1
    assert len(np.unique(labels_of(on_mask)[touching_boxes >= 100])) < 3


def test_a_valley_that_is_not_deep_enough_for_the_rule_does_not_part(make_touching_run, touching_boxes):
    run = make_touching_run(touching_boxes, "sdf", **FLOOD, valley_fraction=0.001)
    assert len(np.unique(labels_of(run)[touching_boxes >= 100])) < 3


def test_a_model_without_distances_cannot_be_flooded(make_two_class_run, touching_boxes):
    with pytest.raises(ConfigError, match="needs a model that predicts signed distances"):
        make_two_class_run(touching_boxes, classes={"bright": FLOOD})
