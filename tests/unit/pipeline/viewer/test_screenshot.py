from __future__ import annotations

import os
import select
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.errors import UserError, WorldError
from pipeline.viewer.scene import Layer, Scene
from pipeline.viewer.screenshot import find_browser, take_screenshot
from pipeline.viewer.server import ViewerServer, serve

VOXEL = (30.0, 8.0, 8.0)


@pytest.fixture
def server() -> Iterator[ViewerServer]:
    layer = Layer("em", "image", "https://host.invalid/em.zarr", "zarr", VOXEL)
    with serve(Scene((layer,), (13, 61, 83), VOXEL)) as running:
        yield running


def fake_browser(folder: Path, script: str) -> Path:
    path = folder / "browser"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def has_ended(pid: int) -> bool:
    """Whether a process ends within a few seconds; the kernel may still be busy with it after the signal."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([descriptor], [], [], 10)[0])
    finally:
        os.close(descriptor)


def test_no_browser_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="apt-get install chromium"):
        find_browser()


def test_a_browser_on_path_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake_browser(tmp_path, "exit 0").rename(tmp_path / "google-chrome")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_browser() == str(tmp_path / "google-chrome")


def test_a_browser_that_ends_is_quoted(server: ViewerServer, tmp_path: Path) -> None:
    browser = fake_browser(tmp_path, "echo cannot open display >&2; exit 3")
    with pytest.raises(WorldError, match=r"(?s)ended with code 3.*cannot open display"):
        take_screenshot(server, tmp_path / "a.png", browser=browser, timeout_s=30)
    assert not (tmp_path / "a.png").exists()


def test_a_browser_that_hangs_is_ended_with_its_children(server: ViewerServer, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    browser = fake_browser(tmp_path, f"sleep 600 & echo $$ $! > {pids}; wait")
    with pytest.raises(WorldError, match=r"not drawn in 0\.7 s"):
        take_screenshot(server, tmp_path / "a.png", browser=browser, timeout_s=0.7)
    parent, child = (int(pid) for pid in pids.read_text().split())
    assert has_ended(parent)
    assert has_ended(child)


def test_the_browser_gets_a_profile_of_its_own_that_is_removed(server: ViewerServer, tmp_path: Path) -> None:
    arguments = tmp_path / "arguments"
    browser = fake_browser(tmp_path, f'printf "%s\\n" "$@" > {arguments}')
    with pytest.raises(WorldError):
        take_screenshot(server, tmp_path / "a.png", size=(700, 500), browser=browser)
    given = arguments.read_text().splitlines()
    assert given[-1] == server.url
    assert {"--headless=new", "--use-angle=swiftshader", "--no-sandbox", "--window-size=700,500"} <= set(given)
    (profile,) = (flag.partition("=")[2] for flag in given if flag.startswith("--user-data-dir="))
    assert not Path(profile).parent.exists()


def test_the_viewer_is_left_as_it_was(server: ViewerServer, tmp_path: Path) -> None:
    state, config = server.viewer.state.to_json(), server.viewer.config_state.raw_state
    with pytest.raises(WorldError):
        take_screenshot(server, tmp_path / "a.png", browser=fake_browser(tmp_path, "exit 1"))
    assert server.viewer.state.to_json() == state
    assert server.viewer.config_state.raw_state == config


def test_what_cannot_be_written_is_refused_before_a_browser_starts(server: ViewerServer, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="size"):
        take_screenshot(server, tmp_path / "a.png", size=(0, 100), browser=os.devnull)
    with pytest.raises(UserError, match="make it first"):
        take_screenshot(server, tmp_path / "no" / "a.png", browser=os.devnull)
