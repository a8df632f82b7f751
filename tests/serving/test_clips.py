"""Files as the inputs of a signature: which one is chosen, and what it is given."""

import json
import types

import numpy as np
import pytest
import tensorflow as tf
from media_files import write_clip

from tfavmae.building.worker_pool import WorkerPool
from tfavmae.errors import UserError
from tfavmae.serving import clips
from tfavmae.serving.protocol import RequestError, SignatureSpec, TensorSpec

FLOATS, ROWS = TensorSpec("float32", (None, None)), TensorSpec("float32", (None,))
VIDEO = TensorSpec("uint8", (None, None, 24, 32, 3))
LENGTH = TensorSpec("int32", (None,))
BOTH = SignatureSpec(
    {
        "audio": FLOATS,
        "audio_samples": LENGTH,
        "video": VIDEO,
        "audio_present": ROWS,
        "video_present": ROWS,
    },
    {},
)
PREPROCESSING = {
    "clip": {
        "clip_seconds": 1.0,
        "num_frames": 3,
        "frame_size": [24, 32],
        "shorter_side": None,
        "frame_stride_seconds": None,
        "short_audio": "pad",
        "short_video": "hold",
        "interpolation": "bilinear",
        "sample_rate_hz": 16000,
    },
    "stored_as": {"frame_rate": 10.0, "shorter_side": 48},
}


@pytest.fixture(scope="module")
def pool():
    with WorkerPool(1) as workers:
        yield workers


@pytest.fixture
def version(tmp_path):
    (tmp_path / "assets").mkdir()
    file = tmp_path / "assets" / "preprocessing.json"
    file.write_text(json.dumps(PREPROCESSING))
    return types.SimpleNamespace(path=tmp_path, signatures={"classify": BOTH})


def windows_of(pool, path, version, signature):
    info = clips.probe(pool, path)
    form = clips.form_of(version)
    return list(clips.windows(pool, path, info, form, signature))


def test_a_clip_without_audio_says_so(pool, version, tmp_path):
    path = write_clip(tmp_path / "mute.mp4", 1.0, audio=None)
    info = clips.probe(pool, path)
    assert clips.choose_signature(version, "classify", info) == ("classify", BOTH)
    (window,) = windows_of(pool, path, version, BOTH)
    assert window.inputs["audio"].shape == (1, 16000)
    assert not window.inputs["audio"].any()
    assert window.inputs["audio_samples"].dtype == np.int32
    assert [float(window.inputs[f"{m}_present"][0]) for m in ("audio", "video")] == [
        0,
        1,
    ]
    assert window.inputs["video"].shape == (1, 3, 24, 32, 3)


def test_the_last_window_says_how_long_it_is(pool, version, tmp_path):
    path = write_clip(tmp_path / "a.wav", 1.75, sample_rate_hz=16000)
    first, last = windows_of(pool, path, version, BOTH)
    assert first.inputs["audio_samples"].tolist() == [16000]
    assert last.inputs["audio_samples"].tolist() == [12000]
    assert last.inputs["audio"].shape == (1, 16000)
    assert (last.start_seconds, last.end_seconds) == (1, 1.75)
    alone = SignatureSpec({"audio": FLOATS}, {})
    _, last = windows_of(pool, path, version, alone)
    assert last.inputs["audio"].shape == (1, 12000)


def test_numbers_are_those_of_the_stored_clip(pool, version, tmp_path):
    from tfavmae.media import decode

    path = write_clip(tmp_path / "a.mp4", 1.0)
    (window,) = windows_of(pool, path, version, BOTH)
    stored = decode.decode(path, 0, 1.0, frame_rate=10.0, shorter_side=48)
    samples = stored.audio[:16000] / 32768
    np.testing.assert_allclose(
        window.inputs["audio"][0, : len(samples)], samples, atol=1e-7
    )
    # Three frames in the middle of three thirds of ten.
    for shown, index in zip(window.inputs["video"][0], (1, 5, 8), strict=True):
        frame = tf.io.decode_jpeg(stored.frames[index], dct_method="INTEGER_ACCURATE")
        assert abs(shown.mean() - frame.numpy().mean()) < 2


def test_the_signature_with_most_of_a_file_is_chosen():
    names = {
        "embed": SignatureSpec({"audio": FLOATS, "video": VIDEO}, {}),
        "embed_audio": SignatureSpec({"audio": FLOATS}, {}),
        "embed_video": SignatureSpec({"video": VIDEO}, {}),
        "embed_audio_encoded": SignatureSpec({"audio_bytes": LENGTH}, {}),
    }
    version = types.SimpleNamespace(signatures=names)

    def chosen(audio, video):
        info = types.SimpleNamespace(has_audio=audio, has_video=video)
        return clips.choose_signature(version, "embed", info)[0]

    assert chosen(True, True) == "embed"
    assert chosen(True, False) == "embed_audio"
    assert chosen(False, True) == "embed_video"
    with pytest.raises(RequestError, match="no signature for `classify`"):
        clips.choose_signature(version, "classify", None)


def test_too_long_a_file_is_refused(version):
    info = types.SimpleNamespace(duration_seconds=5000.0)
    form = clips.form_of(version)
    with pytest.raises(RequestError, match="5000 windows of 1 s; the maximum is 1000"):
        next(clips.windows(None, "x.mp4", info, form, BOTH))


def test_shapes_say_how_long_a_clip_is(tmp_path):
    audio = TensorSpec("float32", (None, 32000))
    video = TensorSpec("uint8", (None, 4, 24, 32, 3))
    signature = SignatureSpec({"audio": audio, "video": video}, {})
    version = types.SimpleNamespace(path=tmp_path, signatures={"classify": signature})
    spec = clips.form_of(version).spec
    assert (spec.clip_seconds, spec.num_frames, spec.frame_size) == (2, 4, (24, 32))


@pytest.mark.parametrize("content", ["", "{}", '{"clip": 3}', '{"clip": {"a": 1}}'])
def test_damaged_constants_are_said(version, content):
    (version.path / "assets" / "preprocessing.json").write_text(content)
    with pytest.raises(UserError, match=r"preprocessing\.json: is damaged"):
        clips.form_of(version)


def test_shapes_of_any_length_need_constants(version):
    (version.path / "assets" / "preprocessing.json").unlink()
    with pytest.raises(UserError, match=r"no assets/preprocessing\.json"):
        clips.form_of(version)
