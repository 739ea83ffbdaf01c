import pytest
from recipes import recipe_of, row_digest
from rows import METHODS, Row, large_tier, small_tier

from sam4em_core.training.config import TrainingConfig


@pytest.mark.parametrize("row", [*small_tier(), *large_tier()], ids=lambda row: row.name)
def test_every_recipe_is_a_training_config_that_takes_the_minutes(row):
    config = TrainingConfig(**recipe_of(row, 6.0).training)
    assert sum(stage.limit_minutes for stage in config.stages) == pytest.approx(6.0)
    assert config.seed == row.seed


def test_all_methods_see_the_same_windows_and_variation():
    recipes = [recipe_of(Row("S", "lucchi", method, 6, 0), 6.0).training for method in METHODS]
    for key in ("augment", "sampling", "threads", "classes", "voxel_size_zyx_nm"):
        assert all(recipe[key] == recipes[0][key] for recipe in recipes), key


def test_the_rows_of_few_labels_train_in_bfloat16_and_the_main_table_in_float32():
    for name, method in METHODS.items():
        is_few = method.kind == "spatial" or method.variant in ("pseudo", "cps") or "bfloat16" in method.title
        assert method.half == is_few, method.title
        dtype = recipe_of(Row("S", "lucchi", name, 100, 0), 6.0).training["dtype"]
        assert dtype == ("bfloat16" if is_few else "float32"), name


def test_what_looks_at_neighbors_starts_from_a_base_with_a_trained_memory():
    bases = {name: recipe_of(Row("S", "lucchi", name, 2, 0), 6.0).base for name in METHODS}
    assert {bases[name].stem for name in ("spatial", "memory-sdf", "unet3d-pseudo")} == {"phantom-memory"}
    assert bases["memory"].stem == "phantom"
    assert bases["cps"] is None


def test_a_digest_changes_with_everything_that_matters():
    row = Row("S", "lucchi", "memory", 100, 0)
    others = [
        Row("S", "lucchi", "memory", 100, 1),
        Row("S", "lucchi", "memory", 6, 0),
        Row("S", "lucchi", "two-stage", 100, 0),
        Row("S", "phantom", "memory", 100, 0),
    ]
    digests = {row_digest(other, 6.0) for other in others} | {row_digest(row, 6.0), row_digest(row, 5.0)}
    assert len(digests) == 6
    assert row_digest(row, 6.0) == row_digest(Row("S", "lucchi", "memory", 100, 0), 6.0)


@pytest.mark.parametrize("name", ["lucchi", "phantom"])
def test_rows_of_ours_start_from_the_base_unless_they_compare_starts(name):
    for method in ("none", "two-stage", "memory"):
        assert recipe_of(Row("S", name, method, 100, 0), 6.0).base is not None
    for method in ("none-random", "memory-random", "unet3d"):
        assert recipe_of(Row("S", name, method, 100, 0), 6.0).base is None


def test_a_row_that_reads_other_weights_has_their_recipe():
    row = Row("S", "phantom", "memory-one-direction", 100, 0)
    assert recipe_of(row, 6.0) == recipe_of(row.with_method("memory"), 6.0)
