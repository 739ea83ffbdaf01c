import json

import pytest
import torch

from sam4em_core.checkpoint import load_checkpoint
from sam4em_core.config import ModelConfig
from sam4em_core.model import build_model
from sam4em_core.training import shipping
from sam4em_core.training.errors import TrainingSetupError
from sam4em_core.training.scores import ClassScore
from sam4em_core.training.shipping import BestModel
from sam4em_core.training.starting import load_base


@pytest.fixture
def network(make_config):
    torch.manual_seed(0)
    return build_model(ModelConfig.of(make_config().model))


def give_scores(monkeypatch, ious):
    left = iter(ious)
    monkeypatch.setattr(
        shipping,
        "score_regions",
        lambda *_: {"mitochondrion": ClassScore(0.3, next(left), 0.9, has_truth=True)},
    )


def test_keeps_the_best_and_not_the_last(tmp_path, make_config, make_volume, network, monkeypatch):
    give_scores(monkeypatch, [0.2, 0.6, 0.4])
    lines = []
    best = BestModel(make_config(), [make_volume()], tmp_path, lines.append)
    for step in (1, 2, 3):
        network.decoder.head.full[0].bias.data.fill_(float(step))
        best.offer(network, step, 60.0 * step)

    loaded = load_checkpoint(tmp_path / "best.safetensors")

    assert float(loaded.network.decoder.head.full[0].bias[0].detach()) == 2.0
    assert loaded.header.thresholds == (0.3,)
    assert loaded.header.normalization.low == pytest.approx(0.2)
    history = json.loads((tmp_path / "scores.json").read_text())
    assert [entry["mean_iou"] for entry in history] == [0.2, 0.6, 0.4]
    assert len(lines) == 3
    assert "IoU 0.6000" in lines[1]


def test_a_resumed_best_is_not_beaten_by_less(tmp_path, make_config, make_volume, network, monkeypatch):
    give_scores(monkeypatch, [0.6, 0.5])
    first = BestModel(make_config(), [make_volume()], tmp_path, lambda _: None)
    first.offer(network, 1, 1.0)
    before = (tmp_path / "best.safetensors").read_bytes()
    second = BestModel(make_config(), [make_volume()], tmp_path, lambda _: None)
    second.load_state_dict(first.state_dict())
    network.decoder.head.full[0].bias.data.fill_(9.0)
    second.offer(network, 2, 2.0)
    assert (tmp_path / "best.safetensors").read_bytes() == before


def test_without_choose_slices_the_last_weights_count(tmp_path, make_config, make_volume, network):
    best = BestModel(make_config(), [make_volume(choose=None)], tmp_path, lambda _: None)
    best.offer(network, 1, 1.0)
    assert not (tmp_path / "best.safetensors").exists()
    path = best.finish(network, 1, 1.0)
    assert load_checkpoint(path).header.thresholds == (0.5,)


def test_the_base_stands_in_the_header(tmp_path, make_config, make_volume, network):
    base = BestModel(make_config(), [make_volume(choose=None)], tmp_path, lambda _: None).finish(network, 1, 1.0)
    config = make_config(base=str(base))
    header = BestModel(config, [], tmp_path, lambda _: None).header(network, {})
    assert len(header.base_sha256) == 64


def test_refuses_a_base_of_another_architecture(tmp_path, make_config, make_volume, network):
    base = BestModel(make_config(), [make_volume(choose=None)], tmp_path, lambda _: None).finish(network, 1, 1.0)
    with pytest.raises(TrainingSetupError, match="d_model 64 instead of 32"):
        load_base(base, network.config.model_copy(update={"d_model": 32}), ("mitochondrion",))
    assert load_base(base, network.config, ("mitochondrion",)).encoder_origin == "trained"
