import errno
import subprocess
import sys

import pytest
import safetensors.torch
import torch

from sam4em_core.checkpoint import load_checkpoint, read_checkpoint_header, save_checkpoint
from sam4em_core.errors import ArchitectureMismatch, CheckpointError, NonFiniteError


@pytest.fixture
def saved(tiny_network, tiny_header, tmp_path):
    network = tiny_network()
    header = tiny_header(network.config, card={"data": "synthetic"}, base_sha256="ab" * 32)
    path = tmp_path / "tiny.safetensors"
    save_checkpoint(path, network, header)
    return path, network, header


def test_what_is_saved_comes_back(saved):
    path, network, header = saved
    loaded = load_checkpoint(path)
    assert loaded.header == header
    assert loaded.network.encoder_origin == "trained"
    assert not loaded.network.training
    for name, tensor in loaded.network.state_dict().items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, network.state_dict()[name].half().float()), name


def test_stored_as_half_precision(saved):
    tensors = safetensors.torch.load_file(saved[0])
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float16}


def test_others_may_read_what_the_umask_lets_them(saved):
    path = saved[0]
    beside = path.with_name("beside")
    beside.touch()
    assert path.stat().st_mode == beside.stat().st_mode


def test_header_is_read_without_torch(saved):
    code = (
        "import sys; from sam4em_core.checkpoint import read_checkpoint_header as r;"
        f"assert r({str(saved[0])!r}).name == 'tiny'; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert read_checkpoint_header(saved[0]) == saved[2]


def test_same_network_same_bytes(saved, tmp_path):
    save_checkpoint(tmp_path / "again.safetensors", saved[1], saved[2])
    assert (tmp_path / "again.safetensors").read_bytes() == saved[0].read_bytes()


@pytest.mark.parametrize("kept", [0, 4, 100, 5000, -8])
def test_truncated_files_are_refused(saved, kept):
    saved[0].write_bytes(saved[0].read_bytes()[:kept])
    with pytest.raises(CheckpointError):
        load_checkpoint(saved[0])


def test_files_that_are_none_of_ours_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match="No such file"):
        load_checkpoint(tmp_path / "missing.safetensors")
    foreign = tmp_path / "foreign.safetensors"
    safetensors.torch.save_file({"a": torch.zeros(3)}, foreign)
    with pytest.raises(CheckpointError, match="not written by sam4em"):
        load_checkpoint(foreign)


def test_another_architecture_is_named(saved, tiny_header, tiny_config):
    path, network, header = saved
    tensors = {name: tensor.half().contiguous() for name, tensor in network.state_dict().items()}
    other = header.model_copy(update={"model": tiny_config(memory_slots=2)})
    safetensors.torch.save_file(tensors, path, metadata={"sam4em": other.to_json()})
    with pytest.raises(ArchitectureMismatch, match=r"memory.layers.0.key_age \(3, 16\) instead of \(2, 16\)"):
        load_checkpoint(path)
    del tensors["decoder.up_skip.bias"]
    tensors["left_over"] = torch.zeros(1)
    safetensors.torch.save_file(tensors, path, metadata={"sam4em": header.to_json()})
    with pytest.raises(ArchitectureMismatch, match=r"missing decoder.up_skip.bias; unexpected left_over"):
        load_checkpoint(path)


def test_a_header_of_another_version_is_refused(saved):
    tensors = safetensors.torch.load_file(saved[0])
    text = saved[2].to_json().replace('"format_version": 1', '"format_version": 2')
    safetensors.torch.save_file(tensors, saved[0], metadata={"sam4em": text})
    with pytest.raises(CheckpointError, match="format_version"):
        read_checkpoint_header(saved[0])


def test_a_full_disk_leaves_the_old_file_whole(saved, monkeypatch):
    path, network, header = saved
    before = path.read_bytes()

    def full(*_args, **_kwargs):
        path.with_name(path.name + ".part").write_bytes(b"half of it")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(CheckpointError, match="No space left"):
        save_checkpoint(path, network, header)
    assert path.read_bytes() == before
    assert [item.name for item in path.parent.iterdir()] == [path.name]


def test_weights_that_are_not_finite_are_refused(saved):
    path, network, header = saved
    network.decoder.up_skip.bias.data[0] = 1e6
    with pytest.raises(NonFiniteError, match=r"decoder\.up_skip\.bias"):
        save_checkpoint(path, network, header)


def test_a_header_of_another_network_is_refused(saved, tiny_config, tiny_header):
    with pytest.raises(CheckpointError, match="another architecture"):
        save_checkpoint(saved[0], saved[1], tiny_header(tiny_config(memory="none")))
