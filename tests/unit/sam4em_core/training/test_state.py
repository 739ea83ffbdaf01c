import pytest
import torch

from sam4em_core.errors import CheckpointError
from sam4em_core.training import state as state_module
from sam4em_core.training.errors import TrainingDiskError
from sam4em_core.training.state import LOG_COLUMNS, StepLog, load_state, read_log, save_state, write_whole


def row(step, **changes):
    return {**dict.fromkeys(LOG_COLUMNS, "0"), "step": step, **changes}


def test_a_state_comes_back(tmp_path):
    save_state(tmp_path / "s.pt", {"step": 3, "weights": {"a": torch.arange(5)}})
    state = load_state(tmp_path / "s.pt")
    assert state["step"] == 3
    assert torch.equal(state["weights"]["a"], torch.arange(5))
    assert [path.name for path in tmp_path.iterdir()] == ["s.pt"]


def test_a_full_disk_leaves_the_old_state_whole(tmp_path, monkeypatch):
    path = tmp_path / "s.pt"
    save_state(path, {"step": 1})

    def fill_up(state, place):
        place.write_bytes(b"half a st")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(state_module.torch, "save", fill_up)
    with pytest.raises(TrainingDiskError, match="No space left"):
        save_state(path, {"step": 2})
    assert load_state(path) == {"step": 1}
    assert [item.name for item in tmp_path.iterdir()] == ["s.pt"]


def test_a_missing_folder_is_an_error_of_the_disk(tmp_path):
    with pytest.raises(TrainingDiskError, match="previous checkpoint is whole"):
        write_whole(tmp_path / "gone" / "x", lambda place: place.write_bytes(b"x"))


@pytest.mark.parametrize("content", [b"", b"not a state at all"])
def test_refuses_a_broken_state(tmp_path, content):
    path = tmp_path / "s.pt"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"s\.pt"):
        load_state(path)


def test_refuses_a_state_of_another_kind(tmp_path):
    torch.save([1, 2], tmp_path / "s.pt")
    with pytest.raises(CheckpointError, match="list"):
        load_state(tmp_path / "s.pt")


def test_a_resumed_log_forgets_what_runs_again(tmp_path):
    log = StepLog(tmp_path / "log.csv", 0)
    for step in range(5):
        log.append(row(step))
    StepLog(tmp_path / "log.csv", 3).append(row(3, loss="7"))
    rows = read_log(tmp_path / "log.csv")
    assert [item["step"] for item in rows] == ["0", "1", "2", "3"]
    assert rows[-1]["loss"] == "7"


def test_a_row_cut_short_is_left_out(tmp_path):
    StepLog(tmp_path / "log.csv", 0).append(row(0))
    with (tmp_path / "log.csv").open("a") as stream:
        stream.write("1,stage,0.")
    assert [item["step"] for item in read_log(tmp_path / "log.csv")] == ["0"]
