import pytest
import torch

from sam4em_core.checkpoint import load_checkpoint, save_checkpoint
from sam4em_core.errors import CheckpointError
from sam4em_core.export import export_checkpoint
from sam4em_core.header import sha256_of


@pytest.fixture
def run_dir(tiny_network, tiny_header, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    network = tiny_network()
    save_checkpoint(folder / "best.safetensors", network, tiny_header(network.config, card={"data": "synthetic"}))
    (folder / "best.md").write_text("# tiny\n\n- **Weights**: old\n\n## Stages\n\nA then B\n")
    return folder


def test_a_run_becomes_one_file_and_its_card(run_dir, tmp_path):
    out = tmp_path / "out.safetensors"
    card = export_checkpoint(run_dir, out)
    before, after = load_checkpoint(run_dir / "best.safetensors"), load_checkpoint(out)
    assert after.header == before.header
    assert all(torch.equal(t, after.network.state_dict()[name]) for name, t in before.network.state_dict().items())
    text = card.read_text()
    assert card == tmp_path / "out.md"
    assert f"sha256 `{sha256_of(out)}`" in text
    assert "- **Data**: synthetic" in text
    assert "- **Starts from**: random weights" in text
    assert text.endswith("## Stages\n\nA then B\n")
    assert "Weights**: old" not in text


def test_refuses_another_suffix_and_a_folder_without_a_run(run_dir, tmp_path):
    with pytest.raises(CheckpointError, match=r"out\.bin must end in \.safetensors"):
        export_checkpoint(run_dir, tmp_path / "out.bin")
    with pytest.raises(CheckpointError, match=r"best\.safetensors: No such file"):
        export_checkpoint(tmp_path, tmp_path / "out.safetensors")
