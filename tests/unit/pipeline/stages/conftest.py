"""Tiny runs in a temporary folder: a volume on disk, a plan, a context, and all stages one after the other."""

from dataclasses import dataclass, replace

import edt
import numpy as np
import pytest
import zarr
from scipy import ndimage

from pipeline.config import RunConfig
from pipeline.config.read import parse_config
from pipeline.errors import DeviceOutOfMemory
from pipeline.image import GreyRange
from pipeline.run.outputs import run_url_of
from pipeline.run.planner import make_plan
from pipeline.run.prepare import prepare_run
from pipeline.segmenter import SegmenterDemand, SegmenterIdentity, load_segmenter
from pipeline.stages import audit, label, match, predict, pyramid, relabel, resolve
from pipeline.stages.context import TaskContext
from pipeline.stages.plan import RunPlan
from pipeline.storage import StorageOptions, open_volume

STAGES = (predict, label, match, resolve, audit, relabel, pyramid)
VOXEL_NM = [12.0, 8.0, 8.0]


def blobs(seed=7, shape=(41, 67, 71), sigma=2.0):
    """Bright blobs on dark ground, uint8; about an eighth is above 127."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal(shape), sigma)
    return np.clip(127 + 55 * (noise / noise.std() - 1.1), 1, 254).astype(np.uint8)


@dataclass
class TinyRun:
    """A plan and what its tasks work with."""

    plan: RunPlan
    context: TaskContext

    def run_stage(self, stage, order=None):
        """Carry out all tasks of a stage, in index order unless another is given."""
        indices = list(stage.tasks(self.plan))
        return [stage.run(index, self.plan, self.context) for index in (order(indices) if order else indices)]

    def run_all(self, order=None):
        """Carry out all stages; pyramid and resolve are trees, so they keep their order."""
        self.context.create()
        return {stage.NAME: self.run_stage(stage, None if stage in (resolve, pyramid) else order) for stage in STAGES}


class TwoClasses:
    """A segmenter that is not fused: bright and dark, each as probable as it is grey. Keeps its calls.

    Its device has room for `room` tiles; told nothing, for any number.
    """

    def __init__(self, room=99):
        self.calls = []
        self.batches = []
        self.room = room

    def predict(self, image, core, bounds, domain, *, batch=None):
        self.batches.append(batch)
        if batch > self.room:
            raise DeviceOutOfMemory(f"no room for {batch} tiles")
        self.calls.append((image.box, core, bounds, domain))
        assert image.values_zyx.shape == image.box.shape
        assert image.values_zyx.dtype == np.float32
        inside = np.rint(255 * image.values_zyx[core.relative_to(image.box.start).slices]).astype(np.uint8)
        return np.stack([inside, 255 - inside])


class TouchingBoxes:
    """A segmenter with distances: everything bright is inside; the surface between two grey values is one too."""

    def predict(self, image, core, bounds, domain, *, batch=None):
        grey = np.rint(255 * image.values_zyx).astype(np.uint8)
        depth = sum(edt.edt(grey == value, anisotropy=tuple(VOXEL_NM)) for value in (100, 200))
        sdf = np.where(grey > 50, 127.5 + depth, 0).clip(0, 255).astype(np.uint8)
        inside = np.where(grey > 50, 255, 0).astype(np.uint8)
        return np.stack([inside, sdf])[(slice(None), *core.relative_to(image.box.start).slices)]


def touching_boxes_demand():
    """What `TouchingBoxes` needs: a tau of 127.5 nm around a core."""
    return replace(
        two_classes_demand(),
        class_names=("box",),
        thresholds=(0.5,),
        context=lambda core, bounds, domain: core.grown((12, 17, 17)).intersection(bounds),
        sdf_tau_nm=127.5,
    )


def two_classes_demand(working_nm=tuple(VOXEL_NM)):
    """What `TwoClasses` needs: two voxels around a core."""
    return SegmenterDemand(
        identity=SegmenterIdentity("two-classes", "", ""),
        class_names=("bright", "dark"),
        thresholds=(0.5, 0.9),
        working_voxel_size_nm=working_nm,
        accepted_voxel_size_nm=None,
        grey_fractions=None,
        unit_zyx=lambda domain: (4, 8, 8),
        takes_raw_grey=False,
        is_fused=False,
        context=lambda core, bounds, domain: core.grown((2, 2, 2)).intersection(bounds),
        projected_bytes=lambda core, domain: (0, 0),
        model_voxels=lambda core, bounds, domain: core.grown((2, 2, 2)).intersection(bounds).num_voxels,
        batches=lambda domain: (6, 3, 1),
    )


def plan_of(config, needs):
    """Plan with the config's own segmenter, or with a stub's needs."""
    if needs is None:
        prepared = prepare_run(config)
        return prepared.plan, prepared.demand
    image = open_volume(config.image.url, voxel_size_zyx_nm=config.image.voxel_size_zyx_nm)
    plan = make_plan(config, image.info, image.require_voxel_size(), needs, GreyRange(0, 255), run_url_of(config))
    return plan, needs


@pytest.fixture
def make_two_class_run(make_run):
    """Plan a run of `TwoClasses` over an array."""

    def make(image, name="run", /, working_nm=tuple(VOXEL_NM), **sections):
        values = {"classes": {"bright": {}, "dark": {}}, "plan": {"predict_block_zyx": [12, 24, 40]}, **sections}
        return make_run(image, name, needs=two_classes_demand(working_nm), segmenter=TwoClasses(), **values)

    return make


@pytest.fixture
def make_touching_run(make_run):
    """Plan a run of `TouchingBoxes` over an array."""

    def make(image, name="run", /, **rule):
        values = {"classes": {"box": rule}, "plan": {"predict_block_zyx": [12, 24, 40]}}
        return make_run(image, name, needs=touching_boxes_demand(), segmenter=TouchingBoxes(), **values)

    return make


@pytest.fixture
def blob_image():
    """The image that most tests label."""
    return blobs()


@pytest.fixture
def make_run(tmp_path):
    """Give a function that plans a run of `threshold` over an array; keywords replace sections of the config."""

    def make(image, name="run", /, needs=None, segmenter=None, **sections):
        path = tmp_path / f"{name}-image.zarr"
        array = zarr.create_array(str(path), shape=image.shape, dtype=image.dtype, chunks=(17, 19, 23))
        array[:] = image
        values = {
            "image": {"url": str(path), "voxel_size_zyx_nm": VOXEL_NM},
            "outputs": [
                {"url": str(tmp_path / f"{name}.zarr"), "chunk_zyx": [8, 16, 16], "num_mips": 3},
                {"url": str(tmp_path / f"{name}-precomputed"), "chunk_zyx": [8, 16, 16], "num_mips": 3},
            ],
            "segmenter": {"kind": "threshold", "foreground": "bright"},
            "plan": {"block_zyx": [16, 32, 32]},
        }
        for key, section in sections.items():
            values[key] = {**values[key], **section} if isinstance(values.get(key), dict) else section
        config = parse_config(values, RunConfig, "test")
        plan, demand = plan_of(config, needs)
        segmenter = segmenter or load_segmenter(config.segmenter, plan.source_voxel_size_nm)
        return TinyRun(plan, TaskContext(plan, options=StorageOptions(), demand=demand, segmenter=segmenter))

    return make
