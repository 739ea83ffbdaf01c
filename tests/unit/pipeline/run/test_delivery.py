"""The run that ends a dual-track training."""

from pathlib import Path

import pytest

from pipeline.config.schema import StorageSection
from pipeline.run.delivery import delivery_config, segment_best
from pipeline.run.outputs import class_url
from pipeline.training.schema import VolumeSection
from pipeline.training.spatial_schema import SegmentSection, SpatialFile

VOLUME = VolumeSection(name="one", image="em.zarr", labels={"mito": "l.zarr"}, voxel_size_zyx_nm=(8.0, 8.0, 8.0))


@pytest.mark.parametrize(("watershed", "method"), [(True, "watershed"), (False, "components")])
def test_the_run_follows_the_section(watershed, method):
    section = SegmentSection(
        volume="one",
        outputs=("a", "b.zarr"),
        watershed=watershed,
        min_size_nm3=5.0,
        workers=3,
        task_memory_gib=1.5,
    )
    config = delivery_config(section, VOLUME, ["mito", "glia"], StorageSection(), Path("best.safetensors"))
    assert [output.url for output in config.outputs] == ["a", "b.zarr"]
    assert list(config.classes) == ["mito", "glia"]
    rule = config.classes["glia"]
    assert (rule.method, rule.watershed_on == "sdf", rule.min_size_nm3) == (method, watershed, 5.0)
    assert config.image.roi is None
    assert config.image.voxel_size_zyx_nm == (8.0, 8.0, 8.0)
    assert config.cluster.workers == 3
    assert config.plan.task_memory_gib == 1.5


def test_several_classes_lie_in_folders_of_their_own():
    assert class_url("out/", "mito", 1) == "out"
    assert class_url("out/", "mito", 2) == "out/mito"


def test_a_config_without_the_section_writes_nothing(tmp_path):
    file = SpatialFile(volumes=(VOLUME,), spatial={})
    assert segment_best(file, tmp_path / "best.safetensors") == {}
    assert list(tmp_path.iterdir()) == []
