from pathlib import Path

import pytest
from pydantic import ValidationError

from pipeline.config import read_config
from pipeline.config.schema import InstanceRule, OutputSection
from pipeline.labels.splits import VALLEY_FRACTION

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


def test_valleys_are_those_of_predicted_distances():
    assert InstanceRule().valley_fraction == VALLEY_FRACTION
    assert InstanceRule(method="watershed", watershed_on="sdf", valley_fraction=0.5).valley_fraction == 0.5
    with pytest.raises(ValidationError, match="needs watershed_on: sdf"):
        InstanceRule(method="watershed", valley_fraction=0.5)
