"""Predictions that a run keeps, with the stub models of the stages' tests."""

import importlib.util
import random
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import ConfigError
from pipeline.run.predictions import predictions_url
from pipeline.run.run_places import PREDICTION_KIND, RunPlaces, list_outputs
from pipeline.storage import open_volume

_SPEC = importlib.util.spec_from_file_location("stage_runs", Path(__file__).parents[1] / "stages" / "conftest.py")
_STAGES = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(_STAGES)

make_run, make_two_class_run, blob_image = _STAGES.make_run, _STAGES.make_two_class_run, _STAGES.blob_image
BOTH = {"probabilities": True, "distances": True}


def volumes_of(run):
    folder = Path(predictions_url(run.plan.config.outputs[0].url))
    return {path.stem: open_volume(str(path)) for path in sorted(folder.iterdir())}


def read(volume):
    from pipeline.geometry import Box

    return volume.read(Box.of_shape(volume.info.shape))


def test_nothing_is_kept_unless_it_is_asked_for(make_two_class_run, blob_image):
    run = make_two_class_run(blob_image)
    run.run_all()
    assert not Path(predictions_url(run.plan.config.outputs[0].url)).exists()


@pytest.mark.parametrize("seed", [0, 1])
def test_probabilities_are_those_of_the_scratch_whatever_the_order(make_two_class_run, blob_image, seed):
    run = make_two_class_run(blob_image, predictions={"probabilities": True})
    run.run_all(order=lambda indices: random.Random(seed).sample(indices, len(indices)))
    found = volumes_of(run)
    assert found.keys() == {"probability-bright", "probability-dark"}
    whole = run.context.probabilities.read(run.plan.working_domain)
    assert np.array_equal(read(found["probability-bright"]), whole[0])
    assert np.array_equal(read(found["probability-dark"]), whole[1])
    assert found["probability-dark"].require_voxel_size() == run.plan.working_voxel_size_nm


def test_distances_are_kept_though_no_watershed_floods_them(make_run):
    image = np.full((12, 32, 40), 10, np.uint8)
    image[3:9, 5:15, 8:20] = 100
    run = make_run(
        image,
        needs=_STAGES.touching_boxes_demand(),
        segmenter=_STAGES.TouchingBoxes(),
        classes={"box": {}},
        plan={"predict_block_zyx": [12, 24, 40]},
        predictions=BOTH,
    )
    run.run_all()
    assert run.plan.num_channels == 1
    found = volumes_of(run)
    assert np.array_equal(read(found["distance-box"]) >= 128, image == 100)
    assert np.array_equal(read(found["probability-box"]) >= 128, image == 100)


def test_a_region_lies_where_it_lies_in_the_image(make_two_class_run, blob_image):
    run = make_two_class_run(blob_image, image={"roi": "4:30,8:40,16:56"}, predictions={"probabilities": True})
    run.run_all()
    kept, image = volumes_of(run)["probability-bright"].info, run.context.image.info
    corner = image.origin_zyx_nm or (-6.0, -4.0, -4.0)
    assert kept.origin_zyx_nm == pytest.approx((corner[0] + 4 * 12, corner[1] + 8 * 8, corner[2] + 16 * 8))


def test_creating_again_keeps_what_is_there(make_two_class_run, blob_image):
    run = make_two_class_run(blob_image, predictions={"probabilities": True})
    run.run_all()
    before = read(volumes_of(run)["probability-bright"])
    run.context.create()
    assert before.any()
    assert np.array_equal(read(volumes_of(run)["probability-bright"]), before)


def test_the_manifest_lists_them_and_they_are_deleted_with_the_run(make_two_class_run, blob_image):
    run = make_two_class_run(blob_image, predictions={"probabilities": True})
    run.run_all()
    listed = [item for item in list_outputs(run.plan) if item["kind"] == PREDICTION_KIND]
    assert len(listed) == 2
    RunPlaces(run.plan).delete_outputs(listed)
    assert not any(Path(predictions_url(run.plan.config.outputs[0].url)).iterdir())


def test_bad_input(make_run, make_two_class_run, blob_image):
    with pytest.raises(ConfigError, match="stores no predictions"):
        make_run(blob_image, predictions={"probabilities": True})
    with pytest.raises(ConfigError, match="predicts no signed distances"):
        make_two_class_run(blob_image, "other", predictions={"distances": True})
