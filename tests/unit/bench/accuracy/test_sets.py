import numpy as np
import pytest
import sets
from sets import SETS, UNLABELLED, ClassSource, Part, PhantomPart, SetSpec, load_set, region_of

from sam4em_core.training.data import TrainingVolume

TINY = SetSpec(
    title="tiny",
    classes=(ClassSource("astrocyte", "glia", objects=False), ClassSource("synapse", "synapses")),
    voxel_size_zyx_nm=(10.0, 10.0, 10.0),
    working_zyx_nm=(10.0, 10.0, 10.0),
    min_object_voxels=3,
    base=False,
    train_parts=(PhantomPart(7, (11, 37, 41)),),
    choose_part=PhantomPart(8, (3, 37, 41)),
    report_part=PhantomPart(9, (5, 37, 41)),
)


@pytest.mark.parametrize("spec", [spec for spec in SETS.values() if spec.stored], ids=lambda spec: spec.title)
def test_splits_do_not_touch(spec):
    assert spec.train[1] <= spec.choose[0] < spec.choose[1] <= spec.report[0]


def test_phantoms_of_the_splits_have_different_seeds():
    spec = SETS["phantom"]
    seeds = [part.seed for part in (*spec.train_parts, spec.choose_part, spec.report_part)]
    assert len(set(seeds)) == len(seeds)


def test_a_phantom_set_hides_labels_in_training_only(tmp_path, monkeypatch):
    monkeypatch.setitem(sets.SETS, "tiny", TINY)
    data = load_set("tiny", 20, tmp_path)
    train, choose = data.training
    hidden = (train.labels_czyx == UNLABELLED).all(axis=(0, 2, 3))
    assert data.labelled == {"phantom-7": tuple(np.flatnonzero(~hidden))}
    assert (~hidden).sum() == 2
    assert not (choose.labels_czyx == UNLABELLED).any()
    assert data.report.truth_czyx.shape == (2, 5, 37, 41)
    again = load_set("tiny", 20, tmp_path)
    assert np.array_equal(again.report.volume.image_zyx, data.report.volume.image_zyx)


def test_every_scored_slice_is_covered_where_the_volume_ends_within_a_working_slice():
    image = np.arange(11, dtype=np.uint8)[:, None, None] * np.ones((11, 4, 4), np.uint8)
    volume = TrainingVolume("v", image, np.zeros((1, *image.shape), np.uint8), (5.0, 5.0, 5.0), grey_range=(0.0, 10.0))
    region = region_of(Part(volume, (None,), (7, 11)), (10.0, 10.0, 10.0))
    # Source slices 7 to 10 lie in working slices 3, 4 and 5, the last of which is half full.
    assert (region.num_slices, region.context_below, region.lead_z_nm) == (3, 3, 5.0)
    assert region.image_zyx.shape == (6, 2, 2)
    assert region.image_zyx[:, 0, 0] == pytest.approx([0.05, 0.25, 0.45, 0.65, 0.85, 1.0])
    near = region_of(Part(volume, (None,), (7, 11)), (10.0, 10.0, 10.0), 1)
    assert (near.context_below, len(near.image_zyx)) == (1, 4)
