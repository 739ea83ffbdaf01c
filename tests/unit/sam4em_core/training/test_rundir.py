import logging

import pytest

from sam4em_core.training.errors import TrainingSetupError
from sam4em_core.training.rundir import LOG_FILE, STATE_FILE, check_resumable, config_digest, open_run

ORIGIN = {
    "code_sha256": "c",
    "data_sha256": {"a": "1", "b": "2"},
    "base_sha256": "",
    "sdf_sha256": "",
    "memory_base_sha256": "",
}


@pytest.fixture
def opened(tmp_path, make_config):
    open_run(make_config(), tmp_path, ORIGIN)
    (tmp_path / STATE_FILE).write_bytes(b"")
    return tmp_path


def test_other_code_is_said_and_not_refused(opened, make_config, caplog):
    with caplog.at_level(logging.WARNING):
        check_resumable(make_config(), opened, ORIGIN)
        assert not caplog.text
        check_resumable(make_config(), opened, {**ORIGIN, "code_sha256": "d"})
    assert "other code" in caplog.text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data_sha256": {"a": "1", "b": "3"}}, "splits of b are"),
        ({"data_sha256": {"a": "1"}}, "splits of b are"),
        ({"base_sha256": "x"}, "base"),
        ({"sdf_sha256": "x"}, "U-Net"),
        ({"memory_base_sha256": "x"}, "memory's base"),
    ],
)
def test_other_data_or_another_base_is_refused(opened, make_config, changes, message):
    with pytest.raises(TrainingSetupError, match=message):
        check_resumable(make_config(), opened, {**ORIGIN, **changes})


def test_the_card_is_no_part_of_the_digest(make_config):
    assert config_digest(make_config(card={"data": "x"})) == config_digest(make_config())
    assert config_digest(make_config(seed=2)) != config_digest(make_config())


def test_a_run_killed_before_its_first_state_begins_again(tmp_path, make_config):
    open_run(make_config(), tmp_path, ORIGIN)
    (tmp_path / LOG_FILE).write_text("step\n")
    open_run(make_config(seed=9), tmp_path, ORIGIN)
    (tmp_path / STATE_FILE).write_bytes(b"")
    with pytest.raises(TrainingSetupError, match="holds a run already"):
        open_run(make_config(), tmp_path, ORIGIN)
