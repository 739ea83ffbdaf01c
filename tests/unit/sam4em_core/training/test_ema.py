import pytest
import torch
from torch import nn

from sam4em_core.training.ema import WeightAverage


def test_the_start_is_forgotten_and_the_end_is_smoothed():
    net = nn.Linear(1, 1, bias=False)
    net.weight.data.fill_(100.0)
    average = WeightAverage(net, 0.9)
    for step in range(300):
        net.weight.data.fill_(1.0 if step % 2 else 3.0)
        average.update(net)
    assert float(average.mean["weight"]) == pytest.approx(2.0, abs=0.15)


def test_first_update_by_hand():
    net = nn.Linear(1, 1, bias=False)
    net.weight.data.fill_(0.0)
    average = WeightAverage(net, 0.9)
    net.weight.data.fill_(1.0)
    average.update(net)
    assert float(average.mean["weight"]) == pytest.approx(1 - 2 / 11)


def test_a_saved_mean_goes_on_as_if_never_stopped():
    torch.manual_seed(0)
    net = nn.Linear(3, 5)
    whole = WeightAverage(net, 0.5)
    whole.update(net)
    resumed = WeightAverage(nn.Linear(3, 5), 0.5)
    resumed.load_state_dict(whole.state_dict())
    net.weight.data += 1
    whole.update(net)
    resumed.update(net)
    assert torch.equal(whole.mean["weight"], resumed.mean["weight"])


def test_copies_into_a_network():
    net, other = nn.Linear(3, 5), nn.Linear(3, 5)
    WeightAverage(net, 0.5).copy_to(other)
    assert torch.equal(net.weight, other.weight)


def test_refuses_a_mean_that_is_none():
    with pytest.raises(TypeError, match="is a dict"):
        WeightAverage(nn.Linear(1, 1), 0.5).load_state_dict({"num_updates": 1, "mean": 3})


def test_what_is_frozen_is_not_held_and_not_changed():
    net = nn.Linear(3, 5)
    net.bias.requires_grad_(False)
    average = WeightAverage(net, 0.5)
    assert set(average.mean) == {"weight"}
    net.weight.data += 1
    average.update(net)
    bias = net.bias.clone()
    average.copy_to(net)
    assert torch.equal(net.bias, bias)
    assert torch.equal(net.weight, average.mean["weight"])
