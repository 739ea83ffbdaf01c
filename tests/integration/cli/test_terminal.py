"""The command line in poor terminals, in pipes and in shells."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


def call(*arguments, **environment):
    """Run the command in a process of its own, with an environment on top of this one's."""
    settings = {name: value for name, value in os.environ.items() if not name.startswith(("LC_", "LANG"))}
    return subprocess.run(
        [sys.executable, "-m", "pipeline.cli", *arguments],
        capture_output=True,
        env={**settings, **environment},
        check=False,
        timeout=120,
    )


def test_a_terminal_without_utf_8_and_without_color():
    poor = {"PYTHONIOENCODING": "ascii", "TERM": "dumb", "NO_COLOR": "1", "PYTHONUTF8": "0", "LC_ALL": "C"}
    listed = call("models", "list", **poor)
    assert listed.returncode == 0
    assert b"mito-lucchi" in listed.stdout
    assert max(listed.stdout) < 128
    assert b"\x1b" not in listed.stdout
    failed = call("status", "nöwhere/ünknown", **poor)
    assert failed.returncode == 3
    assert b"error: " in failed.stderr
    assert b"Traceback" not in failed.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shell_completion(shell):
    shown = call("--show-completion", shell, _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")
    assert shown.returncode == 0
    assert b"complet" in shown.stdout.lower()


def test_completion_knows_the_commands():
    program = Path(sys.executable).with_name("sam4em")
    if not program.exists():
        pytest.skip("the command `sam4em` is not installed beside this Python")
    asked = {"_SAM4EM_COMPLETE": "complete_bash", "COMP_WORDS": "sam4em re", "COMP_CWORD": "1"}
    words = subprocess.run([program], capture_output=True, env={**os.environ, **asked}, check=True, timeout=120)
    assert b"report" in words.stdout


def test_json_is_json_even_in_a_poor_terminal():
    shown = call("models", "show", "phantom", "--json", PYTHONIOENCODING="ascii", TERM="dumb")
    assert json.loads(shown.stdout)["classes"] == ["mitochondrion"]
