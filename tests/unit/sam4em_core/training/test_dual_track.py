import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from sam4em_core.checkpoint import load_checkpoint
from sam4em_core.header import read_checkpoint_header, read_unet_header, sha256_of
from sam4em_core.training import dual_track, round_scores, round_zero
from sam4em_core.training.config import CARRIED
from sam4em_core.training.data import UNLABELLED
from sam4em_core.training.dual_track import train_spatial
from sam4em_core.training.errors import TrainingSetupError, TrainingStopped
from sam4em_core.training.spatial_config import SpatialConfig
from sam4em_core.training.subjects import SparseVolume


class KilledError(Exception):
    """Stands in for the signal that ends a process."""


class FolderStore:
    """Keeps layers as .npy files; a folder is there wholly or not at all."""

    def save(self, place, layers, subject, facts):
        part = place.with_name(f".{place.name}.part")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        for name, layer in layers.items():
            np.save(part / f"{name}.npy", layer)
        (part / "facts.json").write_text(json.dumps(facts))
        part.rename(place)

    def load(self, place):
        if not place.exists():
            return None
        layers = {path.stem: np.load(path) for path in place.glob("*.npy")}
        return layers, json.loads((place / "facts.json").read_text())


def rounds_of(run_dir):
    return json.loads((run_dir / "rounds.json").read_text())


def test_from_two_slices_to_a_network(tmp_path, spatial_config, sparse):
    volume = sparse()
    best = train_spatial(spatial_config(with_direct=True, rounds=2), [volume], tmp_path, FolderStore())
    loaded = load_checkpoint(best)
    assert loaded.header.model.memory == "sdf"
    assert loaded.network.unet is not None
    summary = rounds_of(tmp_path)
    assert [scores["round"] for scores in summary["rounds"]] == [0, 1, 2]
    first, *others = summary["rounds"]
    assert first["start"] in ("propagation", "direct")
    assert first["propagation_dice_by_distance"].keys() == {"1", "2", "3", "4", "10"}
    for scores in others:
        assert 0 <= scores["agreement"] <= 1
        assert len(scores["volumes"]["ball"]["change_by_slice"]) == 13
        assert 0 <= scores["volumes"]["ball"]["dice"] <= 1
    assert len(others[0]["slices_left_out"]["ball"]) == 1
    layers, _ = FolderStore().load(tmp_path / "round-1" / "ball")
    assert layers.keys() == {"probability", "disagreement", "labels", "distance"}
    # Truth is never overwritten.
    for z in (1, 11):
        assert np.array_equal(layers["labels"][:, z], volume.volume.labels_czyx[:, z])


@pytest.mark.parametrize("killed_at", [1, 2])
def test_killed_and_resumed_ends_as_if_nothing_had_happened(tmp_path, spatial_config, sparse, monkeypatch, killed_at):
    """Killed while round 1 writes its pseudo-labels, or between its two tracks."""
    config, whole, cut = spatial_config(), tmp_path / "whole", tmp_path / "cut"
    train_spatial(config, [sparse()], whole, FolderStore())

    class DyingStore(FolderStore):
        saved = 0

        def save(self, place, layers, subject, facts):
            if killed_at == self.saved:
                place.with_name(f".{place.name}.part").mkdir(parents=True)
                raise KilledError
            super().save(place, layers, subject, facts)
            DyingStore.saved += 1

    trained = []

    def train_or_die(config, volumes, place):
        trained.append(place.name)
        if len(trained) == killed_at + 1 and killed_at >= 2:
            raise KilledError
        return whole_training(config, volumes, place)

    whole_training = dual_track.train_whole
    with monkeypatch.context() as patch, pytest.raises(KilledError):
        for module in (dual_track, round_zero):
            patch.setattr(module, "train_whole", train_or_die)
        train_spatial(config, [sparse()], cut, DyingStore())
    train_spatial(config, [sparse()], cut, FolderStore(), resume=True)
    assert (cut / "best.safetensors").read_bytes() == (whole / "best.safetensors").read_bytes()
    for index in (0, 1):
        one, other = (FolderStore().load(place / f"round-{index}" / "ball")[0] for place in (cut, whole))
        assert all(np.array_equal(one[name], other[name]) for name in other)


def test_resume_trains_nothing_again_and_refuses_other_labels_and_another_config(
    tmp_path, spatial_config, sparse, monkeypatch
):
    best = train_spatial(spatial_config(), [sparse()], tmp_path, FolderStore())
    before = rounds_of(tmp_path)

    def refuse(*_):
        raise AssertionError("it segmented again")

    assert train_spatial(spatial_config(), [sparse()], tmp_path, FolderStore(), infer=refuse, resume=True) == best
    assert rounds_of(tmp_path) == before
    with pytest.raises(TrainingSetupError, match="holds a training already"):
        train_spatial(spatial_config(), [sparse()], tmp_path, FolderStore())
    with pytest.raises(TrainingSetupError, match="data differ"):
        train_spatial(spatial_config(), [sparse((1, 7))], tmp_path, FolderStore(), resume=True)
    with pytest.raises(TrainingSetupError, match="config differ"):
        train_spatial(spatial_config(rounds=2), [sparse()], tmp_path, FolderStore(), resume=True)
    with pytest.raises(TrainingSetupError, match="no training in"):
        train_spatial(spatial_config(), [sparse()], tmp_path / "none", FolderStore(), resume=True)


def test_disagreement_everywhere_stops_instead_of_training_on_noise(tmp_path, spatial_config, sparse, monkeypatch):
    whole = dual_track.propagation_evidence

    def opposed(*arguments):
        return replace(whole(*arguments), agreement_z=np.full(13, 0.1))

    monkeypatch.setattr(dual_track, "propagation_evidence", opposed)
    config = spatial_config(selection={"min_agreement": 0.2})
    with pytest.raises(TrainingStopped, match="learn from noise"):
        train_spatial(config, [sparse()], tmp_path, FolderStore())
    assert (tmp_path / "round-0" / "ball").exists()
    assert not (tmp_path / "round-1").exists()


def test_stops_when_nothing_changes_also_without_choose_slices(tmp_path, spatial_config, sparse):
    config = spatial_config(rounds=2, stop={"min_change": 1.0})
    train_spatial(config, [sparse(choose=None)], tmp_path, FolderStore())
    summary = rounds_of(tmp_path)
    assert len(summary["rounds"]) == 2
    assert "changed by" in summary["stopped"]
    assert summary["rounds"][1]["choose_dice"] is None


def test_worse_propagation_is_left_for_the_labelled_slices_alone(tmp_path, spatial_config, sparse, monkeypatch, caplog):
    monkeypatch.setattr(round_zero, "dice_against_distance", lambda *_: {1: 0.01})
    monkeypatch.setattr(round_zero, "best_dice", lambda _: 0.5)
    scored = iter([0.9, 0.5])
    monkeypatch.setattr(round_scores, "best_dice", lambda _: next(scored))
    with caplog.at_level("INFO"):
        train_spatial(spatial_config(with_direct=True), [sparse()], tmp_path, FolderStore())
    assert rounds_of(tmp_path)["rounds"][0]["start"] == "direct"
    assert "starts from direct" in caplog.text
    assert "round 0 scored higher" in caplog.text


def test_two_classes_start_from_a_network_that_carries_either(tmp_path, spatial_config, sparse, make_volume):
    one = sparse()
    labels = one.volume.labels_czyx
    known = labels != UNLABELLED
    both = SparseVolume(
        replace(one.volume, labels_czyx=np.concatenate([labels, np.where(known, 1 - labels, labels)])), None
    )
    extra = make_volume(name="extra", choose=None)
    extra = replace(extra, labels_czyx=np.concatenate([extra.labels_czyx, 1 - extra.labels_czyx]))
    values = spatial_config().model_dump()
    values["shared"]["classes"] = ["mitochondrion", "rest"]
    values["shared"]["loss"] = {"per_class": {"rest": {"weight": 2.0}}}
    best = train_spatial(SpatialConfig.model_validate(values), [both], tmp_path, FolderStore(), auxiliary=[extra])
    carrier = load_checkpoint(tmp_path / "round-0" / "propagation" / "best.safetensors")
    assert carrier.header.classes == (CARRIED,)
    assert load_checkpoint(best).header.classes == ("mitochondrion", "rest")
    layers, _ = FolderStore().load(tmp_path / "round-0" / "ball")
    for z in (1, 11):
        assert np.array_equal(layers["probability"][:, z], both.volume.labels_czyx[:, z] * np.uint8(255))


def test_auxiliary_volumes_teach_carrying_first(tmp_path, spatial_config, sparse, make_volume):
    extra = make_volume(name="extra", choose=None)
    config = spatial_config()
    # One labelled slice, at the edge.
    train_spatial(config, [sparse((12,))], tmp_path, FolderStore(), auxiliary=[extra])
    assert rounds_of(tmp_path)["rounds"][0]["agreement"] is None
    assert (tmp_path / "round-0" / "auxiliary" / "best.safetensors").exists()
    assert load_checkpoint(tmp_path / "round-0" / "propagation" / "best.safetensors").header.base_sha256


def test_both_tracks_start_from_their_own_bases_once(tmp_path, spatial_config, sparse):
    started = train_with_own_bases(tmp_path, spatial_config, sparse)
    assert started["masks"] == [
        sha256_of(tmp_path / "other" / "best.safetensors"),
        sha256_of(tmp_path / "rounds" / "round-1" / "masks" / "best.safetensors"),
    ]
    assert started["sdf"] == [
        sha256_of(tmp_path / "other" / "round-1" / "sdf" / "best.safetensors"),
        sha256_of(tmp_path / "rounds" / "round-1" / "sdf" / "best.safetensors"),
    ]


def test_of_a_base_that_does_not_know_the_class_only_the_memory_is_taken(tmp_path, spatial_config, sparse, monkeypatch):
    train_spatial(spatial_config(), [sparse()], tmp_path / "other", FolderStore())
    other = tmp_path / "other" / "best.safetensors"
    values = spatial_config(rounds=2).model_dump()
    values["shared"]["classes"] = ["nucleus"]
    values["masks"]["base"] = str(other)
    began = []

    def watched(config, volumes, place):
        if place.name == "masks":
            began.append((config.base, config.memory_base))
        return whole_training(config, volumes, place)

    whole_training = dual_track.train_whole
    monkeypatch.setattr(dual_track, "train_whole", watched)
    place = tmp_path / "rounds"
    train_spatial(SpatialConfig.model_validate(values), [sparse()], place, FolderStore())
    first = place / "round-0" / "propagation" / "best.safetensors"
    assert began == [(str(first), str(other)), (str(place / "round-1" / "masks" / "best.safetensors"), None)]


def train_with_own_bases(tmp_path, spatial_config, sparse):
    """Train twice, the second time from the first one's networks; give what each track of each round began with."""
    other = tmp_path / "other"
    train_spatial(spatial_config(), [sparse()], other, FolderStore())
    config = spatial_config(rounds=2)
    bases = {"masks": other / "best.safetensors", "sdf": other / "round-1" / "sdf" / "best.safetensors"}
    own = {name: {**getattr(config, name), "base": str(base)} for name, base in bases.items()}
    train_spatial(config.model_copy(update=own), [sparse()], tmp_path / "rounds", FolderStore())
    places = {name: [tmp_path / "rounds" / f"round-{index}" / name for index in (1, 2)] for name in bases}
    return {
        "masks": [read_checkpoint_header(place / "best.safetensors").base_sha256 for place in places["masks"]],
        "sdf": [read_unet_header(place / "best.safetensors").base_sha256 for place in places["sdf"]],
    }


def test_no_labelled_slice(tmp_path, spatial_config, sparse):
    with pytest.raises(TrainingSetupError, match="hold no labelled slice"):
        train_spatial(spatial_config(), [sparse(())], tmp_path, FolderStore())


def test_labelled_slices_without_foreground(tmp_path, spatial_config, sparse):
    volume = sparse()
    labels = volume.volume.labels_czyx.copy()
    labels[:, [1, 11]] = 0
    empty = SparseVolume(replace(volume.volume, labels_czyx=labels), None)
    with pytest.raises(TrainingSetupError, match="no voxel of 'mitochondrion'"):
        train_spatial(spatial_config(), [empty], tmp_path, FolderStore())
