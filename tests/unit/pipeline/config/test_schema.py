from pathlib import Path

import pytest

from pipeline.config import read_config
from pipeline.config.schema import InstanceRule, OutputSection

EXAMPLES = sorted((Path(__file__).parents[4] / "configs" / "run").glob("*.yaml"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_every_example_is_a_valid_config(path):
    assert read_config(path).outputs


def test_there_are_examples():
    assert len(EXAMPLES) >= 2


@pytest.mark.parametrize(
    ("url", "expected"),
    [("a.zarr", "ome-zarr"), ("s3://b/a.zarr/", "ome-zarr"), ("a", "precomputed"), ("gs://b/zarr", "precomputed")],
)
def test_the_address_decides_the_format(url, expected):
    assert OutputSection(url=url).format == expected


def test_the_stitch_rule_follows_the_method():
    assert InstanceRule().stitch_rule == "any"
    assert InstanceRule(method="watershed").stitch_rule == "iou"
    assert InstanceRule(stitch="iou").stitch_rule == "iou"


@pytest.mark.parametrize("rule", [{"method": "components"}, {"method": "watershed", "kind": "semantic"}])
def test_distances_are_flooded_by_a_watershed_alone(rule):
    assert InstanceRule(method="watershed", watershed_on="sdf").stitch_rule == "iou"
    with pytest.raises(ValueError, match="parts nothing"):
        InstanceRule(watershed_on="sdf", **rule)
