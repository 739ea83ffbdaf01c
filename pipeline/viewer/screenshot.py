"""A picture of a running viewer, taken by a headless Chromium of this machine."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.errors import UserError, WorldError
from pipeline.viewer.server import ViewerServer
from pipeline.viewer.state import scales_of

BROWSER_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
# WebGL2 in software, so that no GPU and no display is needed.
RENDER_FLAGS = ("--headless=new", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist")
# The browser opens our own page only, inside containers and as root too, where its sandbox cannot start.
SYSTEM_FLAGS = ("--no-sandbox", "--disable-dev-shm-usage", "--disable-breakpad", "--disable-crash-reporter")
# Nothing is fetched but the page.
QUIET_FLAGS = (
    "--disable-background-networking",
    "--disable-client-side-phishing-detection",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-domain-reliability",
    "--disable-extensions",
    "--disable-sync",
    "--metrics-recording-only",
    "--mute-audio",
    "--no-default-browser-check",
    "--no-first-run",
    "--no-pings",
    "--no-service-autorun",
    "--password-store=basic",
)
# A page that is still being laid out answers with another size than asked for; it settles within a few tries.
SIZE_TRIES = 5
POLL_S = 0.2
STDERR_TAIL_CHARACTERS = 800


def take_screenshot(
    viewer_server: ViewerServer,
    png_path: Path | str,
    size: tuple[int, int] = (1600, 1200),
    browser: Path | str | None = None,
    timeout_s: float = 180.0,
) -> Path:
    """Open the viewer's page in a headless browser, wait until all data are drawn, and write a PNG.

    Args:
        viewer_server: a running server.
        png_path: file to write, in a folder that exists.
        size: width and height in pixels.
        browser: program to use; None searches PATH for Chromium or Chrome.
        timeout_s: seconds until the picture must be there, start of the browser included.

    Returns:
        The path written.

    Raises:
        UserError: no browser, a size that is not positive, or the folder does not exist.
        WorldError: the browser ended by itself, or the picture was not ready in time.
    """
    png_path = Path(png_path)
    if min(size) < 1:
        raise UserError(f"taking a screenshot: the size is {size}; give width and height in pixels, each at least 1")
    if not png_path.parent.is_dir():
        raise UserError(f"taking a screenshot: the folder {png_path.parent} does not exist; make it first")
    program = find_browser(browser)
    with (
        _prepared(viewer_server, size),
        _running_browser(program, viewer_server.url, size) as (process, stderr_path),
    ):
        png = _capture(viewer_server.viewer, size, process, stderr_path, timeout_s)
    try:
        png_path.write_bytes(png)
    except OSError as error:
        raise WorldError(f"writing the screenshot {png_path}: {error}") from error
    return png_path


def find_browser(browser: Path | str | None = None) -> str:
    """Find a Chromium: the program given, else the first known name on PATH.

    Raises:
        UserError: there is none.
    """
    names = BROWSER_NAMES if browser is None else (str(browser),)
    for name in names:
        found = shutil.which(name)
        if found is not None:
            return found
    raise UserError(
        f"taking a screenshot: found no browser ({', '.join(names)}) on PATH; install one, "
        "for example `apt-get install chromium`, or open the printed address in a browser of your own"
    )


@contextlib.contextmanager
def _running_browser(program: str, url: str, size: tuple[int, int]) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """Run a browser on `url` with a profile of its own; it and its children are gone afterwards in every case."""
    with tempfile.TemporaryDirectory(prefix="sam4em-browser-", ignore_cleanup_errors=True) as folder:
        stderr_path = Path(folder) / "stderr.txt"
        flags = (*RENDER_FLAGS, *SYSTEM_FLAGS, *QUIET_FLAGS)
        command = [program, *flags, f"--user-data-dir={folder}/profile", f"--window-size={size[0]},{size[1]}", url]
        environment = {**os.environ, "XDG_CONFIG_HOME": folder, "XDG_CACHE_HOME": folder}
        with stderr_path.open("wb") as stderr:
            process = subprocess.Popen(  # noqa: S603, no shell, and the program was found on PATH or given by the user
                command, stdin=subprocess.DEVNULL, stdout=stderr, stderr=stderr, env=environment, start_new_session=True
            )
        try:
            yield process, stderr_path
        finally:
            # A session of its own, so one signal reaches the renderer and GPU processes too.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@contextlib.contextmanager
def _prepared(viewer_server: ViewerServer, size: tuple[int, int]) -> Iterator[None]:
    """Make the page as large as the picture, without controls, and the scene as large as the page; then undo it."""
    viewer = viewer_server.viewer
    state, config = viewer.state, viewer.config_state.state
    with viewer.txn() as changed:
        scales = scales_of(viewer_server.scene, viewer_server.layout, size)
        changed.cross_section_scale, changed.projection_scale = scales
    with viewer.config_state.txn() as changed:
        changed.show_ui_controls = False
        changed.show_panel_borders = False
        changed.viewer_size = size
    try:
        yield
    finally:
        viewer.config_state.set_state(config)
        viewer.set_state(state)


def _capture(
    viewer: Any, size: tuple[int, int], process: subprocess.Popen[bytes], stderr_path: Path, timeout_s: float
) -> bytes:
    """Ask the page for a picture until it comes in the right size; the page answers once everything is drawn."""
    deadline = time.monotonic() + timeout_s
    for _ in range(SIZE_TRIES):
        reply = _Reply()
        viewer.async_screenshot(reply.take, statistics_callback=reply.note)
        while not reply.arrived.wait(POLL_S):
            _check_alive(process, stderr_path)
            if time.monotonic() > deadline:
                raise WorldError(
                    f"taking a screenshot: the page was not drawn in {timeout_s:g} s ({reply.progress}); look at it in "
                    "a browser of your own for layers or chunks that do not load, or give it more time"
                )
        if (reply.shot.width, reply.shot.height) == size:
            return bytes(reply.shot.image)
    raise WorldError(
        f"taking a screenshot: the page is drawn in {reply.shot.width} x {reply.shot.height}, not in {size}"
    )


class _Reply:
    """The page's answer, handed over from the server's thread."""

    def __init__(self) -> None:
        self.arrived = threading.Event()
        self.shot: Any = None
        self.progress = "it never answered"

    def note(self, statistics: Any) -> None:
        """Keep how far the page has come; it tells about every second."""
        total = statistics.total
        self.progress = f"{total.visible_chunks_gpu_memory} of {total.visible_chunks_total} chunks were there"

    def take(self, action: Any) -> None:
        """Keep the picture and wake up who waits for it."""
        self.shot = action.screenshot
        self.arrived.set()


def _check_alive(process: subprocess.Popen[bytes], stderr_path: Path) -> None:
    if process.poll() is not None:
        tail = stderr_path.read_text(errors="replace")[-STDERR_TAIL_CHARACTERS:]
        raise WorldError(
            f"taking a screenshot: the browser ended with code {process.returncode} before the page was drawn; "
            f"its last words: {tail.strip() or '(none)'}"
        )
