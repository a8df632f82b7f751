"""The local server: TF Serving's protocol, files, metrics and the page."""

import asyncio
import base64
import io
import json
import types

import numpy as np
import pytest
import served_models
from media_files import sine, write_clip
from starlette.testclient import TestClient

from tfavmae.serving.app import Service
from tfavmae.serving.limits import Limited, Limits
from tfavmae.serving.versions import find_models


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("export") / "ears"
    served_models.save(folder / "1")
    served_models.save(folder / "2", offset=1.0)
    return folder


@pytest.fixture(scope="module")
def server(exported):
    models = find_models(exported)
    models["ears"].refresh()
    with TestClient(Service(models).app()) as client:
        yield client


def predict(server, body, **options):
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return server.post("/v1/models/ears:predict", content=content, **options)


def error_of(reply, status):
    assert reply.status_code == status, reply.text
    assert reply.headers["content-type"] == "application/json"
    assert list(reply.json()) == ["error"]
    assert "\n" not in reply.json()["error"]
    return reply.json()["error"]


# --- Status and metadata: shapes of the documentation's examples ---


def test_status_is_that_of_the_documentation(server):
    wanted = {
        "model_version_status": [
            {
                "version": "2",
                "state": "AVAILABLE",
                "status": {"error_code": "OK", "error_message": ""},
            }
        ]
    }
    assert server.get("/v1/models/ears").json() == wanted
    assert server.get("/v1/models/ears/versions/2").json() == wanted


def test_metadata_describe_the_signatures(server):
    answer = server.get("/v1/models/ears/metadata").json()
    assert answer["model_spec"] == {
        "name": "ears",
        "signature_name": "",
        "version": "2",
    }
    signatures = answer["metadata"]["signature_def"]["signature_def"]
    audio = signatures["embed_audio"]["inputs"]["audio"]
    assert audio["dtype"] == "DT_FLOAT"
    assert [axis["size"] for axis in audio["tensor_shape"]["dim"]] == ["-1", "16000"]
    assert signatures["embed_audio"]["method_name"] == "tensorflow/serving/predict"
    assert set(signatures["classify"]["outputs"]) == {"logits", "probabilities"}
    assert "__saved_model_init_op" not in signatures


@pytest.mark.parametrize(
    ("path", "status", "message"),
    [
        ("/v1/models/half", 404, "Could not find any versions of model half"),
        ("/v1/models/ears/versions/7", 404, "Could not find any versions of model"),
        ("/v1/models/half/metadata", 404, "Servable not found for request: Latest"),
        ("/v1/models/ears/versions/7/metadata", 404, "request: Specific(ears, 7)"),
        ("/v1/models/ears/versions/99999999999999999999", 400, "to convert version"),
        ("/v1/models/ears/versions/-1", 400, "Malformed request: GET"),
        ("/v1/models/ears/labels/canary", 400, "Malformed request: GET"),
        ("/v1/models/ears:predict", 400, "Malformed request: GET"),
        ("/v1/models/..%2F..%2Fetc%2Fpasswd", 400, "Malformed request: GET"),
        ("/v1/models/%2e%2e", 404, "Could not find any versions of model .."),
        ("/v1/models/ears/versions/..%2f1", 400, "Malformed request: GET"),
        ("/v1/models/a%0Ab", 404, "Not Found"),
        ("/v1/models/a%07b", 404, "a\\x07b"),
        ("/v2/models/ears", 404, "Not Found"),
    ],
)
def test_what_is_not_there_is_said(server, path, status, message):
    assert message in error_of(server.get(path), status)


# --- Predict ---


def test_rows_of_one_input_are_a_plain_list(server):
    reply = predict(server, {"signature_name": "double", "instances": [[1], [2.5]]})
    assert reply.json() == {"predictions": [[2.0], [5.0]]}


def test_rows_of_named_inputs(server):
    audio = np.zeros(served_models.NUM_SAMPLES).tolist()
    video = np.full((2, 24, 32, 3), 51, int).tolist()
    reply = predict(server, {"instances": [{"audio": audio, "video": video}] * 2})
    first, second = reply.json()["predictions"]
    assert first == second
    np.testing.assert_allclose(first["logits"], [1, 0, 1.2], rtol=1e-6)


def test_columns_and_named_columns(server):
    body = {"signature_name": "double", "inputs": {"x": [[1, -2]]}}
    assert predict(server, body).json() == {"outputs": [[2.0, -4.0]]}
    body["inputs"] = [[1, -2]]
    assert predict(server, body).json() == {"outputs": [[2.0, -4.0]]}
    body = {"signature_name": "seeded", "inputs": {"x": [[1, 2]], "seed": 7}}
    assert predict(server, body).json() == {
        "outputs": {"total": 3.0, "y": [[8.0, 9.0]]}
    }


def test_a_version_can_be_named(server):
    body = {"signature_name": "double", "instances": [[1]]}
    reply = server.post("/v1/models/ears/versions/2:predict", json=body)
    assert reply.json() == {"predictions": [[2.0]]}
    reply = server.post("/v1/models/ears/versions/1:predict", json=body)
    assert "Specific(ears, 1)" in error_of(reply, 404)


def test_bytes_are_base64(server):
    content = bytes(range(256))
    rows = [{"b64": base64.b64encode(content).decode()}, "text"]
    body = {"signature_name": "length", "instances": rows}
    assert predict(server, body).json() == {"predictions": [256, 4]}
    body = {"signature_name": "length", "instances": [{"image_bytes": rows[0]}]}
    assert predict(server, body).json() == {"predictions": [256]}


def test_numbers_are_the_shortest_and_may_be_no_numbers(server):
    body = b'{"signature_name": "double", "instances": [[0.05, NaN, -Infinity]]}'
    assert predict(server, body).text == '{"predictions": [[0.1, NaN, -Infinity]]}'


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "JSON Parse error"),
        (b'{"instances": [', "JSON Parse error"),
        (b"\xff\xfe\x00", "JSON Parse error"),
        (b"[" * 100_000, "nested too deeply"),
        (b"[1]", "must be a JSON object; received a list"),
        ({"instances": [[1]], "inputs": [[1]]}, "Give either `instances`"),
        ({"signature_name": "double"}, "Give either `instances`"),
        ({"signature_name": "doubel", "inputs": 1}, "did you mean 'double'?"),
        ({"signature_name": 3, "inputs": 1}, "`signature_name` must be a string"),
        ({"signature_name": "double", "instances": []}, "at least one row"),
        ({"signature_name": "double", "instances": 3}, "at least one row"),
        ({"signature_name": "double", "inputs": [1]}, "shape [any, any]; received [1]"),
        ({"signature_name": "double", "inputs": [[[1]]]}, "received [1, 1, 1]"),
        ({"signature_name": "double", "inputs": [["a"]]}, "float32; received strings"),
        ({"signature_name": "double", "inputs": [[True]]}, "received booleans"),
        ({"signature_name": "double", "inputs": [[None]]}, "received other values"),
        ({"signature_name": "double", "inputs": [[1e39]]}, "too large for float32"),
        ({"signature_name": "double", "inputs": [[1], [1, 2]]}, "the same length"),
        ({"signature_name": "double", "instances": [[1], [1, 2]]}, "the same length"),
        ({"signature_name": "double", "instances": [{"z": 1}]}, "keys ['x']; received"),
        ({"signature_name": "double", "inputs": {"z": 1}}, "keys ['x']; received"),
        ({"signature_name": "double", "inputs": [[1]] * 10_000}, "1 to 1024 rows"),
        ({"signature_name": "embed_audio", "inputs": []}, "received [0]"),
        ({"signature_name": "double", "inputs": []}, "received [0]"),
        ({"signature_name": "seeded", "instances": [[1]]}, "list of objects"),
        ({"signature_name": "seeded", "inputs": [[1]]}, "an object with the keys"),
        ({"signature_name": "length", "inputs": [1]}, "a string or"),
        ({"signature_name": "length", "inputs": [{"b64": "!"}]}, "base64"),
        ({"signature_name": "length", "inputs": [["a"], []]}, "the same length"),
        ({"signature_name": "similarity", "inputs": [300]}, "0 to 255; received"),
        (
            {"signature_name": "similarity", "inputs": [0.5]},
            "received fractions",
        ),
        ({"signature_name": "refuse", "inputs": [[-1]]}, "x must be > 0"),
        ({"signature_name": "seeded", "inputs": {"x": [[1]], "seed": 2**40}}, "int32"),
    ],
)
def test_bad_requests_are_400_and_one_line(server, body, message):
    assert message in error_of(predict(server, body), 400)
    assert server.get("/healthz").json() == {"status": "ok"}


def test_a_row_that_the_model_refuses_costs_no_other_its_answer(server):
    from concurrent.futures import ThreadPoolExecutor

    def ask(x):
        return predict(server, {"signature_name": "refuse", "instances": [[x]]})

    with ThreadPoolExecutor(8) as threads:
        replies = list(threads.map(ask, [1, -1, 2, 3, -2, 4, 5, 6]))
    assert [r.status_code for r in replies] == [200, 400, 200, 200, 400, 200, 200, 200]
    assert replies[7].json() == {"predictions": [[6.0]]}


def test_rows_without_a_common_length_are_asked_for_in_columns(server):
    body = {"signature_name": "seeded", "instances": [{"x": [1], "seed": 1}]}
    # The seed has no batch axis, so that it cannot be given by rows.
    assert "`seed` must have the shape []" in error_of(predict(server, body), 400)


def png_header(width, height):
    """The start of a PNG: what a program reads before it takes memory."""
    import struct
    import zlib

    data = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + b"IHDR" + data
    crc = struct.pack(">I", zlib.crc32(b"IHDR" + data))
    end = struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))
    return b"\x89PNG\r\n\x1a\n" + chunk + crc + end


def test_a_huge_picture_is_refused_by_its_header(server):
    content = base64.b64encode(png_header(20_000, 20_000)).decode()
    body = {"signature_name": "length", "inputs": [{"b64": content}]}
    message = error_of(predict(server, body), 400)
    assert (
        "pixels" in message and "400000000" in message.replace(" x ", "") + "400000000"
    )


# --- Files ---


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """Five seconds: two windows with a loud tone, then three of silence."""

    def sound(times):
        return np.where(times < 2, 0.5, 0.0) * np.sign(sine(440)(times))

    path = tmp_path_factory.mktemp("media") / "clip.mp4"
    return write_clip(path, 5.0, sound=sound, sample_rate_hz=48000)


def ask(server, verb, *files, query=""):
    parts = [("file", (name, content)) for name, content in files]
    return server.post(f"/v1/models/ears:{verb}{query}", files=parts)


def test_a_film_is_cut_into_windows_and_averaged(server, clip):
    reply = ask(
        server, "classify", ("clip.mp4", clip.read_bytes()), query="?windows=true"
    )
    (answer,) = reply.json()["results"]
    assert (answer["file"], answer["signature"]) == ("clip.mp4", "classify")
    assert answer["num_windows"] == len(answer["windows"]) == 5
    loud = [
        next(c["probability"] for c in w["probabilities"] if c["label"] == "loud")
        for w in answer["windows"]
    ]
    assert loud[0] > 0.1 and loud[4] < 0.01
    assert [w["start_seconds"] for w in answer["windows"]] == [0, 1, 2, 3, 4]
    mean = next(c for c in answer["probabilities"] if c["label"] == "loud")
    assert mean["probability"] == pytest.approx(np.mean(loud), abs=1e-5)
    ranked = [c["probability"] for c in answer["probabilities"]]
    assert ranked == sorted(ranked, reverse=True) and len(ranked) == 3
    assert sum(ranked) == pytest.approx(1, abs=1e-5)


def test_several_files_and_the_likeliest_class_alone(server, clip):
    content = clip.read_bytes()
    reply = ask(
        server, "classify", ("a.mp4", content), ("../b.mp4", content), query="?top=1"
    )
    answers = reply.json()["results"]
    assert [one["file"] for one in answers] == ["a.mp4", "../b.mp4"]
    assert [len(one["probabilities"]) for one in answers] == [1, 1]


def test_answers_are_streamed_by_window(server, clip):
    reply = ask(server, "classify", ("c", clip.read_bytes()), query="?stream=true")
    assert reply.headers["content-type"].startswith("application/x-ndjson")
    lines = [json.loads(line) for line in reply.text.splitlines()]
    assert [line["window"]["start_seconds"] for line in lines[:-1]] == [0, 1, 2, 3, 4]
    assert lines[-1]["num_windows"] == 5


def wav(seconds=1.0, amplitude=0.5):
    import wave

    file = io.BytesIO()
    samples = amplitude * np.sign(np.sin(np.arange(round(seconds * 8000)) * 0.3))
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(8000)
        out.writeframes((samples * 32767).astype("<i2").tobytes())
    return file.getvalue()


def test_audio_alone_is_embedded_by_the_signature_that_takes_it(server):
    (answer,) = ask(server, "embed", ("a.wav", wav())).json()["results"]
    assert answer["signature"] == "embed_audio"
    assert np.linalg.norm(answer["audio_embedding"]) == pytest.approx(1, abs=1e-5)
    loud, quiet = answer["audio_embedding"]
    assert loud / quiet == pytest.approx(1, abs=0.1)


def picture(format_name, size=(64, 48), value=102):
    import PIL.Image

    file = io.BytesIO()
    PIL.Image.new("RGB", size, (value,) * 3).save(file, format_name)
    return file.getvalue()


@pytest.mark.parametrize("format_name", ["JPEG", "PNG", "WEBP", "BMP"])
def test_a_picture_is_known_by_its_content(server, format_name):
    content = picture(format_name)
    (answer,) = ask(server, "similarity", ("x.mp4", content)).json()["results"]
    assert answer["score"] == pytest.approx(0.4, abs=0.01)
    (window,) = answer["windows"]
    assert np.shape(window["heat"]) == (24, 32)


@pytest.mark.parametrize(
    ("verb", "name", "content", "message"),
    [
        ("classify", "a.wav", wav(), "a.wav: has no video, which `classify`"),
        ("classify", "a.jpg", picture("JPEG"), "has no audio, which `classify`"),
        ("embed", "a.jpg", picture("JPEG"), "has no audio, which `embed`"),
        ("similarity", "a.png", png_header(20_000, 20_000), "too many pixels"),
        ("similarity", "a.jpg", picture("JPEG")[:200], "damaged"),
        ("similarity", "a.txt", b"This is not a film.\n" * 40, "a.txt: "),
        ("similarity", "a.mp4", b"", "a.mp4: "),
        ("embed", "a.wav", wav()[:30], "a.wav: "),
        ("events", "a.wav", wav(), "no signature for `events`"),
        ("regress", "a.wav", wav(), "Files are taken by classify"),
        ("embed", "a.m3u8", b"#EXTM3U\n#EXTINF:1,\n/etc/passwd\n", "a.m3u8: "),
    ],
)
def test_files_that_cannot_be_answered(server, verb, name, content, message):
    reply = ask(server, verb, (name, content))
    assert message in error_of(reply, 400)


def test_a_truncated_film_is_answered_or_refused_in_one_line(server, clip):
    content = clip.read_bytes()
    reply = ask(server, "classify", ("cut.mp4", content[: len(content) // 2]))
    assert "cut.mp4: " in error_of(reply, 400)


def test_json_for_files_and_files_for_json(server):
    reply = server.post("/v1/models/ears:classify", json={"examples": []})
    assert "multipart/form-data" in error_of(reply, 400)
    reply = ask(server, "predict", ("a.wav", wav()))
    assert "JSON Parse error" in error_of(reply, 400)
    reply = server.post("/v1/models/ears:embed", files=[], data={"a": "b"})
    assert "multipart/form-data" in error_of(reply, 400)
    reply = server.post(
        "/v1/models/ears:embed",
        content=b"--x\r\nnonsense",
        headers={"content-type": "multipart/form-data; boundary=y"},
    )
    error_of(reply, 400)


@pytest.mark.parametrize(
    ("query", "message"),
    [("?tpo=3", "known: top, windows"), ("?top=0", "`top`"), ("?stream=1", "`stream`")],
)
def test_options_are_checked(server, query, message):
    reply = ask(server, "embed", ("a.wav", wav()), query=query)
    assert message in error_of(reply, 400)


# --- Limits ---


def test_bodies_have_a_limit(exported):
    models = find_models(exported)
    models["ears"].refresh()
    limits = Limits(max_json_bytes=1000, max_bytes=2000)
    with TestClient(Service(models, limits).app()) as server:
        assert "exceeds" in error_of(predict(server, b" " * 1001), 413)
        chunks = (b" " * 100 for _ in range(11))
        reply = server.post("/v1/models/ears:predict", content=chunks)
        assert "exceeds" in error_of(reply, 413)
        assert "exceeds" in error_of(ask(server, "embed", ("a.wav", wav())), 413)
        assert predict(server, {"signature_name": "double", "inputs": [[1]]}).is_success


def test_packed_bodies_are_refused(server):
    headers = {"content-encoding": "gzip"}
    reply = predict(server, b"\x1f\x8b", headers=headers)
    assert "Content-Encoding" in error_of(reply, 415)


def test_metrics_count_requests_and_batches(server):
    predict(server, {"signature_name": "double", "inputs": [[1], [2]]})
    text = server.get("/metrics").text
    sample = 'tfavmae_requests_total{method="predict",model="ears",status="200"}'
    assert sample in text and 'tfavmae_model_version{model="ears"} 2.0' in text
    assert 'tfavmae_batch_rows_bucket{le="2.0",signature="double"}' in text
    assert "tfavmae_requests_running 0.0" in text
    server.post("/v1/models/ears:made_up")
    assert "made_up" not in server.get("/metrics").text
    assert server.get("/monitoring/prometheus/metrics").status_code == 200


def test_the_page_knows_what_the_model_can(server):
    page = server.get("/")
    assert page.headers["content-type"].startswith("text/html")
    assert 'data-verbs="classify embed similarity"' in page.text
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "http://" not in page.text and "https://" not in page.text


def test_an_answer_has_a_time_limit(tmp_path):
    served_models.save(tmp_path / "slow" / "1", seconds=1.5)
    models = find_models(tmp_path / "slow")
    models["slow"].refresh()
    limits = Limits(request_seconds=0.3)
    body = {"signature_name": "double", "inputs": [[1]]}
    with TestClient(Service(models, limits).app()) as server:
        reply = server.post("/v1/models/slow:predict", json=body)
        assert "not answered within 0.3 s" in error_of(reply, 504)
        assert server.get("/healthz").is_success


def test_a_refused_body_is_read_before_the_answer():
    """A connection that is closed with bytes unread takes the answer with it."""
    parts = [{"type": "http.request", "body": b"1234", "more_body": True}] * 3
    parts.append({"type": "http.request", "body": b"", "more_body": False})
    events = []

    async def receive():
        events.append("part")
        return parts[len(events) - 1]

    async def send(message):
        events.append(message.get("status", message["type"]))

    async def ask(headers):
        limited = Limited(None, Limits(max_requests=0))
        scope = {"type": "http", "method": "POST", "headers": headers}
        await limited(scope, receive, send)

    asyncio.run(ask([]))
    assert events == ["part"] * 4 + [429, "http.response.body"]
    events.clear()
    asyncio.run(ask([(b"expect", b"100-continue")]))
    assert events == [429, "http.response.body"]


def test_nothing_is_left_of_a_request(exported, clip, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    models = find_models(exported)
    models["ears"].refresh()
    content = clip.read_bytes()
    with TestClient(Service(models).app()) as server:
        assert ask(server, "classify", ("clip.mp4", content)).is_success
        stream = ask(server, "classify", ("clip.mp4", content), query="?stream=true")
        assert stream.is_success
        error_of(ask(server, "classify", ("clip.mp4", content[:5000])), 400)
        assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    assert list(tmp_path.iterdir()) == []


def test_neighbours_join_the_answer_of_embed(exported):
    models = find_models(exported)
    models["ears"].refresh()
    neighbours = types.SimpleNamespace(
        knows=lambda version: version.number == 2,
        of=lambda outputs: [{"place": sorted(outputs)[0]}],
    )
    with TestClient(Service(models, neighbours=neighbours).app()) as server:
        (answer,) = ask(server, "embed", ("a.wav", wav())).json()["results"]
        assert "data-index" in server.get("/").text
    assert answer["nearest"] == [{"place": "audio_embedding"}]
    neighbours.knows = lambda version: False
    with TestClient(Service(models, neighbours=neighbours).app()) as server:
        (answer,) = ask(server, "embed", ("a.wav", wav())).json()["results"]
    assert "nearest" not in answer
