import pytest
from rows import METHODS, SEEDS, labelled_slices, large_tier, pilot_tier, row_named, rows_of, small_tier
from sets import SETS


def test_tier_s_holds_the_main_table_with_three_seeds():
    rows = set(small_tier())
    for name in ("lucchi", "phantom"):
        for method in ("none", "two-stage", "memory", "unet3d"):
            for percent in (100, 6):
                found = {r.seed for r in rows if (r.set, r.method, r.labels_percent) == (name, method, percent)}
                assert found == set(SEEDS), (name, method, percent)


@pytest.mark.parametrize("tier", [small_tier, large_tier, pilot_tier])
def test_no_row_stands_twice_and_every_name_is_known(tier):
    rows = tier()
    assert len({row.name for row in rows}) == len(rows)
    assert all(row.method in METHODS and row.set in SETS for row in rows)


def test_lora_is_never_asked_for_where_weights_are_random():
    rows = [row for row in [*small_tier(), *large_tier()] if METHODS[row.method].lora_rank]
    assert rows
    assert all(SETS[row.set].base for row in rows)


def test_a_row_is_found_by_its_name():
    for row in [*small_tier(), *large_tier(), *pilot_tier()]:
        assert row_named(row.name) == row


def test_a_pattern_picks_rows_in_order():
    names = [row.name for row in rows_of("S", "lucchi_memory_006_*")]
    assert names == [f"lucchi_memory_006_s{seed}" for seed in SEEDS]
    assert rows_of("S", "nothing*") == []


def test_all_labels_are_all_slices():
    assert labelled_slices(3, 116, 100) == tuple(range(3, 116))


def test_few_labels_lie_in_the_middle_of_equal_parts():
    assert labelled_slices(0, 116, 6) == (8, 24, 41, 58, 74, 91, 107)
    assert labelled_slices(0, 50, 6) == (8, 25, 41)


@pytest.mark.parametrize(("depth", "percent"), [(7, 1), (13, 50), (101, 25), (2, 99)])
def test_labelled_slices_are_distinct_and_inside(depth, percent):
    slices = labelled_slices(5, 5 + depth, percent)
    assert len(set(slices)) == len(slices) == max(1, round(depth * percent / 100))
    assert min(slices) >= 5
    assert max(slices) < 5 + depth
