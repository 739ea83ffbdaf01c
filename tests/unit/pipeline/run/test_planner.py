import math

import numpy as np
import pytest

from pipeline.config import RunConfig
from pipeline.config.read import parse_config
from pipeline.errors import ConfigError, PlanError
from pipeline.geometry import Box, nests
from pipeline.image import GreyRange
from pipeline.run.planner import make_plan
from pipeline.segmenter import SegmenterDemand, SegmenterIdentity
from pipeline.storage import LevelInfo, VolumeInfo

SHAPE = (165, 768, 1024)
SOURCE_NM = (5.0, 5.0, 5.0)


def info(shape=SHAPE, levels=(), level=0):
    levels = levels or (LevelInfo("0", shape, SOURCE_NM),)
    return VolumeInfo(
        url="em.zarr",
        format="ome-zarr",
        shape_zyx=levels[level].shape_zyx,
        dtype=np.dtype(np.uint8),
        chunk_zyx=(64, 64, 64),
        voxel_size_zyx_nm=levels[level].voxel_size_zyx_nm,
        levels=levels,
        level=level,
    )


def demand(**changes):
    values = {
        "identity": SegmenterIdentity("test", "", ""),
        "class_names": ("mitochondrion", "synapse"),
        "thresholds": (0.5, 0.3),
        "working_voxel_size_nm": (8.0, 8.0, 8.0),
        "accepted_voxel_size_nm": (4.0, 16.0),
        "grey_fractions": (0.002, 0.998),
        "unit_zyx": lambda domain: (20, 224, 224),
        "takes_raw_grey": False,
        "is_fused": False,
        "context": lambda core, bounds, domain: core.grown((4, 16, 16)).intersection(bounds),
        "projected_bytes": lambda core, domain: (10**8 + 4 * core[0] * core[1] * core[2], 0),
        "model_voxels": lambda core, bounds, domain: core.num_voxels,
        **changes,
    }
    return SegmenterDemand(**values)


def config(**changes):
    values = {
        "image": {"url": "em.zarr"},
        "outputs": [{"url": "out.zarr"}],
        "segmenter": {"kind": "sam4em"},
        "classes": {"mitochondrion": {}},
        **changes,
    }
    return parse_config(values, RunConfig, "test")


def plan(needs=None, source_nm=SOURCE_NM, **changes):
    return make_plan(config(**changes), info(), source_nm, needs or demand(), GreyRange(0, 255), "out.run")


def test_three_lattices_over_one_origin():
    made = plan()
    assert made.output_domain == Box.of_shape(SHAPE)
    assert made.working_domain == Box.of_shape((104, 480, 640))
    assert made.source_to_working == (1.6, 1.6, 1.6)
    assert made.working_to_output == (0.625, 0.625, 0.625)
    assert made.predict_grid.domain == made.working_domain


def test_predict_blocks_are_whole_windows_and_strides():
    made = plan()
    assert all(a % b == 0 for a, b in zip(made.predict_grid.core, (20, 224, 224), strict=True))
    assert plan(plan={"predict_block_zyx": [40, 100, 224]}).predict_grid.core == (40, 100, 224)
    with pytest.raises(PlanError, match="z windows of 20 slices"):
        plan(plan={"predict_block_zyx": [21, 224, 224]})


def test_a_region_moves_the_origin_and_keeps_the_data_around_it():
    made = plan(image={"url": "em.zarr", "roi": "16:80,32:544,64:1024"})
    assert made.source_origin_zyx == (16, 32, 64)
    assert made.output_domain == Box.of_shape((64, 512, 960))
    assert made.source_bounds == Box((-16, -32, -64), (149, 736, 960))
    assert made.working_bounds == Box((-10, -20, -40), (94, 460, 600))
    assert made.outputs[0].spec.offset_zyx_voxels == (16, 32, 64)


def test_a_region_is_in_full_voxels_also_on_a_coarser_level():
    levels = (LevelInfo("0", SHAPE, SOURCE_NM), LevelInfo("1", (83, 384, 512), (10.0, 10.0, 10.0)))
    made = make_plan(
        config(image={"url": "em.zarr", "roi": "16:80,32:544,64:1024"}),
        info(levels=levels, level=1),
        (10.0, 10.0, 10.0),
        demand(),
        GreyRange(0, 255),
        "out.run",
    )
    assert made.source_origin_zyx == (8, 16, 32)
    assert made.output_domain == Box.of_shape((32, 256, 480))


def test_several_classes_get_a_folder_each():
    made = plan(classes={"synapse": {"kind": "semantic"}, "mitochondrion": {}})
    assert [output.url for output in made.outputs] == ["out.zarr/synapse", "out.zarr/mitochondrion"]
    assert [rule.channel for rule in made.classes] == [1, 0]
    assert [rule.threshold for rule in made.classes] == [77, 128]


def test_a_class_the_model_does_not_have_is_named():
    with pytest.raises(ConfigError, match="no class nucleus; it has mitochondrion, synapse"):
        plan(classes={"nucleus": {}})


def test_sizes_become_voxels_of_the_output():
    made = plan(classes={"mitochondrion": {"min_size_nm3": 1e6}})
    assert made.classes[0].min_size_voxels == 8000


@pytest.mark.parametrize(
    ("rule", "halo"),
    [
        ({}, 1),
        ({"fill_holes_voxels": 7}, 8),
        ({"method": "watershed"}, 24),
        ({"kind": "semantic"}, 1),
        ({"kind": "semantic", "fill_holes_voxels": 7}, 8),
    ],
)
def test_the_halo_follows_the_rule(rule, halo):
    assert plan(classes={"mitochondrion": rule}).label_halo_zyx == (halo,) * 3


def test_blocks_that_do_not_nest_are_refused():
    with pytest.raises(PlanError, match="do not nest"):
        plan(plan={"block_zyx": [48, 64, 64]})
    with pytest.raises(PlanError, match="do not nest"):
        plan(outputs=[{"url": "a.zarr", "chunk_zyx": [64, 64, 64]}, {"url": "b.zarr", "chunk_zyx": [48, 64, 64]}])
    with pytest.raises(PlanError, match="no multiple of chunk"):
        plan(outputs=[{"url": "a.zarr", "shard_zyx": [100, 64, 64]}])


def test_shards_larger_than_a_block_gather_blocks():
    made = plan(
        outputs=[{"url": "a.zarr", "chunk_zyx": [32, 32, 32], "shard_zyx": [128, 128, 128]}],
        plan={"block_zyx": [32, 256, 256]},
    )
    assert made.label_grid.core == (32, 256, 256)
    assert made.relabel_grid.core == (128, 256, 256)


def test_a_block_that_does_not_fit_is_refused_with_the_number():
    with pytest.raises(PlanError, match=r"needs [\d,]+ bytes.*may use 107,374,182"):
        plan(
            plan={"block_zyx": [64, 768, 1024], "task_memory_gib": 0.1}, needs=demand(projected_bytes=lambda *_: (0, 0))
        )
    with pytest.raises(PlanError, match="predict"):
        plan(plan={"task_memory_gib": 0.05})


def test_less_memory_means_smaller_blocks():
    made = plan(plan={"task_memory_gib": 0.3})
    assert made.predict_grid.core < plan().predict_grid.core


def test_a_plan_for_a_petavoxel_is_small():
    import pickle

    shape = (100_000, 100_000, 100_000)
    made = plan(needs=demand())
    big = make_plan(
        config(outputs=[{"url": "out.zarr", "shard_zyx": [64, 1024, 1024]}]),
        info(shape=shape),
        SOURCE_NM,
        demand(),
        GreyRange(0, 255),
        "out.run",
    )
    assert len(big.label_grid) > 10**6
    assert len(pickle.dumps(big)) < 1.5 * len(pickle.dumps(made))


@pytest.mark.parametrize("url", ["out.zarr", "out"])
@pytest.mark.parametrize("method", ["components", "watershed"])
def test_a_large_volume_is_sharded_by_default(url, method):
    """A petavoxel must not become billions of files."""
    made = make_plan(
        config(outputs=[{"url": url, "num_mips": 2}], classes={"mitochondrion": {"method": method}}),
        info(shape=(100_000, 100_000, 100_000)),
        SOURCE_NM,
        demand(),
        GreyRange(0, 255),
        "out.run",
    )
    shard = made.outputs[0].spec.shard_zyx
    assert 2**28 < 8 * math.prod(shard) <= 2**29
    assert made.outputs[0].write_units_zyx == (shard, shard)
    assert len(made.relabel_grid) < 2 * 10**7
    assert all(whole % part == 0 for whole, part in zip(shard, made.label_grid.core, strict=True))


def test_a_default_shard_nests_with_the_blocks_that_are_given():
    block = (64, 192, 1024)
    made = make_plan(
        config(plan={"block_zyx": list(block)}),
        info(shape=(10_000, 10_000, 10_000)),
        SOURCE_NM,
        demand(),
        GreyRange(0, 255),
        "out.run",
    )
    shard = made.outputs[0].spec.shard_zyx
    assert shard != (64, 64, 64)
    assert nests(shard, block)


def test_a_small_volume_is_not_sharded():
    assert plan().outputs[0].spec.shard_zyx is None


def test_output_offsets_must_be_whole_voxels():
    with pytest.raises(PlanError, match="no whole number of output"):
        plan(image={"url": "em.zarr", "roi": "3:80,32:544,64:1024"}, plan={"output_voxel_size_zyx_nm": [10, 10, 10]})


def test_the_output_is_that_of_this_run_alone():
    first, again = plan(), plan(cluster={"workers": 7}, storage={"keep_intermediates": True})
    assert first.outputs[0].spec == again.outputs[0].spec
    other = plan(classes={"mitochondrion": {"threshold": 0.4}})
    assert other.outputs[0].spec.digest() != first.outputs[0].spec.digest()
    model = plan(needs=demand(identity=SegmenterIdentity("test", "ab", "")))
    assert model.outputs[0].spec.digest() != first.outputs[0].spec.digest()
