"""A whole run on an S3 endpoint: image, both outputs, journal and lease; stopped, gone on with, verified."""

from contextlib import contextmanager

import numpy as np
import pytest
import yaml
from scipy import ndimage

from pipeline.config import read_config
from pipeline.errors import RunLocked
from pipeline.geometry import Box
from pipeline.ledger import Lease
from pipeline.ledger.lease import current_holder
from pipeline.run import api, launch
from pipeline.run.serial import SerialExecutor
from pipeline.storage import ImageSpec, ImageWriter, ObjectStore, open_volume

SHAPE = (13, 29, 31)
WHOLE = Box.of_shape(SHAPE)


def bodies():
    noise = ndimage.gaussian_filter(np.random.default_rng(4).standard_normal(SHAPE), 2)
    return noise > np.quantile(noise, 0.8)


@pytest.fixture
def config_file(s3, tmp_path):
    url, options = s3
    writer = ImageWriter(ImageSpec(f"{url}/em.zarr", SHAPE, "uint8", (30.0, 8.0, 8.0), (16, 32, 32)), options)
    writer.create()
    grey = np.where(bodies(), np.uint8(200), np.uint8(40))
    for index in range(len(writer.grid())):
        box = writer.grid().box(index)
        writer.write(box, np.ascontiguousarray(grey[box.slices]))
    values = {
        "image": {"url": f"{url}/em.zarr"},
        "outputs": [{"url": f"{url}/{name}", "chunk_zyx": [16, 16, 16], "num_mips": 2} for name in ("out.zarr", "out")],
        "segmenter": {"kind": "threshold", "foreground": "bright"},
        "plan": {"block_zyx": [16, 16, 16]},
        "cluster": {"workers": 1},
        "storage": {"endpoint_url": options.endpoint_url, "region": options.region},
    }
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(values))
    return str(path)


@contextmanager
def stops_after(num_questions):
    """In place of Ctrl-C: the run is told to stop when it has asked so often."""
    asked = iter(range(num_questions))
    yield lambda: next(asked, None) is None


@pytest.mark.timeout(900)
def test_a_run_is_stopped_gone_on_with_and_verified(s3, config_file, monkeypatch):
    url, options = s3
    config = read_config(config_file)
    directory = ObjectStore(f"{url}/out.zarr.run", options)
    with monkeypatch.context() as patch:
        patch.setattr(launch, "dask_executor", lambda prepared, stages: SerialExecutor(stages))
        patch.setattr(api, "stop_on_signals", lambda: stops_after(5))
        with Lease(directory), pytest.raises(RunLocked, match="process"):
            api.run_config(config)
        with pytest.raises(SystemExit) as stopped:
            api.run_config(config)
    assert stopped.value.code == 130
    assert current_holder(directory) is None
    before = api.status_report(config_file)
    done = sum(stage["done"] for stage in before["stages"].values())
    total = sum(stage["total"] for stage in before["stages"].values())
    assert 0 < done < total
    assert before["complete"] is False
    # With a worker process, which must reach the endpoint by itself.
    summary = api.run_config(config)
    assert (summary["status"], summary["num_tasks"]) == ("complete", total - done)
    assert min(api.verify_report(config_file)["write_units"].values()) > 0
    assert api.status_report(config_file)["verified"] is True
    truth, count = ndimage.label(bodies())
    labels = [open_volume(f"{url}/{name}", options, kind="labels").read(WHOLE) for name in ("out.zarr", "out")]
    np.testing.assert_array_equal(*labels)
    pairs = np.unique(np.stack([truth.ravel(), labels[0].ravel()]), axis=1)
    assert pairs.shape[1] == count + 1 == len(np.unique(pairs[1]))
    assert api.run_config(config)["status"] == "already complete"
