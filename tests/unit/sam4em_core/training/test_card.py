from sam4em_core.training.card import write_card
from sam4em_core.training.state import LOG_COLUMNS, StepLog

HISTORY = [
    {"step": 10, "mean_iou": 0.4, "classes": {"mitochondrion": {"threshold": 0.5, "iou": 0.4, "dice": 0.57}}},
    {"step": 20, "mean_iou": 0.8, "classes": {"mitochondrion": {"threshold": 0.45, "iou": 0.8, "dice": 0.89}}},
]


def test_tells_what_was_measured(tmp_path, make_config):
    (tmp_path / "best.safetensors").write_bytes(b"0" * 1_500_000)
    log = StepLog(tmp_path / "log.csv", 0)
    for step in range(20):
        row = dict.fromkeys(LOG_COLUMNS, "0")
        log.append({**row, "step": step, "stage": "only", "loss": 1 - step / 20, "windows_per_s": 3.0})
    config = make_config(card={"data": "a ball", "license": "none"})

    write_card(tmp_path / "best.md", tmp_path / "best.safetensors", config, HISTORY, 20, 90.0)

    text = (tmp_path / "best.md").read_text()
    assert "# tiny" in text
    assert "1.5 MB" in text
    assert "20 steps, 1.5 minutes" in text
    assert "- **Data**: a ball" in text
    assert "random weights" in text
    assert "| only | pretrain | 20 | 1 | 3 | 32 | 0.001 | 0.975, 0.075 | 3.00 | 0.0 % |" in text
    assert "| mitochondrion | 0.45 | 0.8000 | 0.8900 | 20 |" in text


def test_says_so_when_nothing_was_scored(tmp_path, make_config):
    (tmp_path / "best.safetensors").write_bytes(b"0")
    write_card(tmp_path / "best.md", tmp_path / "best.safetensors", make_config(), [], 1, 1.0)
    assert "nothing was scored" in (tmp_path / "best.md").read_text()
