"""Files in the served graph: as the pipeline reads them, and bad ones refused."""

import io
import wave

import av
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tfavmae.data import jpeg
from tfavmae.data.clip_spec import ClipSpec
from tfavmae.media import decode
from tfavmae.media.options import DecodeOptions
from tfavmae.media.stills import read_still
from tfavmae.media.waveform import resample as by_ffmpeg
from tfavmae.models import presets
from tfavmae.serving import wav
from tfavmae.serving.preprocessing import ClipForm

SIZE = {"hidden_dim": 16, "num_heads": 2, "mlp_dim": 32, "num_layers": 1}
AUDIO = {"num_frames": 96, "num_mel_bins": 32, "patch_size": (16, 16)}
VIDEO = {"num_frames": 2, "height": 32, "width": 48, "tubelet_size": (1, 8, 8)}
FORM = ClipForm(ClipSpec(0.96, 2, (32, 48), train=False), DecodeOptions())
RATES = (8000, 11025, 16000, 22050, 32000, 44100, 48000)


@pytest.fixture(scope="module")
def model():
    decoder = {"hidden_dim": 16, "num_heads": 2, "mlp_dim": 32}
    return presets.build_pretraining(
        "mavil", "tiny", audio=AUDIO, video=VIDEO, decoder=decoder, **SIZE
    )


@pytest.fixture(scope="module")
def read_audio():
    return tf.function(
        FORM.read_audio, input_signature=[tf.TensorSpec([None], "string")]
    )


@pytest.fixture(scope="module")
def read_frames():
    spec = tf.TensorSpec([None, None], "string")
    return tf.function(FORM.read_frames, input_signature=[spec])


def tones(rate, seconds=0.8, channels=1):
    """A sweep and noise, another one in each channel; float32 `(samples, channels)`."""
    t = np.arange(round(rate * seconds)) / rate
    rng = np.random.default_rng(0)
    parts = [np.sin(2 * np.pi * (200 + 900 * i + 700 * t) * t) for i in range(channels)]
    noise = rng.normal(size=(len(t), channels)) / 20
    return (np.stack(parts, 1) * 0.5 + noise).astype("float32")


def wav_of(samples, rate, kind="pcm_s16le"):
    """A WAV file, written by FFmpeg."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="wav") as file:
        layout = "mono" if samples.shape[1] == 1 else "stereo"
        stream = file.add_stream(kind, rate=rate, layout=layout)
        frame = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(samples.reshape(1, -1)), "flt", layout
        )
        frame.sample_rate = rate
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            file.mux(packet)
    return buffer.getvalue()


def picture(height, width, mode="RGB"):
    rng = np.random.default_rng(height)
    rough = Image.fromarray(rng.integers(0, 256, (9, 9, 3), "uint8"))
    smooth = rough.resize((width, height), Image.Resampling.BICUBIC)
    return smooth.convert(mode)


def file_of(image, kind="JPEG"):
    buffer = io.BytesIO()
    image.save(buffer, kind, **({"quality": 95} if kind == "JPEG" else {}))
    return buffer.getvalue()


def cosine(a, b):
    a, b = np.ravel(a), np.ravel(b)
    return a @ b / np.linalg.norm(a) / np.linalg.norm(b)


# --- Audio ---


@pytest.mark.parametrize("rate", RATES)
def test_resampling_is_that_of_ffmpeg_to_a_step(rate):
    samples = tones(rate, 1.5)[:, 0]
    wanted = by_ffmpeg(samples, rate, 16000)
    found = wav.resample(tf.constant(samples), tf.constant(rate), 16000) * 2**15
    assert found.shape == wanted.shape
    assert np.abs(found - wanted).max() <= 1


@pytest.mark.parametrize(
    ("kind", "rate", "channels"),
    [
        ("pcm_u8", 8000, 1),
        ("pcm_s16le", 44100, 2),
        ("pcm_s24le", 48000, 2),
        ("pcm_s32le", 22050, 1),
        ("pcm_f32le", 11025, 2),
        ("pcm_f64le", 16000, 1),
    ],
)
@pytest.mark.parametrize("mix", ["first", "downmix"])
def test_a_wav_file_is_heard_as_in_training(model, kind, rate, channels, mix, tmp_path):
    path = tmp_path / "clip.wav"
    path.write_bytes(wav_of(tones(rate, channels=channels), rate, kind))
    options = DecodeOptions(channels=mix)
    stored = decode.decode(path, 0, FORM.spec.clip_seconds, channels=mix).audio
    form = ClipForm(FORM.spec, options)
    found, samples = form.read_audio(tf.constant([path.read_bytes()]))
    assert abs(int(samples[0]) - len(stored)) <= 1
    common = min(int(samples[0]), len(stored))
    assert np.abs(found[0, :common] * 2**15 - stored[:common]).max() <= 2
    trained = {
        "audio": np.pad(stored, (0, FORM.spec.num_samples - len(stored)))[None],
        "audio_samples": np.array([len(stored)], "int32"),
    }
    served = {"audio": found, "audio_samples": samples}
    vectors = [model(x, training=False)["audio_embedding"] for x in (trained, served)]
    assert cosine(*vectors) > 0.9999


def test_clips_of_several_lengths_are_heard_as_each_alone(read_audio):
    files = [wav_of(tones(8000, s), 8000) for s in (0.2, 0.96)]
    audio, samples = read_audio([*files, b""])
    assert samples.numpy().tolist() == [3200, 15360, 0]
    assert not audio[0, 3200:].numpy().any() and not audio[2].numpy().any()
    alone, _ = read_audio(files[:1])
    np.testing.assert_array_equal(audio[0], alone[0])


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda file: b"RIFX" + file[4:], "not a WAV file"),
        (lambda file: file[:7], "not a WAV file"),
        (lambda file: file[:20], "without `fmt ` or `data`"),
        (lambda file: file.replace(b"data", b"list"), "without `fmt ` or `data`"),
        (lambda file: file[:20] + b"\x55" + file[21:], "neither PCM"),
        (lambda file: file[:22] + b"\0\0" + file[24:], "without channels"),
        (lambda file: file[:24] + b"\x01\x00\x00\x00" + file[28:], "rate that is not"),
        (lambda file: file[:24] + b"\x41\x1f\x00\x00" + file[28:], "in steps of 25"),
    ],
)
def test_a_bad_wav_file_is_refused_with_the_reason(read_audio, damage, reason):
    file = damage(wav_of(tones(8000, 0.1), 8000))
    with pytest.raises(tf.errors.InvalidArgumentError, match=reason):
        read_audio([file])


def test_a_long_wav_file_is_refused_before_it_is_decoded(read_audio):
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"longer than 0.96 s"):
        read_audio([wav_of(np.zeros((8000 * 600, 1), "float32"), 8000)])


def test_a_wav_file_that_was_cut_short_is_heard_to_its_end(read_audio):
    file = wav_of(tones(16000, 0.5), 16000)
    _, samples = read_audio([file[:-1001]])
    assert samples[0] == 8000 - 501


@pytest.mark.parametrize("count", [0, 1])
def test_hardly_any_samples(read_audio, count):
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setparams((1, 2, 16000, count, "NONE", ""))
        file.writeframes(b"\x00\x40" * count)
    audio, samples = read_audio([buffer.getvalue()])
    assert samples[0] == count and audio.numpy().sum() == count / 2


# --- Video ---


@pytest.mark.parametrize("size", [(300, 420), (40, 64), (700, 333)])
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_picture_is_seen_as_in_training(model, read_frames, size, kind, tmp_path):
    path = tmp_path / f"clip.{kind.lower()}"
    path.write_bytes(file_of(picture(*size), kind))
    stored = read_still(path, FORM.stored_as).frames * FORM.spec.num_frames
    key = tf.zeros([2], tf.int64)
    trained = jpeg.decode_and_crop(FORM.spec, tf.constant(stored), key)[None]
    served, present = read_frames([[path.read_bytes()]])
    assert present.numpy().tolist() == [1]
    assert np.abs(trained.numpy().astype(int) - served.numpy()).mean() < 0.5
    vectors = [
        model({"video": x}, training=False)["video_embedding"]
        for x in (trained, served)
    ]
    assert cosine(*vectors) > 0.9999


@pytest.mark.parametrize(
    ("mode", "kind"),
    [("L", "JPEG"), ("CMYK", "JPEG"), ("L", "PNG"), ("P", "PNG"), ("RGBA", "PNG")],
)
def test_pictures_of_other_colours(read_frames, mode, kind, tmp_path):
    image = picture(64, 96, mode)
    if mode == "RGBA":
        image.putalpha(picture(64, 96, "L"))
    path = tmp_path / f"clip.{kind.lower()}"
    path.write_bytes(file_of(image, kind))
    stored = read_still(path, FORM.stored_as).frames * 2
    key = tf.zeros([2], tf.int64)
    trained = jpeg.decode_and_crop(FORM.spec, tf.constant(stored), key).numpy()
    served, _ = read_frames([[path.read_bytes()]])
    assert np.abs(trained.astype(int) - served[0].numpy()).mean() < 2


def test_a_png_of_16_bits(read_frames):
    levels = np.linspace(0, 65535, 64 * 96).reshape(64, 96).astype("uint16")
    served, _ = read_frames([[file_of(Image.fromarray(levels), "PNG")]])
    wanted = levels.reshape(32, 2, 48, 2).mean((1, 3)) / 256
    assert np.abs(served[0, 0, ..., 0].numpy() - wanted).max() < 4


def test_one_pixel(read_frames):
    served, _ = read_frames([[file_of(Image.new("RGB", (1, 1), (200, 100, 0)), "PNG")]])
    assert np.abs(served[0].numpy().mean((0, 1, 2)) - (200, 100, 0)).max() < 3


def test_frames_are_spread_over_those_that_are_given(read_frames):
    files = [
        file_of(Image.new("RGB", (48, 32), (20 * i,) * 3), "PNG") for i in range(8)
    ]
    frames, present = read_frames([files, files[:2] + [b""] * 6, [b""] * 8])
    assert present.numpy().tolist() == [1, 1, 0]
    # The middles of halves: frames 2 and 6 of eight, as in evaluation.
    levels = frames.numpy().mean((2, 3, 4))
    np.testing.assert_allclose(levels, [[40, 120], [0, 20], [0, 0]], atol=2)


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        (b"GIF89a" + bytes(99), "neither a JPEG nor a PNG"),
        (b"\x89PNG\r\n\x1a\n", "neither a JPEG nor a PNG"),
        (file_of(picture(32, 48))[:-400], "Invalid JPEG|[Jj][Pp][Ee][Gg]"),
        (file_of(picture(32, 48), "PNG")[:-400], "PNG"),
    ],
)
def test_a_bad_picture_is_refused_with_the_reason(read_frames, file, reason):
    with pytest.raises(tf.errors.InvalidArgumentError, match=reason):
        read_frames([[file]])


def test_a_huge_picture_is_refused_by_its_header(read_frames):
    huge = bytearray(file_of(picture(8, 8), "PNG"))
    huge[16:24] = (20000).to_bytes(4, "big") * 2
    with pytest.raises(tf.errors.InvalidArgumentError, match="larger than"):
        read_frames([[bytes(huge)]])
