"""The REST client and `tfavmae serve`: files, streams, repetitions and errors."""

import http.server
import json
import threading
import time

import numpy as np
import pytest
import served_models
from media_files import write_clip

from tfavmae.serving import client
from tfavmae.serving.client import RestClient


class Script(http.server.BaseHTTPRequestHandler):
    """Answers with one status after the other."""

    statuses: list[int] = []

    def do_GET(self):
        status = self.statuses.pop(0) if self.statuses else 200
        if status == 0:
            self.connection.close()
            return
        if status == 1:
            time.sleep(1)
            status = 200
        if status == 2:
            self.send_response(200)
            self.send_header("Content-Length", "100")
            self.end_headers()
            self.wfile.write(b'{"ok"')
            self.close_connection = True
            return
        body = json.dumps({"error": "busy"} if status >= 400 else {"ok": 1}).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def script():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Script)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("first", [[429], [503, 429], [0], [0, 503], [2]])
def test_what_may_pass_is_tried_again(script, first):
    Script.statuses = list(first)
    assert RestClient("m", script).status() == {"ok": 1}
    assert not Script.statuses


@pytest.mark.parametrize(
    ("statuses", "kind"),
    [
        ([400, 200], client.BadRequest),
        ([413, 200], client.BadRequest),
        ([404, 200], client.NotFound),
        ([504, 200], client.DeadlineExceeded),
        ([500, 200], client.ServingError),
    ],
)
def test_what_fails_for_good_is_not(script, statuses, kind):
    Script.statuses = list(statuses)
    with pytest.raises(kind, match=f"answered {statuses[0]}: .*busy") as caught:
        RestClient("m", script).status()
    assert type(caught.value) is kind and caught.value.status == statuses[0]
    assert Script.statuses == [200]


def test_a_server_that_stays_busy_is_given_up(script):
    Script.statuses = [429] * 10
    start = time.monotonic()
    with pytest.raises(client.Overloaded):
        RestClient("m", script, max_retries=2).status()
    assert len(Script.statuses) == 7 and time.monotonic() - start < 5


def test_the_deadline_holds(script):
    Script.statuses = [1] * 5
    start = time.monotonic()
    with pytest.raises(client.DeadlineExceeded, match=r"within 0\.3 s"):
        RestClient("m", script, timeout_seconds=0.3).status()
    assert time.monotonic() - start < 0.9
    Script.statuses = []


def test_model_names_stay_in_their_place():
    assert RestClient("a/../b").address.endswith("/v1/models/a%2F..%2Fb")


# --- Against the server ---


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    import uvicorn

    from tfavmae.serving import server
    from tfavmae.serving.app import Service
    from tfavmae.serving.versions import find_models

    folder = tmp_path_factory.mktemp("export") / "ears"
    served_models.save(folder / "1")
    models = find_models(folder)
    models["ears"].refresh()
    listening = server.listen("127.0.0.1", 0)
    config = uvicorn.Config(Service(models).app(), log_level="warning", ws="none")
    running = uvicorn.Server(config)
    thread = threading.Thread(target=running.run, kwargs={"sockets": [listening]})
    thread.start()
    while not running.started:
        time.sleep(0.01)
    yield RestClient("ears", f"http://127.0.0.1:{listening.getsockname()[1]}")
    running.should_exit = True
    thread.join()


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return write_clip(tmp_path_factory.mktemp("media") / "a clip\u00e9.mp4", 3.0)


def test_a_path_and_bytes_have_the_same_answer(served, clip):
    by_path = served.ask("classify", clip, top=2)
    assert by_path["file"] == "a_clip_.mp4" and by_path["num_windows"] == 3
    assert len(by_path["probabilities"]) == 2
    by_bytes = served.ask("classify", clip.read_bytes(), top=2)
    assert by_bytes["probabilities"] == by_path["probabilities"]


def test_windows_are_streamed(served, clip):
    answers = list(served.stream("classify", clip))
    assert [a["window"]["start_seconds"] for a in answers[:-1]] == [0, 1, 2]
    assert answers[-1]["num_windows"] == 3


def test_what_the_server_says_about_a_file_is_an_error(served):
    with pytest.raises(client.BadRequest, match="clip: "):
        served.ask("classify", b"This is not a film.")
    with pytest.raises(client.BadRequest, match="clip: "):
        list(served.stream("classify", b"This is not a film."))


def test_arrays_come_back(served):
    x = np.array([[0.1, -2.0]], "float32")
    np.testing.assert_array_equal(served.predict("double", x=x)["y"], 2 * x)
    seeded = served.predict("seeded", x=x, seed=np.int32(1))
    np.testing.assert_allclose(seeded["y"], x + 1)


def test_files_are_sent_as_bytes(served, tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"\x00\xff" * 5)
    answer = served.predict("length", image_bytes=[path, b"abc"])
    assert answer["length"].tolist() == [10, 3]


def test_a_long_waveform_is_cut(served):
    loud = np.repeat([0.5, 0.25, 1.0], [16000, 16000, 8000])
    found = dict(served.predict_windows("embed_audio", loud, 16000))
    assert list(found) == [0, 16000, 32000]
    measured = [float(one["audio_embedding"][0]) for one in found.values()]
    np.testing.assert_allclose(measured, [0.5, 0.25, np.sqrt(0.5)], atol=1e-5)


def test_whole_clips_need_no_lengths():
    wanted = {
        "audio": ("float32", (None, None)),
        "audio_samples": ("int32", (None,)),
        "audio_present": ("float32", (None,)),
    }
    arrays = client.check_inputs(
        "embed", {"audio": np.zeros((2, 7), "float32")}, wanted
    )
    assert arrays["audio_samples"].tolist() == [7, 7]
    assert arrays["audio_present"].tolist() == [1, 1]
