import pytest
import torch

from sam4em_core.config import UnetConfig
from sam4em_core.errors import ImageShapeError
from sam4em_core.unet3d import build_unet, settle


def config(**changes):
    return UnetConfig(**{"widths": (8, 8, 16, 16), "num_classes": 2, **changes})


@pytest.mark.parametrize(
    ("voxel_nm", "pools"),
    [
        ((20.0, 20.0, 20.0), ((2, 2, 2), (2, 2, 2), (2, 2, 2))),
        ((40.0, 20.0, 20.0), ((1, 2, 2), (2, 2, 2), (2, 2, 2))),
        ((47.5, 18.4, 18.4), ((1, 2, 2), (2, 2, 2), (2, 2, 2))),
        ((100.0, 16.0, 16.0), ((1, 2, 2), (1, 2, 2), (1, 2, 2))),
    ],
)
def test_pooling_leaves_z_out_until_the_spacing_is_near_isotropic(voxel_nm, pools):
    given = config(voxel_size_zyx_nm=voxel_nm, tau_nm=256)
    assert given.pools_zyx == pools
    z, y, x = given.multiple_zyx
    field = build_unet(given)(torch.rand(1, 1, z, y, x))
    assert field.shape == (1, 2, z, y, x)


def test_the_output_is_linear_and_every_weight_gets_a_gradient():
    torch.manual_seed(0)
    network = build_unet(config())
    with torch.no_grad():
        network.out.weight.mul_(50)
    field = network(torch.rand(2, 1, 8, 16, 24))
    assert field.abs().max() > 2
    field.square().mean().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in network.parameters())


def test_the_smallest_patch_passes():
    network = build_unet(UnetConfig(widths=(8, 8, 8, 8))).train()
    assert network(torch.rand(1, 1, 8, 8, 8)).isfinite().all()


@pytest.mark.parametrize("shape", [(1, 1, 8, 16, 20), (1, 2, 8, 16, 16), (1, 8, 16, 16), (1, 1, 0, 8, 8)])
def test_patches_of_another_shape_are_refused(shape):
    with pytest.raises(ImageShapeError, match="regressing distances"):
        build_unet(config())(torch.zeros(shape))


def test_what_is_settled_on_a_patch_gives_what_training_gives_for_it():
    torch.manual_seed(0)
    network = build_unet(UnetConfig())
    patch = torch.rand(1, 1, 16, 24, 24)
    with torch.no_grad():
        trained = network.train()(patch)
    settle(network, [patch])
    assert not network.training
    with torch.inference_mode():
        inferred = network(patch)
        again = network(patch)
    assert trained.std() > 0.01
    assert torch.allclose(inferred, trained, atol=1e-4)
    assert torch.equal(inferred, again)


def test_a_voxel_does_not_depend_on_what_else_its_patch_holds():
    torch.manual_seed(0)
    network = build_unet(config())
    settle(network, torch.rand(3, 2, 1, 8, 16, 128))
    patch = torch.rand(1, 1, 8, 16, 128)
    other = patch.clone()
    other[..., 96:] = 0.2
    with torch.inference_mode():
        one, two = network(patch)[..., :16], network(other)[..., :16]
        assert one.std() > 0.001
        assert torch.allclose(one, two, atol=1e-5)
        network.train()
        assert not torch.allclose(network(patch)[..., :16], network(other)[..., :16], atol=1e-3)


def test_settled_statistics_are_those_of_all_patches():
    network = build_unet(config())
    patches = torch.rand(3, 2, 1, 8, 16, 16) * torch.tensor([0.2, 1.0, 3.0])[:, None, None, None, None, None]
    settle(network, patches)
    norm, convolution = network.down[0][1], network.down[0][0]
    inputs = torch.cat([convolution(patch - 0.5) for patch in patches])
    groups = inputs.reshape(6, norm.num_groups, -1).transpose(0, 1).flatten(1)
    assert torch.allclose(norm.mean, groups.mean(1), atol=1e-5)
    assert torch.allclose(norm.variance, groups.var(1, unbiased=False), rtol=1e-4)
    held = {name: value.clone() for name, value in network.state_dict().items()}
    again = build_unet(config())
    again.load_state_dict(held)
    assert torch.equal(again.eval()(patches[0]), network(patches[0]))
