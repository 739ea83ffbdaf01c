import sys

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from pipeline import errors
from pipeline.cli import main

COMMANDS = {
    "demo": {"--out", "--workers", "--json"},
    "phantom": {
        "--shape", "--voxel-size", "--seed", "--layers", "--noise", "--contrast-drift", "--section-jitter",
        "--missing-sections", "--damaged-sections", "--workers",
    },
    "segment": {
        "--model", "--classes", "--also", "--voxel-size", "--output-voxel-size", "--roi", "--mask",
        "--mask-voxel-size", "--watershed", "--min-size-nm3", "--workers", "--device", "--force-voxel-size",
        "--mesh", "--restart", "--json",
    },
    "plan": {"--probe", "--price", "--json"},
    "run": {"--cluster", "--restart", "--json"},
    "status": {"--watch", "--interval", "--json"},
    "verify": {"--json"},
    "restitch": {"--set", "--veto", "--output", "--workers", "--restart", "--json"},
    "seams": {"--worst", "--json"},
    "report": {"--truth", "--roi"},
    "mesh": {
        "--classes", "--min-size-nm3", "--ids", "--mip", "--max-error-nm", "--levels", "--format", "--workers",
        "--restart", "--json",
    },
    "skeleton": {
        "--classes", "--min-size-nm3", "--ids", "--mip", "--scale", "--const-nm", "--tick-nm", "--dust-nm", "--format",
        "--workers", "--restart", "--json",
    },
    "clean": {"--json"},
    "evaluate": {"--prediction", "--truth", "--roi", "--truth-values", "--voxel-size", "--hd95-cap-nm", "--json"},
    "export": {"--base"},
    "train": {"--set", "--resume", "--run-dir"},
    "train-spatial": {"--set", "--resume", "--run-dir"},
    "suggest-slices": {"--count", "--image-z-nm", "--json"},
    "view": {"--port", "--bind", "--truth", "--layer", "--screenshot", "--link", "--page", "--state"},
    "models": None,
}  # fmt: skip


def test_commands_and_options_are_frozen():
    group = get_command(main.app)
    assert set(group.commands) == set(COMMANDS)
    for name, options in COMMANDS.items():
        if options is not None:
            found = {flag for item in group.commands[name].params for flag in item.opts if flag.startswith("--")}
            assert found == options, name


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_explains_itself(name):
    result = CliRunner().invoke(main.app, [name, "--help"])
    assert result.exit_code == 0
    assert "Usage" in result.output


def test_version():
    result = CliRunner().invoke(main.app, ["--version"])
    assert result.output.startswith("sam4em 0")


@pytest.mark.parametrize("error_class", [errors.PlanError, errors.StoreFull, errors.CorruptData, errors.TaskFailed])
def test_our_errors_become_one_message_and_their_code(monkeypatch, capsys, error_class):
    def fail():
        raise error_class("reading block 3 [of 5]: found 2, expected 7")

    monkeypatch.setattr(main, "app", fail)
    with pytest.raises(SystemExit) as caught:
        main.entry_point()
    captured = capsys.readouterr()
    assert caught.value.code == error_class.exit_code
    assert captured.err.strip() == "error: reading block 3 [of 5]: found 2, expected 7"
    assert captured.out == ""


def test_a_wrong_option_is_a_usage_error(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["sam4em", "segment", "--no-such-option"])
    with pytest.raises(SystemExit) as caught:
        main.entry_point()
    assert caught.value.code == 2
