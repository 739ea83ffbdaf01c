import json

import bench
import pytest
from bench import Settings, is_done
from recipes import row_digest
from rows import Row

ROW = Row("S", "lucchi", "unet3d", 6, 1)


def settings(folder, minutes=6.0):
    return Settings(minutes, 2, folder, folder / "work", None)


def test_a_row_is_done_when_a_result_of_its_digest_is_there(tmp_path):
    assert not is_done(ROW, settings(tmp_path))
    (tmp_path / f"{ROW.name}.json").write_text(json.dumps({"digest": row_digest(ROW, 6.0)}))
    assert is_done(ROW, settings(tmp_path))
    assert not is_done(ROW, settings(tmp_path, minutes=7.0))


def test_rows_of_few_labels_have_more_minutes(tmp_path):
    few = Row("S", "lucchi", "spatial", 2, 0)
    rows = (ROW, few.with_method("memory-half"), few.with_method("cps"), few)
    assert [settings(tmp_path, None).minutes_of(row) for row in rows] == [4.0, 8.0, 16.0, 16.0]
    (tmp_path / f"{few.name}.json").write_text(json.dumps({"digest": row_digest(few, 16.0)}))
    assert is_done(few, settings(tmp_path, None))
    assert settings(tmp_path, 3.0).minutes_of(few) == 3.0


def run(monkeypatch, *arguments):
    monkeypatch.setattr("sys.argv", ["bench.py", *arguments])
    return bench.main()


def test_tier_l_is_refused_without_a_gpu(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert run(monkeypatch, "--tier", "L", "--results", str(tmp_path)) == 2
    assert "needs a CUDA device" in capsys.readouterr().err


@pytest.mark.parametrize("tier", ["S", "L", "P"])
def test_every_tier_can_be_listed(monkeypatch, capsys, tmp_path, tier):
    assert run(monkeypatch, "--tier", tier, "--list", "--results", str(tmp_path)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) >= 4
    assert all(line.startswith("missing") for line in lines)


def test_a_pattern_without_a_row_is_refused(monkeypatch, capsys):
    assert run(monkeypatch, "--only", "nothing_*") == 2
    assert "no row of tier S matches" in capsys.readouterr().err


def test_what_is_done_is_not_run_again(monkeypatch, capsys, tmp_path):
    (tmp_path / f"{ROW.name}.json").write_text(json.dumps({"digest": row_digest(ROW, 6.0)}))
    places = ["--minutes", "6", "--results", str(tmp_path), "--work", str(tmp_path / "work")]
    assert run(monkeypatch, "--only", ROW.name, *places) == 0
    assert "0 rows to run" in capsys.readouterr().err


def test_a_row_that_uses_up_its_processor_time_is_cut_off(monkeypatch, tmp_path):
    monkeypatch.setattr(bench, "HERE", tmp_path)
    (tmp_path / "row_process.py").write_text("while True:\n    pass\n")
    settings = Settings(4.0, 1, tmp_path, tmp_path, row_limit_s=1)
    assert bench.run_row(ROW, settings) < 0


def test_a_row_that_is_told_to_train_for_long_may():
    assert bench.limit_of(8.0) == bench.ROW_LIMIT_S
    assert bench.limit_of(16.0) == 1920
    assert bench.limit_of(30.0) == 3600
