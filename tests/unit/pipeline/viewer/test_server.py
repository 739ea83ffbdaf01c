from __future__ import annotations

import gzip
import http.client
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from pipeline.errors import UserError, VolumeNotFound
from pipeline.viewer.scene import Layer, Scene
from pipeline.viewer.server import ViewerServer, layer_keys, serve

VOXEL = (30.0, 8.0, 8.0)
CHUNK = bytes(range(256)) * 11
LARGE = bytes(range(251)) * 13_001  # more than three blocks, and no multiple of one


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("server")
    labels = folder / "labels"
    (labels / "8_8_30").mkdir(parents=True)
    (labels / "info").write_text(json.dumps({"type": "segmentation"}))
    (labels / "8_8_30" / "0-64_0-64_0-13.gz").write_bytes(gzip.compress(CHUNK))
    (labels / "8_8_30" / "0.shard").write_bytes(LARGE)
    (folder / "secret").write_text("secret")
    (labels / "link").symlink_to(folder / "secret")
    return folder


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[ViewerServer]:
    with serve(make_scene(folder)) as running:
        yield running


def make_scene(folder: Path) -> Scene:
    local = Layer("my labels/ä", "segmentation", str(folder / "labels"), "precomputed", VOXEL)
    remote = Layer("em", "image", "https://host/em.zarr/", "zarr", VOXEL)
    return Scene((local, remote), (13, 61, 83), VOXEL)


def ask(server: ViewerServer, path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
    """Send a path exactly as written, below the layer's root unless it begins with a slash."""
    if not path.startswith("/"):
        path = f"{urlsplit(server.data_url('my labels/ä')).path}/{path}"
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    try:
        connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        response = connection.getresponse()
        return response.status, dict(response.getheaders()), response.read()
    finally:
        connection.close()


def test_page_state_and_data_share_one_port(server: ViewerServer) -> None:
    page = urlsplit(server.url)
    assert (page.hostname, page.port) == ("127.0.0.1", server.port)
    status, _, body = ask(server, page.path)
    assert (status, b"<html" in body.lower()) == (200, True)
    sources = [layer.source[0].url for layer in server.viewer.state.layers]
    assert sources[0] == f"precomputed://{server.data_url('my labels/ä')}"
    assert urlsplit(server.data_url("my labels/ä")).port == server.port
    assert sources[1] == "zarr://https://host/em.zarr"


def test_a_whole_file(server: ViewerServer) -> None:
    status, headers, body = ask(server, "8_8_30/0.shard")
    assert (status, body) == (200, LARGE)
    assert headers["Access-Control-Allow-Origin"] == "*"
    assert headers["Accept-Ranges"] == "bytes"
    assert headers["X-Content-Type-Options"] == "nosniff"


def test_head_has_the_length_and_no_body(server: ViewerServer) -> None:
    status, headers, body = ask(server, "8_8_30/0.shard", "HEAD")
    assert (status, headers["Content-Length"], body) == (200, str(len(LARGE)), b"")
    assert "Etag" not in headers


@pytest.mark.parametrize(
    ("wanted", "start", "stop"),
    [("bytes=7-1100006", 7, 1_100_007), ("bytes=-16", len(LARGE) - 16, len(LARGE)), ("bytes=3-", 3, len(LARGE))],
)
def test_a_range(server: ViewerServer, wanted: str, start: int, stop: int) -> None:
    status, headers, body = ask(server, "8_8_30/0.shard", Range=wanted)
    assert (status, body) == (206, LARGE[start:stop])
    assert headers["Content-Range"] == f"bytes {start}-{stop - 1}/{len(LARGE)}"
    assert headers["Content-Length"] == str(stop - start)


def test_a_range_past_the_end(server: ViewerServer) -> None:
    status, headers, body = ask(server, "8_8_30/0.shard", Range=f"bytes={len(LARGE)}-")
    assert (status, headers["Content-Range"], body) == (416, f"bytes */{len(LARGE)}", b"")


def test_a_compressed_chunk_is_sent_as_stored(server: ViewerServer) -> None:
    status, headers, body = ask(server, "8_8_30/0-64_0-64_0-13", Accept_Encoding="gzip, br", Range="bytes=0-9")
    assert (status, headers["Content-Encoding"]) == (200, "gzip")
    assert gzip.decompress(body) == CHUNK


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_client_that_knows_no_gzip_gets_the_chunk_unpacked(server: ViewerServer, method: str) -> None:
    status, headers, body = ask(server, "8_8_30/0-64_0-64_0-13", method, Accept_Encoding="identity")
    assert (status, headers["Content-Length"]) == (200, str(len(CHUNK)))
    assert "Content-Encoding" not in headers
    assert body == (CHUNK if method == "GET" else b"")


def test_a_range_of_a_compressed_file_counts_unpacked_bytes(server: ViewerServer) -> None:
    status, headers, body = ask(server, "8_8_30/0-64_0-64_0-13", Accept_Encoding="identity", Range="bytes=-7")
    assert (status, body) == (206, CHUNK[-7:])
    assert headers["Content-Range"] == f"bytes {len(CHUNK) - 7}-{len(CHUNK) - 1}/{len(CHUNK)}"


def test_preflight(server: ViewerServer) -> None:
    status, headers, _ = ask(server, "info", "OPTIONS")
    assert (status, headers["Access-Control-Allow-Headers"]) == (204, "Range")


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_missing_chunk_is_404_and_may_be_read_by_other_origins(server: ViewerServer, method: str) -> None:
    status, headers, _ = ask(server, "8_8_30/64-83_0-61_0-13", method)
    assert (status, headers["Access-Control-Allow-Origin"]) == (404, "*")


@pytest.mark.parametrize(
    "path",
    [
        "../secret",
        "8_8_30/../../secret",
        "%2e%2e/secret",
        "%2e%2e%2fsecret",
        "..%2fsecret",
        "8_8_30%2f..%2f..%2fsecret",
        "%252e%252e%252fsecret",
        "..%5csecret",
        "/etc/passwd",
        "//etc/passwd",
        "%2fetc%2fpasswd",
        "info%00",
        "secret%00.gz",
        "link",
        "%c0%ae%c0%ae/secret",
        "",
        "8_8_30",
    ],
)
def test_nothing_outside_the_root_is_served(server: ViewerServer, path: str) -> None:
    status, _, body = ask(server, path)
    assert status in {400, 404}
    assert b"secret" not in body.replace(b"/secret", b"")


def test_absolute_paths_below_the_layer_are_not_served(server: ViewerServer, folder: Path) -> None:
    base = urlsplit(server.data_url("my labels/ä")).path
    for path in (f"{base}/{folder}/secret", f"{base}/%2f{folder}/secret", f"{base}//etc/passwd"):
        assert ask(server, path)[0] == 404


def test_other_tokens_and_layers_are_404(server: ViewerServer) -> None:
    token = server.viewer.token
    key = layer_keys(server.scene.layers)["my labels/ä"]
    assert ask(server, f"/data/{token}/{key}/info")[0] == 200
    wrong = [
        f"/data/{'0' * 40}/{key}/info",
        f"/data/{token}/1-em/info",
        f"/data/{token}/../info",
        "/",
        "/data/",
        "/v/0/",
    ]
    assert [ask(server, path)[0] for path in wrong] == [404] * len(wrong)
    assert ask(server, f"/data/%C3%A4/{key}/info")[0] == 404


def test_no_credentials_are_handed_out(server: ViewerServer) -> None:
    assert ask(server, f"/credentials/{server.viewer.token}", "POST")[0] == 403


def test_layer_keys_are_unique_and_plain() -> None:
    names = ("a b", "a_b", "../x", "ä")
    layers = tuple(Layer(name, "image", "/x", "zarr", VOXEL) for name in names)
    assert layer_keys(layers) == {"a b": "0-a_b", "a_b": "1-a_b", "../x": "2-_x", "ä": "3-_"}


def test_asking_for_a_layer_that_is_not_there(server: ViewerServer) -> None:
    with pytest.raises(UserError, match="truth"):
        server.data_url("truth")


def test_a_fixed_port_is_used_and_freed(folder: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    for _ in range(2):
        with serve(make_scene(folder), port=port) as running:
            assert running.port == port
            assert f":{port}/" in running.url
            assert not running.wait(timeout_s=0)
    assert running.wait(timeout_s=0)
    running.close()


def test_a_port_in_use_is_named_with_the_mend(server: ViewerServer, folder: Path) -> None:
    with pytest.raises(UserError, match=rf"port {server.port} on 127\.0\.0\.1 is in use.*another --port"):
        serve(make_scene(folder), port=server.port)


@pytest.mark.parametrize("port", [0, -1, 65536])
def test_numbers_that_are_no_ports_are_refused(folder: Path, port: int) -> None:
    with pytest.raises(UserError, match="not a port"):
        serve(make_scene(folder), port=port)


def test_an_address_of_another_machine_is_refused(folder: Path) -> None:
    with pytest.raises(UserError, match=r"192\.0\.2\.1 is not an address of this machine"):
        serve(make_scene(folder), bind="192.0.2.1")


def test_a_layer_that_is_not_there_frees_the_port(tmp_path: Path, folder: Path) -> None:
    missing = Scene((Layer("em", "image", str(tmp_path / "no"), "zarr", VOXEL),), (1, 1, 1), VOXEL)
    with pytest.raises(VolumeNotFound):
        serve(missing)
    empty = Scene((Layer("em", "image", str(tmp_path), "precomputed", VOXEL),), (1, 1, 1), VOXEL)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with pytest.raises(Exception, match="not precomputed"):
        serve(empty, port=port)
    with serve(make_scene(folder), port=port):
        pass


def test_meshes_skeletons_and_properties_are_served_and_nothing_beside_them(folder: Path) -> None:
    for name in ("mesh", "skeletons"):
        (folder / f"labels.{name}").mkdir(exist_ok=True)
        (folder / f"labels.{name}" / "info").write_text(name)
    layer = Layer(
        "seg",
        "segmentation",
        str(folder / "labels"),
        "precomputed",
        VOXEL,
        mesh_location=str(folder / "labels.mesh"),
        skeleton_location=str(folder / "labels.skeletons"),
        properties=b"{}",
    )
    with serve(Scene((layer,), (13, 61, 83), VOXEL)) as running:
        root = urlsplit(running.data_url("seg")).path
        assert ask(running, f"{root}-mesh/info")[2] == b"mesh"
        assert ask(running, f"{root}-skeletons/info")[2] == b"skeletons"
        assert ask(running, f"{root}-properties/info")[2] == b"{}"
        for path in ("../secret", "..%2fsecret", "%2e%2e/secret", "..%2flabels%2finfo"):
            assert ask(running, f"{root}-mesh/{path}")[0] in (400, 404)
            assert ask(running, f"{root}-skeletons/{path}")[0] in (400, 404)
            assert ask(running, f"{root}-properties/{path}")[0] in (400, 404)
