import numpy as np
import pytest

from pipeline.config.schema import Sam4emSegmenter
from pipeline.errors import OurError
from pipeline.geometry import Box
from pipeline.segmenter import BlockImage, describe_segmenter, load_segmenter

VOXEL_NM = (8.0, 8.0, 8.0)
DOMAIN = Box.of_shape((17, 23, 29))


def spatial_checkpoint(folder):
    """A small network around a U-Net, with random weights."""
    import torch

    from sam4em_core.checkpoint import save_checkpoint
    from sam4em_core.config import ModelConfig
    from sam4em_core.header import CheckpointHeader
    from sam4em_core.model import build_model

    torch.manual_seed(5)
    model = ModelConfig.of(
        {
            "embed_dim": 8,
            "d_model": 64,
            "decoder_mlp_dim": 32,
            "memory": "sdf",
            "memory_dim": 16,
            "sdf_memory": {"reach": 2, "mlp_dim": 32},
            "unet": {
                "widths": (8, 8, 8, 8),
                "voxel_size_zyx_nm": (16.0, 16.0, 16.0),
                "tau_nm": 96.0,
                "patch_zyx": (8, 8, 8),
                "overlap_zyx": (2, 2, 2),
            },
        }
    )
    header = CheckpointHeader(
        name="spatial",
        model=model,
        classes=("mito",),
        thresholds=(0.5,),
        working_voxel_size_zyx_nm=VOXEL_NM,
        accepted_voxel_size_nm=(4.0, 16.0),
        window_slices=5,
        tile_side=32,
        tile_overlap=5,
    )
    save_checkpoint(folder / "spatial.safetensors", build_model(model), header)
    return Sam4emSegmenter(kind="sam4em", model=str(folder / "spatial.safetensors"), device="cpu")


def test_a_spatial_model_runs_both_networks_and_gives_its_distances_behind_the_classes(tmp_path):
    config = spatial_checkpoint(tmp_path)
    demand = describe_segmenter(config, VOXEL_NM)
    assert demand.sdf_tau_nm == 96.0
    assert demand.class_names == ("mito",)
    domain = Box.of_shape((9, 33, 37))
    core = Box((4, 0, 0), (6, 33, 37))
    box = demand.context(core, domain, domain)
    assert box.contains(Box((2, 0, 0), (8, 33, 37)))
    image = np.random.default_rng(1).random(domain.shape, dtype=np.float32)
    segmenter = load_segmenter(config, VOXEL_NM)
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


def test_a_slab_of_the_wrong_shape_is_our_error(tmp_path):
    domain = Box.of_shape((9, 33, 37))
    coarse = describe_segmenter(spatial_checkpoint(tmp_path), VOXEL_NM).coarse(domain, domain, domain)
    with pytest.raises(OurError, match=r"gathering working voxels .*: a slab has shape"):
        coarse.add(np.zeros((4, 33, 36), np.float32))


def test_flips_are_four_times_the_work():
    plain, flipped = (
        describe_segmenter(Sam4emSegmenter(kind="sam4em", model="phantom", test_time_flips=flips), VOXEL_NM)
        for flips in (False, True)
    )
    assert flipped.model_voxels(DOMAIN, DOMAIN, DOMAIN) == 4 * plain.model_voxels(DOMAIN, DOMAIN, DOMAIN)
    assert flipped.identity.config_digest != plain.identity.config_digest
