"""A whole run on an S3 endpoint that fails: every twentieth request, in every way; and what a run asks of a store."""

import io
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy import ndimage

from pipeline.config import RunConfig
from pipeline.config.read import parse_config
from pipeline.geometry import Box
from pipeline.run import api, launch
from pipeline.storage import ImageSpec, ImageWriter, ObjectStore, open_volume
from pipeline.telemetry import SilentReporter

sys.path.insert(0, str(Path(__file__).parent / "doubles"))
from faulty_proxy import FAULTS, faulty_proxy

OUTPUTS = ("seg.zarr", "seg")


def grey(shape):
    noise = ndimage.gaussian_filter(np.random.default_rng(5).standard_normal(shape), 2)
    image = np.where(noise > np.quantile(noise, 0.8), np.uint8(200), np.uint8(40))
    # Half of the chunks hold nothing, which writers delete and readers find missing.
    image[:, :, shape[2] // 2 :] = 40
    return image


def write_image(url, options, shape):
    writer = ImageWriter(ImageSpec(f"{url}/em.zarr", shape, "uint8", (30.0, 8.0, 8.0), (32, 32, 32)), options)
    writer.create()
    writer.write(Box.of_shape(shape), grey(shape))


def config_of(url, name, endpoint, **plan):
    values = {
        "image": {"url": f"{url}/em.zarr"},
        "outputs": [{"url": f"{url}/{name}/{output}", "chunk_zyx": [16, 16, 16], "num_mips": 2} for output in OUTPUTS],
        "segmenter": {"kind": "threshold", "foreground": "bright"},
        "plan": {"block_zyx": [16, 16, 16], **plan},
        "storage": {"endpoint_url": endpoint, "region": "us-east-1", "timeout_s": 1.0},
        "cluster": {"workers": 2},
    }
    return parse_config(values, RunConfig, "test")


def digest_of(url, name, options):
    """Everything that a run gives: both volumes, both levels, and the instance table."""
    volumes = [
        open_volume(f"{url}/{name}/{output}", options, kind="labels", level=level)
        for output in OUTPUTS
        for level in (0, 1)
    ]
    labels = [volume.read(Box.of_shape(volume.info.shape_zyx)) for volume in volumes]
    table = pq.read_table(io.BytesIO(ObjectStore(f"{url}/{name}/seg.zarr.run", options).get("segments.parquet")))
    return labels, table


@pytest.mark.timeout(900)
def test_five_percent_of_failing_requests_change_nothing(s3, s3_endpoint):
    url, options = s3
    write_image(url, options, (32, 45, 47))
    api.run_config(config_of(url, "calm", options.endpoint_url))
    with faulty_proxy(s3_endpoint, fraction=0.05, seed=7) as (proxy, address):
        summary = api.run_config(config_of(url, "storm", address))
        assert summary["status"] == "complete"
        assert sum(proxy.requests.values()) > 400
        assert set(proxy.faults) == set(FAULTS)
        assert sum(proxy.faults.values()) > 0.03 * sum(proxy.requests.values())
    (calm, calm_table), (storm, storm_table) = (digest_of(url, name, options) for name in ("calm", "storm"))
    for expected, found in zip(calm, storm, strict=True):
        assert expected.max() > 20
        np.testing.assert_array_equal(found, expected)
    assert storm_table.equals(calm_table)


@pytest.mark.timeout(900)
def test_a_run_never_lists_and_asks_for_every_object_once(s3, s3_endpoint):
    url, options = s3
    write_image(url, options, (16, 48, 64))
    with faulty_proxy(s3_endpoint) as (proxy, address):
        # The run alone: the report that follows it opens three tables, and asks for their sizes.
        summary = launch.run_config(config_of(url, "run", address), reporter=SilentReporter())
    assert summary.num_tasks > 50
    assert (proxy.requests["LIST"], proxy.requests["HEAD"]) == (0, 0)


@pytest.mark.parametrize("fault", FAULTS)
def test_who_creates_an_object_is_told_so_whatever_becomes_of_the_answer(s3, s3_endpoint, fault):
    url, options = s3
    with faulty_proxy(s3_endpoint, fraction=1.0, faults=(fault,), most=1) as (proxy, address):
        first = ObjectStore(url, replace(options, endpoint_url=address, timeout_s=1.0))
        assert first.put_if_absent("lease", b"first")
        assert proxy.faults == {fault: 1}
    assert not ObjectStore(url, options).put_if_absent("lease", b"second")
    assert ObjectStore(url, options).get("lease") == b"first"
