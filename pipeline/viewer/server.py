"""One server on one port: Neuroglancer's page, its state, and the bytes of the local volumes.

The page's state holds absolute addresses, so a tunnel must use the same port number on both sides:
`ssh -L PORT:127.0.0.1:PORT host`.

Everything is under a random token: `/v/<token>/` is the page, `/data/<token>/<layer>/...` the volumes. The token
is the only key, also when the server is bound to a public address.
"""

from __future__ import annotations

import asyncio
import errno
import re
import secrets
import socket
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

import neuroglancer.server
import neuroglancer.viewer_base

from pipeline.errors import Sam4emError, UserError, VolumeNotFound, WorldError
from pipeline.viewer.handler import DATA_ROUTE, DataHandler, FaviconHandler
from pipeline.viewer.scene import Layer, Scene, path_of
from pipeline.viewer.state import Layout, build_state, properties_key, shape_key

ANY_ADDRESS = frozenset({"0.0.0.0", "::"})  # noqa: S104, only compared with what the user typed


class _Server(neuroglancer.server.Server):
    """Neuroglancer's tornado server with the data route added, in a thread of its own."""

    def __init__(self, bind: str, port: int, token: str, roots: Mapping[str, Path]) -> None:
        self._roots = roots
        super().__init__(bind_address=bind, bind_port=port, token=token)

    def _attempt_to_start_server(self) -> None:
        super()._attempt_to_start_server()
        options = {"token": self.token, "roots": self._roots, "executor": self.executor}
        self.app.add_handlers(r".*", [(DATA_ROUTE, DataHandler, options), (r"^/favicon\.ico$", FaviconHandler)])

    async def _stop(self) -> None:
        self.http_server.stop()
        await self.http_server.close_all_connections()
        # The event streams of open pages wait for ever; a loop must not be closed over pending tasks.
        pending = asyncio.all_tasks(self.loop) - {asyncio.current_task()}
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
        self.loop.stop()


class ViewerServer:
    """A running viewer. `close()` it, or use it as a context manager."""

    def __init__(self, scene: Scene, *, port: int, bind: str, layout: Layout) -> None:
        keys = layer_keys(scene.layers)
        roots = {keys[layer.name]: root for layer in scene.layers if (root := _local_root(layer)) is not None}
        self._properties = tempfile.TemporaryDirectory(prefix="sam4em-view-", ignore_cleanup_errors=True)
        side_urls, side_roots = _side_roots(scene.layers, keys, Path(self._properties.name).resolve())
        roots.update(side_roots)
        self.scene = scene
        self.layout: Layout = layout
        self.viewer = neuroglancer.viewer_base.ViewerBase(token=secrets.token_hex(20), allow_credentials=False)
        self._closed = threading.Event()
        try:
            self._server = _start(bind, port, self.viewer.token, roots)
        except Sam4emError:
            self._properties.cleanup()
            raise
        self._host = _host_in_url(bind)
        try:
            urls = {layer.name: self._url_of(layer, keys[layer.name]) for layer in scene.layers}
            urls |= {name: url or self._data_url(name_of_root) for name, (name_of_root, url) in side_urls.items()}
            self.viewer.set_state(build_state(scene, urls, layout=layout))
        except Sam4emError:
            self.close()
            raise
        self._server.viewers[self.viewer.token] = self.viewer

    @property
    def port(self) -> int:
        """The port that everything is served on."""
        return int(self._server.port)

    @property
    def url(self) -> str:
        """Address of the page, with its token."""
        return f"http://{self._host}:{self.port}/v/{self.viewer.token}/"

    def data_url(self, layer: str) -> str:
        """Address of a layer's root as the browser sees it.

        Raises:
            UserError: the scene has no such layer.
        """
        keys = layer_keys(self.scene.layers)
        for candidate in self.scene.layers:
            if candidate.name == layer:
                return self._url_of(candidate, keys[layer])
        raise UserError(f"asking for layer {layer!r}: the scene has {sorted(keys)}")

    def _url_of(self, layer: Layer, key: str) -> str:
        if layer.local_path is None:
            return layer.location.rstrip("/")
        return self._data_url(key)

    def _data_url(self, key: str) -> str:
        return f"http://{self._host}:{self.port}/data/{self.viewer.token}/{key}"

    def wait(self, timeout_s: float | None = None) -> bool:
        """Block until the server is closed, and say whether it is. Ctrl-C raises KeyboardInterrupt as usual."""
        return self._closed.wait(timeout_s)

    def close(self) -> None:
        """Stop serving and free the port. May be called twice."""
        if self._closed.is_set():
            return
        self._server.stop()
        self._server.executor.shutdown(wait=True, cancel_futures=True)
        self._properties.cleanup()
        self._closed.set()

    def __enter__(self) -> ViewerServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def serve(scene: Scene, port: int | None = None, bind: str = "127.0.0.1", *, layout: Layout = "4panel") -> ViewerServer:
    """Serve a scene: page, state and data on one port.

    Args:
        scene: what to show.
        port: the one port that is used; None takes any free one.
        bind: address to listen on. Any other than the default lets other machines in that know the token.
        layout: panels at the start.

    Returns:
        The running server; its threads end with `close()`.

    Raises:
        UserError: the port is taken, not allowed or not a port number, or the address is not this machine's.
        VolumeNotFound, VolumeFormatError, CorruptData: a local layer is not there or not what it is said to be.
    """
    if port is not None and not 0 < port < 65536:
        raise UserError(f"starting the viewer: {port} is not a port; give --port a number from 1024 to 65535")
    return ViewerServer(scene, port=port or 0, bind=bind, layout=layout)


def layer_keys(layers: tuple[Layer, ...]) -> dict[str, str]:
    """Give each layer a path part for its URL, unique and made of letters, digits, `-` and `_`."""
    return {layer.name: f"{index}-{re.sub(r'[^A-Za-z0-9_-]+', '_', layer.name)}" for index, layer in enumerate(layers)}


def _side_roots(
    layers: tuple[Layer, ...], keys: Mapping[str, str], folder: Path
) -> tuple[dict[str, tuple[str, str | None]], dict[str, Path]]:
    """Find what is served beside the volumes: meshes, skeletons, and properties, which are written into `folder`.

    Returns:
        Name of a source -> name of its root, or None and its own URL; and the roots.
    """
    urls: dict[str, tuple[str, str | None]] = {}
    roots: dict[str, Path] = {}
    for layer in layers:
        key = keys[layer.name]
        for shape, location in layer.shape_locations.items():
            path, root_name = path_of(location), f"{key}-{shape}"
            urls[shape_key(layer.name, shape)] = (root_name, None if path is not None else location)
            if path is not None and path.is_dir():
                roots[root_name] = path.resolve()
        if layer.properties is not None:
            root = folder / key
            root.mkdir()
            (root / "info").write_bytes(layer.properties)
            urls[properties_key(layer.name)] = (f"{key}-properties", None)
            roots[f"{key}-properties"] = root
    return urls, roots


def _local_root(layer: Layer) -> Path | None:
    if layer.local_path is None:
        return None
    try:
        return layer.local_path.resolve(strict=True)
    except OSError as error:
        raise VolumeNotFound(f"showing layer {layer.name!r}: there is no folder {layer.local_path}") from error


def _start(bind: str, port: int, token: str, roots: Mapping[str, Path]) -> _Server:
    try:
        _probe(bind, port)
        return _Server(bind, port, token, roots)
    except socket.gaierror as error:
        raise UserError(
            f"starting the viewer: the address {bind!r} is not known ({error.strerror}); use 127.0.0.1"
        ) from error
    except OSError as error:
        raise _bind_error(error, bind, port) from error


def _probe(bind: str, port: int) -> None:
    """Bind and let go at once: tornado leaves a socket open when it cannot bind."""
    family, kind, protocol, _, address = socket.getaddrinfo(bind, port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(address)
        # Two sockets with that option may share an address until one of them listens.
        probe.listen()


def _bind_error(error: OSError, bind: str, port: int) -> Sam4emError:
    if error.errno == errno.EADDRINUSE:
        return UserError(
            f"starting the viewer: port {port} on {bind} is in use by another program; "
            "give another --port, or leave --port out to take any free one"
        )
    if error.errno == errno.EACCES:
        return UserError(f"starting the viewer: port {port} is not allowed for this user; give --port 1024 or higher")
    if error.errno == errno.EADDRNOTAVAIL:
        return UserError(f"starting the viewer: {bind} is not an address of this machine; use 127.0.0.1")
    return WorldError(f"starting the viewer on {bind}, port {port}: {error}")


def _host_in_url(bind: str) -> str:
    host = socket.getfqdn() if bind in ANY_ADDRESS else bind
    return f"[{host}]" if ":" in host else host
