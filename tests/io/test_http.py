"""A data set behind http://, read through tensorflow-io from a server on loopback."""

import functools
import http.server
import re
import threading

import clock_clips
import numpy as np
import pytest

from tfavmae.data.pipeline import open_split

pytestmark = pytest.mark.io


class RangeHandler(http.server.SimpleHTTPRequestHandler):
    """Files and parts of them, as any web server gives them out."""

    def log_message(self, *_):
        pass

    def do_GET(self):
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if not wanted:
            return super().do_GET()
        try:
            with open(self.translate_path(self.path), "rb") as file:
                content = file.read()
        except OSError:
            return self.send_error(404)
        first, last = int(wanted[1]), int(wanted[2] or len(content) - 1)
        if first >= len(content):
            return self.send_error(416)
        part = content[first : last + 1]
        self.send_response(206)
        end = first + len(part) - 1
        self.send_header("Content-Range", f"bytes {first}-{end}/{len(content)}")
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        self.wfile.write(part)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return clock_clips.build(tmp_path_factory.mktemp("built"))


@pytest.fixture(scope="module")
def url(built):
    handler = functools.partial(RangeHandler, directory=str(built.parent))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/{built.name}"
        server.shutdown()


def test_batches_are_those_of_the_local_data_set(built, url):
    near, far = open_split(str(built), "train"), open_split(url, "train")
    assert far.num_examples == near.num_examples == clock_clips.NUM_TRAIN
    assert far.ids() == near.ids()
    assert far.label_names("label") == near.label_names("label")
    assert all(path.startswith("http://") for path in far.index.files)
    options = dict(seed=3, num_steps=8)
    batches = (
        clock_clips.batches(split.training_batches(clock_clips.SPEC, 5, **options))
        for split in (far, near)
    )
    clock_clips.assert_same(*batches)


def test_evaluation_takes_every_clip_once(url):
    split = open_split(url, "train")
    found = clock_clips.batches(split.evaluation_batches(clock_clips.SPEC, 10))
    rows = clock_clips.column(found, "example_index")
    np.testing.assert_array_equal(
        rows[: split.num_examples], np.arange(len(split.ids()))
    )
