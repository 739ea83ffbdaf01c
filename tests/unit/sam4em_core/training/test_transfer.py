import pytest
import torch

from sam4em_core.config import ModelConfig
from sam4em_core.model import build_model
from sam4em_core.training.config import CARRIED
from sam4em_core.training.transfer import take_over

CLASSES = ("mitochondrion", "synapse")


@pytest.fixture
def make_network(make_config):
    def make(seed, classes=CLASSES, **changes):
        torch.manual_seed(seed)
        network = build_model(ModelConfig.of({**make_config().model, "num_classes": len(classes), **changes})).eval()
        for parameter in network.parameters():
            parameter.data.add_(torch.randn_like(parameter) * 0.05)
        return network

    return make


def masks(network, image):
    with torch.inference_mode():
        return network.forward_window(image, truncate_every=0).refined_BTKHW


def test_the_same_network_takes_everything(make_network):
    base, network = make_network(0), make_network(1)
    base.encoder_origin = "trained"
    share = take_over(network, CLASSES, base, CLASSES)
    assert (share.random, share.left_out, share.new_classes) == ((), (), ())
    assert network.encoder_origin == "trained"
    assert all(torch.equal(tensor, network.state_dict()[name]) for name, tensor in base.state_dict().items())


def test_classes_in_another_order_give_the_same_masks_in_that_order(make_network):
    base, network = make_network(0), make_network(1)
    take_over(network, CLASSES[::-1], base, CLASSES)
    image = torch.rand(1, 3, 32, 32)
    torch.testing.assert_close(masks(network, image), masks(base, image).flip(2), rtol=1e-3, atol=1e-4)


def test_a_known_class_keeps_its_own_parts_beside_new_ones(make_network):
    base, network = make_network(0), make_network(1, ("glia", "synapse", "mitochondrion"))
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    share = take_over(network, ("glia", "synapse", "mitochondrion"), base, CLASSES)
    there, here = base.state_dict(), network.state_dict()
    assert share.new_classes == ("glia",)
    assert share.left_out == ()
    assert {name.split(".")[2] for name in share.random} == {"output_hypernetworks_mlps"}
    queries = "adapter.class_query"
    assert torch.equal(here[queries][1:], there[queries].flip(0))
    assert torch.equal(here[queries][0], before[queries][0])
    detail = "decoder.head.stride2.0.0.weight"
    shared = there[detail].shape[1] - 2
    assert torch.equal(here[detail][:, :shared], there[detail][:, :shared])
    assert torch.equal(here[detail][:, shared + 1 :], there[detail][:, shared:].flip(1))
    mlp = "decoder.coarse.output_hypernetworks_mlps.{}.layers.0.weight"
    assert torch.equal(here[mlp.format(2)], there[mlp.format(0)])
    assert torch.equal(here[mlp.format(0)], before[mlp.format(0)])


def test_a_network_that_carries_masks_of_whatever_class_takes_one_and_gives_it_to_all(make_network):
    base, carrier, network = make_network(0), make_network(1, (CARRIED,)), make_network(2)
    share = take_over(carrier, (CARRIED,), base, CLASSES)
    assert (share.random, share.new_classes) == ((), ())
    query, mlp = "adapter.class_query", "decoder.coarse.output_hypernetworks_mlps.{}.layers.0.weight"
    assert torch.equal(carrier.state_dict()[query][0], base.state_dict()[query][0])
    share = take_over(network, CLASSES, carrier, (CARRIED,))
    assert (share.random, share.new_classes) == ((), ())
    assert all(torch.equal(row, base.state_dict()[query][0]) for row in network.state_dict()[query])
    first = base.state_dict()[mlp.format(0)]
    assert all(torch.equal(network.state_dict()[mlp.format(k)], first) for k in (0, 1))


def test_another_memory_and_one_decoder_take_what_is_there(make_network):
    base = make_network(0)
    plain = make_network(1, memory="none", two_stage=False)
    share = take_over(plain, CLASSES, base, CLASSES)
    assert share.random == ()
    assert {name.split(".")[0] for name in share.left_out} == {"memory", "previous_prompt", "decoder"}
    share = take_over(make_network(2), CLASSES, plain, CLASSES)
    assert {name.split(".")[0] for name in share.random} == {"memory", "previous_prompt", "decoder"}
    assert not any(name.startswith("decoder.coarse") for name in share.random)


SPATIAL = {"memory": "sdf", "memory_dim": 32, "sdf_memory": {"reach": 1, "mlp_dim": 16}}


def around_unet(make_network, seed, classes):
    unet = {"widths": (8, 8, 8, 8), "num_classes": len(classes), "patch_zyx": (8, 16, 16), "overlap_zyx": (2, 2, 2)}
    return make_network(seed, classes, **SPATIAL, unet=unet)


def test_a_base_of_one_class_fills_its_class_of_a_network_around_a_unet(make_network):
    classes = ("synapse", "mitochondrion")
    base, network = around_unet(make_network, 0, ("mitochondrion",)), around_unet(make_network, 1, classes)
    share = take_over(network, classes, base, ("mitochondrion",))
    assert share.new_classes == ("synapse",)
    assert torch.equal(network.unet.out.weight[1], base.unet.out.weight[0])
    assert torch.equal(network.unet.out.bias[1:], base.unet.out.bias)
    assert "sdf_memory.class_gain" in share.taken
    # The mean over the classes weighs the known one as the base did; with no gain for the other one it is all there is.
    network.sdf_memory.class_gain.data[0] = 0
    level, field = torch.rand(1, 64, 4, 4), torch.rand(1, 2, 64, 64)
    with torch.inference_mode():
        seen = network.sdf_memory.entry(level, field)
        torch.testing.assert_close(seen, base.sdf_memory.entry(level, field[:, 1:]), rtol=1e-4, atol=1e-5)


def test_a_base_without_such_a_memory_leaves_the_classes_weighed_at_random(make_network):
    network = around_unet(make_network, 1, CLASSES)
    before = network.sdf_memory.class_gain.clone()
    share = take_over(network, CLASSES, make_network(0, memory="none"), CLASSES)
    assert "sdf_memory.class_gain" in share.random
    assert torch.equal(network.sdf_memory.class_gain, before)


def test_where_all_classes_begin_with_one_the_memory_sees_their_mean(make_network):
    base, network = around_unet(make_network, 0, (CARRIED,)), around_unet(make_network, 1, CLASSES)
    take_over(network, CLASSES, base, (CARRIED,))
    level, field = torch.rand(1, 64, 4, 4), torch.rand(1, 1, 64, 64).expand(-1, 2, -1, -1)
    with torch.inference_mode():
        seen = network.sdf_memory.entry(level, field)
        torch.testing.assert_close(seen, base.sdf_memory.entry(level, field[:, :1]), rtol=1e-4, atol=1e-5)
