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

SIGNATURES = {
    "serving_default": {
        "inputs": {"audio": {}, "video": {}},
        "outputs": {"logits": {}, "probabilities": {}},
    },
    "embed_audio": {"inputs": {"audio": {}}, "outputs": {"audio_embedding": {}}},
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
        if set(request["inputs"]) != set(SIGNATURES[signature]["inputs"]):
            return self.reply(400, {"error": "input names do not match"})
        wave = np.array(request["inputs"]["audio"])
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
    with pytest.raises(RuntimeError, match=r"answered 400: .*names do not match"):
        RestClient("tiny", url).predict("embed_audio", video=np.zeros((1, 2)))


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
    answers = asked.predict("embed_audio", audio=[[1, 2, 3]])
    np.testing.assert_array_equal(answers["audio_embedding"], [[2, 4, 6]])
    assert asked.labels == []


def test_saved_model_client_names_what_there_is(saved_model):
    asked = SavedModelClient(saved_model / "2")
    with pytest.raises(ValueError, match="no signature 'classify'; it has"):
        asked.predict("classify", audio=[[1, 2, 3]])
    with pytest.raises(ValueError, match=r"takes the inputs \['audio'\]"):
        asked.predict("embed_audio", waveform=[[1, 2, 3]])
    with pytest.raises(ValueError, match=r"shape \(None, 3\); received \(1, 2\)"):
        asked.predict("embed_audio", audio=[[1, 2]])


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
