"""How soon does a person see something? From the command to pixels of the volume in a headless Chromium.

    python tests/bench/first_pixels.py OUTPUT [TIMES]

OUTPUT is that of a finished run. Each time (5 by default) `sam4em view` is started anew and a browser with an empty
cache opens the address that it prints. The page itself notes, frame by frame, when a fifth of its pixels first show
the volume, and when everything visible is drawn in full. WebGL is computed in software; a GPU is faster.
"""

from __future__ import annotations

import re
import shutil
import statistics
import subprocess
import sys
import time
from typing import Any

from measure import report
from playwright.sync_api import Browser, sync_playwright

from pipeline.viewer.screenshot import BROWSER_NAMES, RENDER_FLAGS, SYSTEM_FLAGS

TIMES = 5
SIZE = (1280, 800)
LONGEST_MS = 60_000
WATCH = """
const getContext = HTMLCanvasElement.prototype.getContext;
HTMLCanvasElement.prototype.getContext = function (kind, options) {
  return getContext.call(this, kind, {...options, preserveDrawingBuffer: true});
};
window.seen = {};
const small = new OffscreenCanvas(64, 64).getContext('2d', {willReadFrequently: true});
function look() {
  const canvas = document.querySelector('canvas');
  if (canvas && canvas.width) {
    small.drawImage(canvas, 0, 0, 64, 64);
    const data = small.getImageData(0, 0, 64, 64).data;
    let shown = 0;
    for (let at = 0; at < data.length; at += 4) shown += data[at] > 40 && data[at + 1] > 40 && data[at + 2] > 40;
    if (shown > 64 * 64 / 5 && !window.seen.first) window.seen.first = performance.now();
    if (window.seen.first && !window.seen.all && window.viewer.isReady()) window.seen.all = performance.now();
  }
  if (!window.seen.all) requestAnimationFrame(look);
}
requestAnimationFrame(look);
"""
"""Tissue is grey: brighter in all three colors than the page and than lines and ids of one color."""


def look_once(output: str, browser: Browser) -> dict[str, float]:
    """Start the viewer and open its page; seconds of each part."""
    start = time.perf_counter()
    command = [sys.executable, "-m", "pipeline.cli", "view", output]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            address = _address(process)
            served_s = time.perf_counter() - start
            page = browser.new_context(viewport={"width": SIZE[0], "height": SIZE[1]}).new_page()
            page.add_init_script(WATCH)
            page.goto(address, wait_until="commit")
            page.wait_for_function("window.seen.all", timeout=LONGEST_MS)
            seen: dict[str, float] = page.evaluate("window.seen")
            page.context.close()
        finally:
            process.terminate()
    return {
        "command_to_address_s": served_s,
        "page_to_first_pixels_s": seen["first"] / 1000,
        "page_to_all_drawn_s": seen["all"] / 1000,
    }


def _address(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    for line in process.stdout:
        found = re.search(r"http://\S+", line)
        if found:
            return found[0]
    raise RuntimeError(f"sam4em view ended with {process.wait()} and printed no address")


def main(output: str, times: int) -> None:
    """Look several times and report median and range."""
    program = next(path for name in BROWSER_NAMES if (path := shutil.which(name)))
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=[*RENDER_FLAGS, *SYSTEM_FLAGS])
        rows = [look_once(output, browser) for _ in range(times)]
        browser.close()
    result: dict[str, Any] = {"output": output, "times": times}
    for name in rows[0]:
        values = [row[name] for row in rows]
        result[name] = {"median": statistics.median(values), "min": min(values), "max": max(values)}
    report(result)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else TIMES)
