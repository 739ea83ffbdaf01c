import numpy as np
import pytest

from pipeline.config.schema import Sam4emSegmenter
from pipeline.errors import OurError
from pipeline.geometry import Box
from pipeline.segmenter import BlockImage, describe_segmenter, load_segmenter

VOXEL_NM = (8.0, 8.0, 8.0)
DOMAIN = Box.of_shape((17, 23, 29))


@pytest.fixture
def spatial_config(tmp_path, small_spatial):
    from sam4em_core.checkpoint import save_checkpoint

    save_checkpoint(tmp_path / "spatial.safetensors", *small_spatial())
    return Sam4emSegmenter(kind="sam4em", model=str(tmp_path / "spatial.safetensors"), device="cpu")


def test_a_spatial_model_runs_both_networks_and_gives_its_distances_behind_the_classes(spatial_config):
    demand = describe_segmenter(spatial_config, VOXEL_NM)
    assert demand.sdf_tau_nm == 96.0
    assert demand.class_names == ("mito",)
    domain = Box.of_shape((9, 33, 37))
    core = Box((4, 0, 0), (6, 33, 37))
    box = demand.context(core, domain, domain)
    assert box.contains(Box((2, 0, 0), (8, 33, 37)))
    image = np.random.default_rng(1).random(domain.shape, dtype=np.float32)
    segmenter = load_segmenter(spatial_config, VOXEL_NM)
    assert demand.reads(core, domain, domain) == domain
    asked = []

    def read(slab):
        asked.append(slab)
        return image[slab.slices]

    seen = demand.image(read, core, domain, domain)
    assert seen.box == box
    assert asked == list(domain.slabs(seen.coarse.slab_slices))
    part = segmenter.predict(seen, core, domain, domain)
    assert part.shape == (2, 2, 33, 37)
    whole = segmenter.predict(BlockImage(image, domain), domain, domain, domain)
    np.testing.assert_array_equal(part, whole[(slice(None), *core.slices)])
    host, device = demand.projected_bytes(core.shape, domain.shape)
    assert host > 0
    assert device > 8e6
    assert demand.model_voxels(core, domain, domain) >= core.num_voxels


def test_a_slab_of_the_wrong_shape_is_our_error(spatial_config):
    domain = Box.of_shape((9, 33, 37))
    coarse = describe_segmenter(spatial_config, VOXEL_NM).coarse(domain, domain, domain)
    with pytest.raises(OurError, match=r"gathering working voxels .*: a slab has shape"):
        coarse.add(np.zeros((4, 33, 36), np.float32))


def test_flips_are_four_times_the_work():
    plain, flipped = (
        describe_segmenter(Sam4emSegmenter(kind="sam4em", model="phantom", test_time_flips=flips), VOXEL_NM)
        for flips in (False, True)
    )
    assert flipped.model_voxels(DOMAIN, DOMAIN, DOMAIN) == 4 * plain.model_voxels(DOMAIN, DOMAIN, DOMAIN)
    assert flipped.identity.config_digest != plain.identity.config_digest
