"""The REST client against a stub that speaks TF Serving's protocol.

TF Serving itself is not run here.
"""

import http.server
import json
import threading

import numpy as np
import pytest
import tensorflow as tf

from tfavmae.serving import client
from tfavmae.serving.client import RestClient, SavedModelClient


def tensor_info(dtype, *sizes):
    """A `TensorInfo` as TF Serving's metadata has it in JSON."""
    axes = [{"size": str(size), "name": ""} for size in sizes]
    return {
        "dtype": dtype,
        "tensor_shape": {"dim": axes, "unknown_rank": False},
        "name": "serving_default_x:0",
    }


AUDIO = tensor_info("DT_FLOAT", -1, -1)
VIDEO = tensor_info("DT_UINT8", -1, 1, 4, 4, 3)
SIGNATURES = {
    "serving_default": {
        "inputs": {"audio": AUDIO, "video": VIDEO},
        "outputs": {"logits": {}, "probabilities": {}},
    },
    "embed_audio": {"inputs": {"audio": AUDIO}, "outputs": {"audio_embedding": {}}},
}


class TFServingStub(http.server.BaseHTTPRequestHandler):
    """Answers as the RESTful API of TensorFlow Serving is documented to."""

    def do_GET(self):
        if self.path == "/v1/models/tiny/metadata":
            signatures = {"signature_def": SIGNATURES}
            self.reply(200, {"metadata": {"signature_def": signatures}})
        elif self.path == "/v1/models/tiny":
            self.reply(200, {"model_version_status": [{"state": "AVAILABLE"}]})
        else:
            self.reply(404, {"error": "Servable not found"})

    def do_POST(self):
        size = int(self.headers["Content-Length"])
        request = json.loads(self.rfile.read(size))
        if self.path != "/v1/models/tiny:predict":
            return self.reply(404, {"error": "Servable not found"})
        signature = request["signature_name"]
        wave = np.array(request["inputs"]["audio"])
        if not len(wave):
            return self.reply(400, {"error": "the batch is empty"})
        if signature == "embed_audio":
            # One output: a bare tensor, without its name.
            return self.reply(200, {"outputs": wave[:, :2].tolist()})
        video = np.array(request["inputs"]["video"]).mean((1, 2, 3, 4))
        outputs = {"logits": [[v] for v in video], "probabilities": [[1.0]] * len(wave)}
        return self.reply(200, {"outputs": outputs})

    def reply(self, status, body):
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def url():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), TFServingStub)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    thread.join()
    server.server_close()


def test_rest_predict_sends_columns_and_returns_named_arrays(url):
    video = np.arange(96).reshape(2, 1, 4, 4, 3).astype("uint8")
    wave = np.zeros((2, 5), "float32")
    answers = RestClient("tiny", url).predict(audio=wave, video=video)
    np.testing.assert_allclose(answers["logits"][:, 0], [23.5, 71.5])
    assert answers["probabilities"].shape == (2, 1)


def test_rest_gives_a_single_output_its_name_back(url):
    wave = np.array([[0.25, -0.5, 1.0]])
    answers = RestClient("tiny", url).predict("embed_audio", audio=wave)
    assert list(answers) == ["audio_embedding"]
    np.testing.assert_array_equal(answers["audio_embedding"], [[0.25, -0.5]])


def test_rest_status(url):
    status = RestClient("tiny", url).status()
    assert status["model_version_status"][0]["state"] == "AVAILABLE"


def test_rest_errors_quote_the_server(url):
    with pytest.raises(RuntimeError, match=r"answered 404: .*Servable not found"):
        RestClient("other", url).status()
    with pytest.raises(RuntimeError, match=r"answered 400: .*the batch is empty"):
        RestClient("tiny", url).predict("embed_audio", audio=np.zeros((0, 2)))


def test_rest_names_what_the_model_does_not_take(url):
    asked = RestClient("tiny", url)
    with pytest.raises(ValueError, match=r"has no signature 'classify'; it has \["):
        asked.predict("classify", audio=np.zeros((1, 5)))
    with pytest.raises(ValueError, match=r"takes the inputs \['audio'\]; received"):
        asked.predict("embed_audio", video=np.zeros((1, 5)))
    # JSON would not tell the server that these are not in [-1, 1].
    with pytest.raises(ValueError, match=r"`audio` must be float32 .*received int16"):
        asked.predict("embed_audio", audio=np.zeros((1, 5), "int16"))
    with pytest.raises(ValueError, match=r"shape \(None, 1, 4, 4, 3\); received"):
        asked.predict(audio=np.zeros((1, 5)), video=np.zeros((1, 2, 4, 4, 3), "uint8"))


def test_no_server_is_said():
    with pytest.raises(RuntimeError, match="is the server running"):
        RestClient("tiny", "http://127.0.0.1:9").status()


@pytest.fixture(scope="module")
def saved_model(tmp_path_factory):
    class Doubler(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec((None, 3), name="audio")])
        def embed_audio(self, audio):
            return {"audio_embedding": 2 * audio}

    path = tmp_path_factory.mktemp("export") / "doubler"
    module = Doubler()
    for version in ("2", "10"):
        tf.saved_model.save(
            module, str(path / version), {"embed_audio": module.embed_audio}
        )
    return path


def test_saved_model_client_takes_the_newest_version(saved_model):
    asked = SavedModelClient(saved_model)
    assert asked.path.name == "10"
    answers = asked.predict("embed_audio", audio=[[1.0, 2.0, 3.0]])
    np.testing.assert_array_equal(answers["audio_embedding"], [[2, 4, 6]])
    assert asked.labels == []


def test_saved_model_client_names_what_there_is(saved_model):
    asked = SavedModelClient(saved_model / "2")
    with pytest.raises(ValueError, match="no signature 'classify'; it has"):
        asked.predict("classify", audio=[[1.0, 2.0, 3.0]])
    with pytest.raises(ValueError, match=r"takes the inputs \['audio'\]"):
        asked.predict("embed_audio", waveform=[[1.0, 2.0, 3.0]])
    with pytest.raises(ValueError, match=r"shape \(None, 3\); received \(1, 2\)"):
        asked.predict("embed_audio", audio=[[1.0, 2.0]])


WANTED = {
    "audio": ("float32", (None, 3)),
    "video": ("uint8", (None, 2, 4, 6, 3)),
}
GIVEN = {"audio": np.zeros((1, 3), "float32"), "video": np.zeros((1, 2, 4, 6, 3), "u1")}


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_floating_point_numbers_are_converted(dtype):
    audio = np.array([[0.5, -1, 0.25]], dtype)
    arrays = client.check_inputs("classify", {**GIVEN, "audio": audio}, WANTED)
    assert arrays["audio"].dtype == np.float32 and arrays["video"].dtype == np.uint8
    np.testing.assert_array_equal(arrays["audio"], [[0.5, -1, 0.25]])


@pytest.mark.parametrize(
    "name, dtype",
    [
        *(("audio", d) for d in ("int16", "int64", "uint8", "bool", "complex64")),
        *(("video", d) for d in ("int8", "int64", "uint16", "float32", "float64")),
    ],
)
def test_another_dtype_is_an_error_that_names_all_three(name, dtype):
    inputs = {**GIVEN, name: GIVEN[name].astype(dtype)}
    wanted = WANTED[name][0]
    with pytest.raises(ValueError, match=rf"^`{name}` must be {wanted} in .*{dtype}\."):
        client.check_inputs("classify", inputs, WANTED)


@pytest.mark.parametrize(
    "audio, complaint",
    [
        (np.zeros(3), r"`audio` must have the shape \(None, 3\); received \(3,\)"),
        (np.zeros((1, 1, 3)), r"received \(1, 1, 3\)"),
        (np.zeros((1, 4)), r"received \(1, 4\)"),
        (0.5, r"received \(\)"),
        ([[0.5], [0.5, 0.5]], "`audio` must be an array: "),
        ([[None, 0.5, 0.5]], "`audio` must be float32 .* received object"),
        ([["a", "b", "c"]], "`audio` must be float32 .* received <U1"),
        ([[1, 0, 0]], "`audio` must be float32 .* received int64"),
    ],
)
def test_other_shapes_and_things_are_one_line(audio, complaint):
    with pytest.raises(ValueError, match=complaint) as caught:
        client.check_inputs("classify", {**GIVEN, "audio": audio}, WANTED)
    assert "\n" not in str(caught.value)


def test_labels_are_split_at_line_feeds_alone(tmp_path):
    names = ["a\u2028b", "c\x85d", "e\x0bf", "g\x0ch", "i\rj", " k ", "", "l\x1cm"]
    (tmp_path / "assets").mkdir()
    file = tmp_path / "assets" / "labels.txt"
    file.write_bytes("".join(f"{name}\n" for name in names).encode())
    assert client.read_labels(tmp_path) == names
    file.write_bytes(b"")
    assert client.read_labels(tmp_path) == []


def test_versions_are_ascii_numbers(tmp_path):
    for name in ("1", "10", "2\u00b2", "3x"):
        (tmp_path / name).mkdir()
    assert client.newest_version(tmp_path).name == "10"


def test_a_directory_without_a_model_is_said(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"neither saved_model\.pb nor"):
        SavedModelClient(tmp_path)


def test_main_answers_every_signature(saved_model, tmp_path):
    np.savez(tmp_path / "in.npz", audio=np.ones((2, 3), "float32"))
    client.main(str(saved_model), str(tmp_path / "in.npz"), str(tmp_path / "out.npz"))
    with np.load(tmp_path / "out.npz") as answers:
        np.testing.assert_array_equal(
            answers["embed_audio/audio_embedding"], np.full((2, 3), 2.0)
        )
