"""Reading over HTTP from a plain file server on this machine."""

import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import tifffile
from cloudvolume import CloudVolume

from pipeline.errors import StoreUnavailable, VolumeNotFound
from pipeline.geometry import Box
from pipeline.storage import ImageSpec, ImageWriter, ObjectStore, open_volume

SHAPE = (5, 7, 11)
WHOLE = Box.of_shape(SHAPE)
IMAGE = np.random.default_rng(0).integers(1, 255, SHAPE).astype(np.uint8)


class QuietHandler(SimpleHTTPRequestHandler):
    """Serves files; /broken answers 503."""

    def log_message(self, *_):
        """Say nothing."""

    def do_GET(self):
        """Serve."""
        if self.path.startswith("/broken"):
            self.send_error(503)
        else:
            super().do_GET()


@pytest.fixture
def served(tmp_path):
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=str(tmp_path)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield tmp_path, f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_zarr(served):
    folder, url = served
    writer = ImageWriter(ImageSpec(str(folder / "em.zarr"), SHAPE, "uint8", (4.0, 4.0, 4.0), (2, 3, 5)))
    writer.create()
    writer.write(WHOLE, IMAGE)
    for address in (f"{url}/em.zarr", f"{url}/em.zarr/0"):
        volume = open_volume(address)
        assert volume.require_voxel_size() == (4.0, 4.0, 4.0)
        np.testing.assert_array_equal(volume.read(WHOLE), IMAGE)


def test_precomputed(served):
    folder, url = served
    info = CloudVolume.create_new_info(
        1, "image", "uint8", "raw", (4, 4, 40), (3, 2, 1), SHAPE[::-1], chunk_size=(6, 4, 2)
    )
    cloud = CloudVolume(f"file://{folder}/v", info=info, progress=False, compress=False)
    cloud.commit_info()
    cloud[:, :, :] = IMAGE.T[..., None]
    np.testing.assert_array_equal(open_volume(f"{url}/v").read(WHOLE), IMAGE)


def test_tiff(served):
    folder, url = served
    tifffile.imwrite(folder / "a.tif", IMAGE, photometric="minisblack")
    np.testing.assert_array_equal(open_volume(f"{url}/a.tif").read(WHOLE), IMAGE)


def test_nothing_there_and_a_server_that_fails(served):
    _, url = served
    with pytest.raises(VolumeNotFound, match="nothing"):
        open_volume(f"{url}/nothing")
    with pytest.raises(StoreUnavailable, match="did not answer"):
        ObjectStore(f"{url}/broken").get("a")
