"""Embeddings for TensorBoard's projector, read back by TensorBoard itself."""

import json

import numpy as np
import pytest
from tensorboard.plugins import base_plugin
from tensorboard.plugins.projector import projector_plugin
from werkzeug import test as werkzeug_test
from werkzeug import wrappers

from tfavmae.report import projector


@pytest.fixture
def vectors():
    present = np.array([True, False, True])
    audio = np.arange(6.0, dtype="float32").reshape(3, 2) / 3
    audio[1] = np.nan
    return {
        "example_index": np.arange(3),
        "audio_present": present,
        "video_present": np.ones(3, bool),
        "audio_embedding": audio,
        "video_embedding": 10 + np.arange(6.0, dtype="float32").reshape(3, 2),
    }


def ask(logdir, path):
    """An answer of TensorBoard's projector plugin."""
    plugin = projector_plugin.ProjectorPlugin(
        base_plugin.TBContext(logdir=str(logdir), flags=None)
    )
    route, _, _ = path.partition("?")
    app = plugin.get_plugin_apps()[route]
    response = werkzeug_test.Client(app, wrappers.Response).get(path)
    assert response.status_code == 200, response.data
    return response.data


def test_tensorboard_finds_points_and_their_names(tmp_path, vectors):
    ids = ["a.mp4", "b\tc\n.mp4", "d.mp4"]
    folder = projector.write(tmp_path / "new", ids, vectors, ["x", "", "z"])
    assert json.loads(ask(folder, "/runs")) == ["."]
    (entry,) = json.loads(ask(folder, "/info?run=."))["embeddings"]
    assert entry["tensorName"] == "embeddings"
    assert entry["tensorShape"] == [5, 2]
    raw = ask(folder, "/tensor?run=.&name=embeddings&num_rows=100")
    points = np.frombuffer(raw, "float32").reshape(5, 2)
    expected = [vectors["audio_embedding"][[0, 2]], vectors["video_embedding"]]
    np.testing.assert_allclose(points, np.concatenate(expected), rtol=1e-5)
    metadata = ask(folder, "/metadata?run=.&name=embeddings&num_rows=100").decode()
    assert metadata.splitlines() == [
        "id\tmodality\tlabel",
        "a.mp4\taudio\tx",
        "d.mp4\taudio\tz",
        "a.mp4\tvideo\tx",
        "b c .mp4\tvideo\t",
        "d.mp4\tvideo\tz",
    ]


def test_one_modality_and_no_labels(tmp_path, vectors):
    del vectors["video_embedding"]
    folder = projector.write(tmp_path, ["caf\udce9", "b", "c"], vectors)
    lines = (folder / "metadata.tsv").read_text().splitlines()
    assert lines == ["id\tmodality", "caf\\udce9\taudio", "c\taudio"]
