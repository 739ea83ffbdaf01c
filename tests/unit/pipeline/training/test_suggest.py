import json

import numpy as np
import pytest

from pipeline.errors import UserError, VolumeNotFound
from pipeline.geometry import Box
from pipeline.storage import ImageSpec, ImageWriter, StorageOptions
from pipeline.training.suggest import SliceNeeds, spread_over, suggest_slices


def needs(need, labelled=(), name="v"):
    return SliceNeeds(name, np.array(need, float), labelled, tuple(range(len(need))))


def slices(rows):
    return [row["slice"] for row in rows]


def test_with_equal_needs_slices_are_spread():
    assert slices(spread_over([needs([0.0] * 21, (0, 20))], 1)) == [10]
    chosen = sorted([0, 40, *slices(spread_over([needs([0.0] * 41, (0, 40))], 3))])
    assert min(np.diff(chosen)) >= 5


def test_the_first_slice_of_nothing_is_the_middle():
    assert slices(spread_over([needs([0.1] * 9)], 1)) == [4]


def test_need_wins_over_spread_but_not_beside_a_labelled_slice():
    need = [0.1] * 40
    need[30] = 0.9
    need[1] = 0.9
    assert slices(spread_over([needs(need, (0,))], 1)) == [30]


def test_a_labelled_slice_is_never_suggested_again():
    rows = spread_over([needs([0.5] * 6, (0, 3))], 4)
    assert sorted(slices(rows)) == [1, 2, 4, 5]


def test_volumes_share_the_number():
    rows = spread_over([needs([0.1] * 20, (0, 10, 19), "sure"), needs([0.8] * 20, (0, 10, 19), "unsure")], 2)
    assert {row["volume"] for row in rows} == {"unsure"}


def write(path, array, size=(10.0, 10.0, 10.0)):
    writer = ImageWriter(ImageSpec(str(path), array.shape, "uint8", size, chunk_zyx=array.shape))
    writer.create()
    writer.write(Box.of_shape(array.shape), array)


def test_a_volume_alone_is_spread(tmp_path):
    write(tmp_path / "em.zarr", np.zeros((9, 4, 4), np.uint8))
    assert slices(suggest_slices(str(tmp_path / "em.zarr"), 1, StorageOptions())) == [4]


def test_a_run_with_kept_probabilities_tells_where_it_is_uncertain(tmp_path):
    probability = np.zeros((40, 8, 8), np.uint8)
    probability[:, 2:6, 2:6] = 255
    probability[25:27, 2:6, 2:6] = 140
    write(tmp_path / "out.zarr.predictions" / "probability-mito.zarr", probability)
    (row,) = suggest_slices(str(tmp_path / "out.zarr"), 1, StorageOptions(), image_z_nm=5.0)
    # Slice 25 of 10 nm lies at slice 51 of 5 nm.
    assert row["slice"] in (51, 53)
    assert row["need"] == pytest.approx(1 - 140 / 255, abs=1e-3)


def test_a_training_tells_by_its_last_round(tmp_path):
    for index, worst in ((0, 2), (2, 7), (10, 12)):
        quality = [0.9] * 16
        quality[worst] = 0.1
        place = tmp_path / f"round-{index}" / "lucchi"
        place.mkdir(parents=True)
        facts = {"quality_by_slice": quality, "labelled_slices": [0, 15], "image_slices": list(range(1, 33, 2))}
        (place / "facts.json").write_text(json.dumps(facts))
    assert slices(suggest_slices(str(tmp_path), 1, StorageOptions())) == [25]
    (tmp_path / "round-11").mkdir()
    assert slices(suggest_slices(str(tmp_path), 1, StorageOptions())) == [25]


def test_bad_input(tmp_path):
    write(tmp_path / "em.zarr", np.zeros((3, 4, 4), np.uint8))
    with pytest.raises(UserError, match="at least one"):
        suggest_slices(str(tmp_path / "em.zarr"), 0, StorageOptions())
    with pytest.raises(UserError, match="only 3 are not labelled"):
        suggest_slices(str(tmp_path / "em.zarr"), 4, StorageOptions())
    (tmp_path / "run" / "round-0").mkdir(parents=True)
    with pytest.raises(VolumeNotFound, match="no round has segmented"):
        suggest_slices(str(tmp_path / "run"), 1, StorageOptions())
