"""`report.html`: written by every run, again by `sam4em report`, and looked at in a real browser."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

from pipeline.stages import relabel
from pipeline.viewer.screenshot import BROWSER_NAMES

BROWSER = next((path for name in BROWSER_NAMES if (path := shutil.which(name))), None)


@pytest.fixture
def run(command, write_volume, in_this_process):
    image = np.zeros((24, 60, 80), np.uint8)
    image[4:20, 8:24, 10:30] = image[10:20, 40:50, 50:75] = 200
    write_volume("em.zarr", image)
    values = {
        "image": {"url": "em.zarr"},
        "outputs": [{"url": "seg.zarr", "chunk_zyx": [8, 32, 32]}],
        "segmenter": {"kind": "threshold", "foreground": "bright"},
        "plan": {"block_zyx": [8, 32, 32]},
    }
    Path("run.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    return lambda: command("run", "run.yaml")


def test_a_run_leaves_a_report_with_everything_in_it(run, tmp_path):
    assert run().code == 0
    page = (tmp_path / "seg.zarr.run" / "report.html").read_text(encoding="utf-8")
    assert page.count("data:image/jpeg") == 6
    manifest = json.loads((tmp_path / "seg.zarr.run" / "manifest.json").read_text())
    for text in (
        "complete",
        "objects: object",
        manifest["digest"],
        "relabel",
        "threshold",
        "block_zyx",
        "version of numpy",
    ):
        assert text in page


def test_scores_are_added_and_stay(run, command, tmp_path):
    assert run().code == 0
    done = command("report", "seg.zarr", "--truth", "seg.zarr")
    assert done.code == 0
    report = Path(done.out.strip())
    assert "ap75" in report.read_text(encoding="utf-8")
    assert command("report", "run.yaml").code == 0
    assert "ap75" in report.read_text(encoding="utf-8")


def test_a_run_that_failed_reports_why(run, monkeypatch, tmp_path):
    def refuse(*arguments):
        raise MemoryError

    monkeypatch.setattr(relabel, "_look_up", refuse)
    assert run().code == 5
    page = (tmp_path / "seg.zarr.run" / "report.html").read_text(encoding="utf-8")
    assert "not complete" in page
    assert "Failures" in page
    assert "MemoryError" in page


def test_what_is_gone_is_left_out_with_a_word(run, command, tmp_path):
    assert run().code == 0
    shutil.rmtree(tmp_path / "em.zarr")
    (tmp_path / "seg.zarr.run" / "timeline.json").unlink()
    assert command("report", "seg.zarr").code == 0
    page = (tmp_path / "seg.zarr.run" / "report.html").read_text(encoding="utf-8")
    assert "Not shown: em.zarr does not exist" in page


def test_bad_input(command):
    assert command("report", "nothing").code == 3
    assert "--roi belongs to --truth" in command("report", "nothing", "--roi", "0:1,0:1,0:1").err


@pytest.mark.browser
@pytest.mark.skipif(BROWSER is None, reason="no Chromium on PATH (apt-get install chromium)")
@pytest.mark.parametrize(("width", "scheme"), [(1200, "light"), (390, "dark")])
def test_in_a_browser_it_fits_the_screen_and_asks_for_nothing(run, command, tmp_path, width, scheme):
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    assert run().code == 0
    requests, errors = [], []
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        page = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme).new_page()
        page.on("request", lambda request: requests.append(request.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.goto(f"file://{tmp_path}/seg.zarr.run/report.html")
        scroll_width = page.evaluate("document.documentElement.scrollWidth")
        loaded = page.evaluate("[...document.images].map(image => image.naturalWidth)")
        colors = page.evaluate("getComputedStyle(document.body).backgroundColor")
        browser.close()
    assert scroll_width <= width
    assert len(loaded) == 6
    assert min(loaded) > 0
    assert colors == ("rgb(255, 255, 255)" if scheme == "light" else "rgb(20, 23, 26)")
    assert errors == []
    assert [url for url in requests if not url.startswith(("file://", "data:"))] == []
