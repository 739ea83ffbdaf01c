"""The web handler that sends the bytes of registered volumes: GET, HEAD, Range, CORS, stored compression."""

from __future__ import annotations

import asyncio
import gzip
import hmac
import logging
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from pathlib import Path
from typing import TypeVar

import tornado.iostream
import tornado.web

from pipeline.viewer.files import RangeNotSatisfiable, ServedFile, find_file, parse_range

log = logging.getLogger(__name__)

DATA_ROUTE = r"^/data/(?P<token>[^/]+)/(?P<layer>[^/]+)/(?P<path>.+)$"
BLOCK_BYTES = 1 << 20
Result = TypeVar("Result")


class DataHandler(tornado.web.RequestHandler):
    """Serves `/data/<token>/<layer>/<path>` from the root registered for `layer`."""

    def initialize(self, token: str, roots: Mapping[str, Path], executor: Executor) -> None:
        """Take what may be served.

        Args:
            token: secret of this server; any other is answered with 404.
            roots: layer -> absolute folder, free of links.
            executor: threads for the file system, so that a slow disk does not stop the page.
        """
        self._token = token
        self._roots = roots
        self._executor = executor

    def set_default_headers(self) -> None:
        """Let pages of other origins read data, and let no browser run it as a page of this origin."""
        self.set_header("Access-Control-Allow-Origin", "*")
        self.set_header("Access-Control-Allow-Methods", "GET, HEAD, OPTIONS")
        self.set_header("Access-Control-Allow-Headers", "Range")
        self.set_header("Access-Control-Expose-Headers", "Content-Range, Content-Length, Content-Encoding")
        self.set_header("Accept-Ranges", "bytes")
        # A chunk that is missing now may be written a moment later by a run that is still going on.
        self.set_header("Cache-Control", "no-store")
        self.set_header("Content-Type", "application/octet-stream")
        self.set_header("X-Content-Type-Options", "nosniff")

    def compute_etag(self) -> str | None:
        """No entity tags: tornado would hash the body, and a HEAD has none."""
        return None

    def on_finish(self) -> None:
        """Leave a trace of what was asked for; the path holds the token, so only its tail is written."""
        log.debug("%s %s: %d", self.request.method, "/".join(self.request.path.split("/")[3:]), self.get_status())

    def options(self, token: str, layer: str, path: str) -> None:
        """Answer the preflight request that a browser sends before a Range request across origins."""
        self.set_status(204)

    async def head(self, token: str, layer: str, path: str) -> None:
        """Send the headers of a GET without its body."""
        await self._answer(token, layer, path, with_body=False)

    async def get(self, token: str, layer: str, path: str) -> None:
        """Send a file, or one range of it."""
        await self._answer(token, layer, path, with_body=True)

    async def _answer(self, token: str, layer: str, path: str, with_body: bool) -> None:
        root = self._roots.get(layer) if hmac.compare_digest(token.encode(), self._token.encode()) else None
        found = await self._in_thread(find_file, root, path) if root is not None else None
        if found is None:
            self.set_status(404)
            return
        # Browsers ask for ranges with `Accept-Encoding: identity`: a range counts unpacked bytes.
        unpacked = None
        if found.encoding == "gzip" and "gzip" not in self.request.headers.get("Accept-Encoding", ""):
            unpacked = await self._in_thread(unpack, found.path)
            found = ServedFile(found.path, len(unpacked), None)
        try:
            wanted = parse_range(self.request.headers.get("Range"), found.size_bytes) if not found.encoding else None
        except RangeNotSatisfiable:
            self.set_status(416)
            self.set_header("Content-Range", f"bytes */{found.size_bytes}")
            return
        self._describe(found, wanted)
        start, stop = wanted or (0, found.size_bytes)
        if with_body and unpacked is not None:
            self.write(unpacked[start:stop])
        elif with_body:
            await self._stream(found.path, start, stop)

    def _describe(self, found: ServedFile, wanted: tuple[int, int] | None) -> None:
        """Set status and headers of an answer with a body."""
        start, stop = wanted or (0, found.size_bytes)
        if wanted is not None:
            self.set_status(206)
            self.set_header("Content-Range", f"bytes {start}-{stop - 1}/{found.size_bytes}")
        if found.encoding is not None:
            self.set_header("Content-Encoding", found.encoding)
        self.set_header("Vary", "Accept-Encoding")
        self.set_header("Content-Length", str(stop - start))

    async def _stream(self, path: Path, start: int, stop: int) -> None:
        """Send a file piece by piece, so that a large shard is never in memory."""
        while start < stop:
            block = await self._in_thread(read_block, path, start, min(BLOCK_BYTES, stop - start))
            if not block:  # the file shrank: the client sees a short body and fails, as it must
                return
            self.write(block)
            start += len(block)
            try:
                await self.flush()
            except tornado.iostream.StreamClosedError:
                return

    async def _in_thread(self, function: Callable[..., Result], *args: object) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._executor, function, *args)


class FaviconHandler(tornado.web.RequestHandler):
    """Answers the request for an icon that every browser sends, so that none shows up as failed."""

    def get(self) -> None:
        """Send nothing."""
        self.set_status(204)


def read_block(path: Path, start: int, num_bytes: int) -> bytes:
    """Read up to `num_bytes` bytes of a file from byte `start` on."""
    with path.open("rb") as file:
        file.seek(start)
        return file.read(num_bytes)


def unpack(path: Path) -> bytes:
    """Read a gzip file whole and unpack it."""
    return gzip.decompress(path.read_bytes())
