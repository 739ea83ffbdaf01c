import dataclasses
import json
from pathlib import Path

import pytest
import recipes
import sets
import torch
from recipes import recipe_of, row_digest
from row_process import forget_other_recipe, run_row
from rows import METHODS, SEEDS, Row, small_tier
from sets import ClassSource, PhantomPart, SetSpec

from sam4em_core.checkpoint import load_checkpoint
from sam4em_core.config import ModelConfig, UnetConfig
from sam4em_core.training.spatial_config import SelectionConfig
from sam4em_core.training.starting import load_base

pytest.importorskip("monai", reason="the bench extra is not installed")
import spatial_rows

NEW = [name for name, method in METHODS.items() if method.variant]


def test_tier_s_holds_the_rows_of_few_labels():
    rows = set(small_tier())
    for name in ("lucchi", "phantom"):
        for method in ("spatial", "cps", "memory-logits", "memory-sdf-up", "memory-sdf-own", "memory-sdf"):
            found = {r.seed for r in rows if (r.set, r.method, r.labels_percent) == (name, method, 2)}
            assert found == set(SEEDS), (name, method)
        assert Row("S", name, "spatial-truth", 100, 0) in rows
        assert Row("S", name, "unet3d-pseudo", 2, 0) in rows


def test_the_labels_of_a_row_are_made_before_it_runs():
    names = [row.name for row in small_tier()]
    for row in small_tier():
        if row.method.startswith("memory-sdf") and row.labels_percent == 2:
            assert names.index(row.with_method("spatial").name) < names.index(row.name)


@pytest.mark.parametrize("method", NEW)
def test_every_recipe_is_a_config_and_its_minutes_are_those_of_the_row(method, tmp_path):
    recipe = recipe_of(Row("S", "phantom", method, 2, 1), 6.0)
    row_digest(Row("S", "phantom", method, 2, 1), 6.0)
    json.dumps(recipe.plain())
    if METHODS[method].kind == "peer":
        return
    config = spatial_rows.config_of(recipe)
    parts = {name: sum(s.limit_minutes for s in config.part(name).stages) for name in ("sdf", "masks")}
    if METHODS[method].variant == "rounds":
        parts |= {
            name: sum(s.limit_minutes for s in config.part(name).stages)
            for name in ("propagation", "direct", "later_sdf", "later_masks")
        }
    if METHODS[method].variant != "memory-sdf" and not method.startswith("memory"):
        assert sum(parts.values()) == pytest.approx(6.0)
    else:
        assert parts["masks"] == pytest.approx(3.0)


def test_labels_that_a_row_makes_for_itself_are_those_of_the_row_of_rounds():
    row = Row("S", "phantom", "memory-sdf", 2, 1)
    made = recipe_of(row, row.minutes).network["rounds"]
    rounds = row.with_method("spatial")
    assert made == {**recipe_of(rounds, rounds.minutes).network["spatial"], "name": row.name}
    networks = [recipe_of(each, each.minutes).network["spatial"] for each in (row, rounds)]
    assert networks[0]["masks"] == networks[1]["masks"]
    assert networks[0]["sdf"] == networks[1]["sdf"]


def test_the_memory_rows_differ_by_their_memory_alone(tmp_path):
    rows = [Row("S", "phantom", name, 2, 0) for name in ("memory-sdf", "memory-sdf-up", "memory-sdf-own")]
    plain = [json.dumps(recipe_of(row, 6.0).network["spatial"]["masks"]) for row in rows]
    assert len(set(plain)) == 1
    memories = [recipe_of(row, 6.0).network["spatial"]["shared"]["model"]["sdf_memory"] for row in rows]
    assert memories == [{}, {"direction": "lower"}, {"include_own": True}]


def test_every_part_starts_from_a_network_that_has_had_its_memory():
    config = spatial_rows.config_of(recipe_of(Row("S", "lucchi", "spatial", 2, 0), 6.0))
    assert Path(config.part("direct").base).stem == "phantom"
    assert Path(config.part("propagation").base).stem == "phantom-memory"
    assert Path(config.part("sdf").base).stem == "phantom-sdf"
    starts = {}
    for name in ("spatial", "memory-sdf", "memory-sdf-up", "memory-logits"):
        config = spatial_rows.config_of(recipe_of(Row("S", "lucchi", name, 2, 0), 6.0))
        starts[name] = Path(config.part("masks").base).stem
    assert starts.pop("memory-logits") == "phantom-memory"
    assert set(starts.values()) == {"phantom-spatial"}


def test_a_unet_of_classes_that_its_base_does_not_know_starts_from_random_weights():
    config = spatial_rows.config_of(recipe_of(Row("S", "phantom", "spatial", 2, 0), 6.0))
    assert config.part("sdf").base is None
    assert Path(config.part("masks").base).stem == "phantom-spatial"


@pytest.mark.parametrize("method", ["memory-sdf", "memory-sdf-up", "memory-sdf-own", "memory-logits"])
def test_every_memory_takes_over_its_base(method):
    part = spatial_rows.config_of(recipe_of(Row("S", "lucchi", method, 2, 0), 6.0)).part("masks")
    model = ModelConfig.model_validate({**part.model, "unet": None if method == "memory-logits" else UnetConfig()})
    network = load_base(Path(part.base), model, part.classes)
    stored, found = load_checkpoint(Path(part.base)).network.state_dict(), network.state_dict()
    memory = [name for name in found if name.startswith("sdf_memory.")]
    assert len(memory) > 20
    assert all(torch.equal(found[name], stored[name]) for name in memory)


def test_a_network_around_a_unet_sees_more_image_around_what_is_scored():
    recipe = recipe_of(Row("S", "lucchi", "memory-sdf", 2, 0), 6.0)
    # Checkpoints are chosen by what they are scored with.
    assert spatial_rows.config_of(recipe).part("masks").context_slices == recipe.context_slices
    assert recipe.context_slices == sets.UNET_CONTEXT_SLICES
    assert recipe_of(Row("S", "lucchi", "cps", 2, 0), 6.0).context_slices == sets.CONTEXT_SLICES


def test_digests_of_older_rows_do_not_know_the_new_fields(monkeypatch):
    row = Row("S", "phantom", "memory", 100, 0)
    before = row_digest(row, 6.0)
    monkeypatch.setitem(METHODS, "memory", dataclasses.replace(METHODS["memory"], variant="x"))
    assert row_digest(row, 6.0) != before
    monkeypatch.setattr(recipes, "_LATER", ())
    monkeypatch.setitem(METHODS, "memory", dataclasses.replace(METHODS["memory"], variant=""))
    assert row_digest(row, 6.0) != before


@pytest.mark.parametrize(("method", "memory"), [("memory-sdf", "phantom-spatial"), ("memory-logits", "phantom-memory")])
def test_a_memory_row_takes_the_memory_alone_of_a_base_that_does_not_know_its_classes(monkeypatch, method, memory):
    begun = {}
    monkeypatch.setattr(spatial_rows, "train_whole", lambda part, _volumes, place: begun.update({place.parent: part}))
    for name in ("lucchi", "phantom"):
        config = spatial_rows.config_of(recipe_of(Row("S", name, method, 2, 0), 6.0))
        spatial_rows._masks(config, [], None, Path(name), Path("round-0.safetensors"))
    known, new = begun[Path("lucchi")], begun[Path("phantom")]
    assert (Path(known.base).stem, known.memory_base) == (memory, None)
    assert (Path(new.base).stem, Path(new.memory_base).stem) == ("round-0", memory)


def test_the_network_of_round_zero_is_the_one_that_round_zero_took(tmp_path):
    place = tmp_path / "row" / "rounds"
    (place / "round-0").mkdir(parents=True)
    (place / "round-0" / "scores.json").write_text(json.dumps({"start": "direct"}))
    found = spatial_rows.network_of_round_zero(place / "round-2" / "sdf" / "best.safetensors")
    assert found == place / "round-0" / "direct" / "best.safetensors"


@pytest.mark.parametrize("minutes", [16.0, 15.0])
def test_labels_of_another_recipe_are_not_taken(monkeypatch, tmp_path, minutes):
    row = Row("S", "phantom", "memory-sdf", 2, 0)
    rounds = tmp_path / "phantom_spatial_002_s0" / "rounds"
    rounds.mkdir(parents=True)
    (rounds / "rounds.json").write_text("{}")
    (rounds.parent / recipes.DIGEST_FILE).write_text(row_digest(row.with_method("spatial"), minutes))
    made = []
    monkeypatch.setattr(spatial_rows, "_rounds", lambda _config, _data, place: made.append(place))
    monkeypatch.setattr(spatial_rows, "subjects_of", lambda *_: [])
    data = sets.BenchSet(sets.SETS["phantom"], (), {}, None, None)
    _, unet, facts = spatial_rows.labels_for(row, recipe_of(row, 8.0), data, tmp_path)
    if minutes == row.with_method("spatial").minutes:
        assert (made, facts["labels_of"]) == ([], "phantom_spatial_002_s0")
    else:
        assert made == [tmp_path / row.name / "rounds"]
        assert unet.is_relative_to(made[0])


TINY = SetSpec(
    title="tiny",
    classes=(ClassSource("neurite", "neurites"),),
    voxel_size_zyx_nm=(10.0, 10.0, 10.0),
    working_zyx_nm=(10.0, 10.0, 10.0),
    min_object_voxels=3,
    base=False,
    train_parts=(PhantomPart(7, (48, 64, 64)),),
    choose_part=PhantomPart(8, (4, 64, 64)),
    report_part=PhantomPart(9, (4, 64, 64)),
)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["spatial", "spatial-truth", "cps", "memory-logits", "memory-sdf", "unet3d-pseudo"])
def test_every_variant_from_start_to_result(monkeypatch, tmp_path, method):
    monkeypatch.setitem(sets.SETS, "tiny", TINY)
    own = spatial_rows.config_of
    # A few steps bring no agreement of the tracks.
    lenient = {"selection": SelectionConfig(min_agreement=0.0)}
    monkeypatch.setattr(spatial_rows, "config_of", lambda *args: own(*args).model_copy(update=lenient))
    row = Row("S", "tiny", method, 4, 0)
    (tmp_path / row.name).mkdir()
    forget_other_recipe(tmp_path / row.name, "digest")
    result = run_row(row, 0.003, tmp_path)
    json.dumps(result)
    assert result["training"]["steps"] >= 1
    assert "iou" in result["classes"]["neurite"]["report"]
    if method == "spatial":
        assert [facts["round"] for facts in result["training"]["rounds"]] == [0, 1, 2]
        assert 0 <= result["training"]["rounds"][0]["direct_dice"] <= 1
    if METHODS[method].variant == "memory-sdf":
        # The U-Net that learnt from the same labels.
        assert Path(result["training"]["unet"]).parts[-3:] == ("round-2", "sdf", "best.safetensors")


def test_each_of_two_networks_learns_what_the_other_says(monkeypatch, tmp_path):
    monkeypatch.setitem(sets.SETS, "tiny", TINY)
    data = sets.load_set("tiny", 4, tmp_path)
    recipe = recipe_of(Row("S", "tiny", "cps", 4, 0), 0.01)
    recipe.training["stages"][0] |= {"crop_voxels": 32, "window_slices": 8, "batch_windows": 1}
    training = spatial_rows.CrossTraining(recipe, data, [sets.region_of(data.choose, TINY.working_zyx_nm)], tmp_path)
    before = [next(net.parameters()).clone() for net in (training.network, training._other)]
    assert not torch.equal(*before)
    training._step()
    after = [next(net.parameters()) for net in (training.network, training._other)]
    assert not any(torch.equal(a, b) for a, b in zip(before, after, strict=True))
