import json

import pytest
from rows import Row, small_tier
from table import BEGIN, END, NOT_RUN, grouped, mean_and_spread, read_results, tables, with_tables


def made(row, iou, **changes):
    report = {"iou": iou, "dice": 0.5, "hd95_nm": 41.0, "hd95_at_least": False, "z_consistency": 0.987}
    names = {"lucchi": ["mitochondrion"], "phantom": ["astrocyte", "synapse"]}[row.set]
    result = {
        "digest": f"{row.name} {6.0}",
        "minutes": 6.0,
        "classes": {name: {"choose": {"threshold": 0.5}, "report": report} for name in names},
        "parameters": 5_023_000,
        "training": {
            "steps": 211,
            "windows_per_s": 1.5,
            "data_fraction": 0.013,
            "seconds": 360.0,
            "start": {"from": "random weights"},
        },
        "seconds": {"data": 10.0, "training": 380.0},
        "peak_resident_gib": 2.25,
        "machine": {"processor": "AMD", "cores": 2, "gpu": "no GPU", "torch": "2"},
        "git_commit": "0123456789abcdef",
    }
    return {**result, **changes}


def row(seed=0, method="memory", percent=6):
    return Row("S", "lucchi", method, percent, seed)


def line_of(text, title, percent, after="**mitochondrion**"):
    part = text.split(after, 1)[1]
    return next(line for line in part.splitlines() if line.startswith(f"| {title} | {percent} %"))


def test_seeds_become_a_mean_and_a_spread():
    results = {row(seed).name: made(row(seed), iou) for seed, iou in enumerate((0.8, 0.85, 0.9))}
    line = line_of(tables(results), "+ 3D memory, both z directions", 6)
    assert line.startswith(
        "| + 3D memory, both z directions | 6 % | 3 | 0.850 (0.800 to 0.900) | 0.500 (0.500 to 0.500)"
    )


def test_missing_seeds_are_counted():
    line = line_of(tables({row(1).name: made(row(1), 0.8)}), "+ 3D memory, both z directions", 6)
    assert "| 1 of 3 | 0.800 |" in line


def test_a_cell_without_a_result_says_so():
    text = tables({row().name: made(row(), 0.8)})
    for part in text.split("### ")[1:]:
        listed = part.split(NOT_RUN, 1)[1]
        assert "--only '" in listed
        assert "3D U-Net (MONAI) (100 %)" in listed
    assert text.count("### Tier L: ") == 3


def test_every_row_of_tier_s_has_a_line():
    results = {r.name: made(r, 0.8) for r in small_tier() if r.set == "phantom"}
    text = tables(results).split("### Tier S: Phantom", 1)[1].split("###", 1)[0]
    lines = [line for line in text.split("**synapse**", 1)[1].split("**cost**", 1)[0].splitlines() if "%" in line]
    assert len(lines) == len(grouped([r for r in small_tier() if r.set == "phantom"], {}))
    assert NOT_RUN not in text


def test_costs_name_the_command_of_all_seeds():
    line = line_of(tables({row().name: made(row(), 0.8)}), "+ 3D memory, both z directions", 6, "**cost**")
    assert "--tier S --minutes 6 --only 'lucchi_memory_006_s?'" in line
    assert "| 5.02 M | 211 | 1.50 | 1.3 % | 6.0 | 390 | 2.25 |" in line


def test_where_weights_started_is_told():
    start = {"from": "phantom", "tensors_random": ["a", "b"]}
    results = {row().name: made(row(), 0.8, training={**made(row(), 0.8)["training"], "start": start})}
    assert "`phantom`, 2 tensors random" in tables(results)


def test_a_distance_beyond_the_cap_is_a_bound():
    result = made(row(), 0.8)
    result["classes"]["mitochondrion"]["report"].update(hd95_nm=1000.0, hd95_at_least=True)
    assert "≥ 1000" in tables({row().name: result})


def test_a_score_that_is_not_defined_is_a_dash():
    assert mean_and_spread([], 3) == "-"
    assert mean_and_spread([0.5], 2) == "0.50"


def test_results_of_another_recipe_do_not_count(tmp_path):
    for seed, digest in enumerate(("old", f"{row(1).name} 6.0")):
        text = json.dumps(made(row(seed), 0.8, digest=digest))
        (tmp_path / f"{row(seed).name}.json").write_text(text)
    results = read_results(tmp_path, lambda r, minutes: f"{r.name} {minutes}")
    assert list(results) == [row(1).name]


def test_only_the_part_between_the_markers_is_written():
    document = f"# Measured\n\nbefore\n\n{BEGIN}\nold\n{END}\n\nafter\n"
    once = with_tables(document, "new")
    assert once == f"# Measured\n\nbefore\n\n{BEGIN}\n\nnew\n{END}\n\nafter\n"
    assert with_tables(once, "new") == once


def test_a_document_without_markers_gets_them_at_its_end():
    assert with_tables("# Measured\n", "new") == f"# Measured\n\n{BEGIN}\n\nnew\n{END}\n"


def test_a_lone_marker_is_refused():
    with pytest.raises(ValueError, match="one of the markers"):
        with_tables(f"{BEGIN} text", "new")
