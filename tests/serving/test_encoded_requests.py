"""Files sent to an export through TensorFlow's C API: bad ones, odd ones, many.

What is read from a file is tested in test_export_files.py; here the loaded model has
to answer or refuse each request, and to answer the next one.
"""

import io
import resource
import struct
import zlib

import numpy as np
import pytest
import small_models
from PIL import Image

from tfavmae.serving import c_loader, signatures
from tfavmae.serving.export import export
from tfavmae.serving.warmup_files import encoded

NUM_SAMPLES = 3440  # 0.215 s
RATE = 16000


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    model = small_models.classifier("cav_mae")
    path = export(model, tmp_path_factory.mktemp("export") / "tiny")
    return c_loader.SavedModel(path)


def wav(samples, rate=RATE, bits=16, is_float=False):
    """A WAV file of float `(samples, channels)` in [-1, 1]."""
    samples = np.asarray(samples, "float32")
    samples = samples[:, None] if samples.ndim == 1 else samples
    channels, width = samples.shape[1], bits // 8
    if is_float:
        data = samples.astype("<f4").tobytes()
    else:
        steps = np.round(samples * (2 ** (bits - 1) - 1)).astype("<i4")
        data = steps.reshape(-1, 1).view("u1")[:, :width].tobytes()
    tag = 3 if is_float else 1
    header = struct.pack(
        "<HHIIHH", tag, channels, rate, rate * channels * width, channels * width, bits
    )
    chunks = b"fmt " + struct.pack("<I", 16) + header
    chunks += b"data" + struct.pack("<I", len(data)) + data
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks


def tone(rate=RATE, samples=NUM_SAMPLES, channels=1):
    times = np.arange(samples * rate // RATE) / rate
    return np.stack([0.5 * np.sin(2 * np.pi * 440 * times)] * channels, 1)


def file_of(image, kind="PNG"):
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def picture(mode="RGB", size=(8, 12)):
    levels = np.linspace(0, 255, size[0] * size[1] * 3).astype("uint8")
    return Image.fromarray(levels.reshape(size[1], size[0], 3)).convert(mode)


def png_of_16_bits():
    levels = np.linspace(0, 65535, 96).reshape(12, 8).astype("uint16")
    return file_of(Image.fromarray(levels))


def png(width, height, rows):
    """A PNG file of grey whose header and pixels need not fit each other."""

    def chunk(name, content):
        crc = struct.pack(">I", zlib.crc32(name + content))
        return struct.pack(">I", len(content)) + name + content + crc

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    data = zlib.compress(bytes(rows * (width + 1)), 9)
    parts = chunk(b"IHDR", header), chunk(b"IDAT", data), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def objects(rows):
    """Bytes, in lists of any depth, as the loader takes them."""
    array = np.array(rows, object)
    return array if array.ndim else array[None]


def ask(loaded, audio=b"", video=b"", name="classify_encoded"):
    """The answer about one clip; without a file, it lacks the modality."""
    inputs = {"audio_bytes": objects([audio]), "video_bytes": objects([[video]])}
    wanted = loaded.signatures[name].inputs
    return loaded.run(name, {k: inputs[k] for k in wanted})


def check_alive(loaded):
    """The model answers a good request as if nothing had been."""
    found = ask(loaded, wav(tone()), file_of(picture()))
    assert found["logits"].shape == (1, 3) and np.isfinite(found["logits"]).all()


# --- Odd, and answered ---

HEARD = {
    "44.1 kHz": wav(tone(44100), 44100),
    "48 kHz": wav(tone(48000), 48000),
    "stereo": wav(tone(channels=2)),
    "three channels": wav(tone(channels=3)),
    "24 bits": wav(tone(), bits=24),
    "24 bits, stereo, 44.1 kHz": wav(tone(44100, channels=2), 44100, 24),
    "floats": wav(tone(), bits=32, is_float=True),
}


@pytest.mark.parametrize("case", sorted(HEARD))
def test_another_kind_of_wav_is_heard_as_the_same_tone(loaded, case):
    wanted = ask(loaded, wav(tone()), name="embed_audio_encoded")["audio_embedding"]
    found = ask(loaded, HEARD[case], name="embed_audio_encoded")["audio_embedding"]
    assert (found * wanted).sum() > 0.999


SEEN = {
    "grey JPEG": file_of(picture("L"), "JPEG"),
    "CMYK JPEG": file_of(picture("CMYK"), "JPEG"),
    "grey PNG": file_of(picture("L")),
    "palette PNG": file_of(picture("P")),
    "transparent PNG": file_of(picture("RGBA")),
    "black and white PNG": file_of(picture("1")),
    "PNG of 16 bits": png_of_16_bits(),
    "one pixel": file_of(picture(size=(1, 1))),
    "a row of pixels": file_of(picture(size=(4000, 1))),
    "more pixels than its header says": png(8, 12, rows=50_000),
}


@pytest.mark.parametrize("case", sorted(SEEN))
def test_another_kind_of_picture_is_seen(loaded, case):
    found = ask(loaded, video=SEEN[case], name="embed_video_encoded")
    assert np.isfinite(found["video_embedding"]).all()
    np.testing.assert_allclose(np.linalg.norm(found["video_embedding"]), 1, atol=1e-5)


@pytest.mark.parametrize("samples", [0, 1])
def test_hardly_any_audio(loaded, samples):
    """None at all is a clip without audio; one sample is a clip that is padded."""
    seen = file_of(picture())
    alone = ask(loaded, b"", seen)["logits"]
    found = ask(loaded, wav(np.full(samples, 0.5)), seen)["logits"]
    assert np.isfinite(found).all()
    assert np.array_equal(found, alone) == (samples == 0)


def test_files_of_several_lengths_share_a_batch(loaded):
    files = [wav(tone(samples=n)) for n in (200, 1600, NUM_SAMPLES)]
    files.append(wav(tone(8000, 1600), 8000))
    together = loaded.run("embed_audio_encoded", {"audio_bytes": objects(files)})
    for row, file in enumerate(files):
        alone = ask(loaded, file, name="embed_audio_encoded")["audio_embedding"]
        value = together["audio_embedding"][row]
        np.testing.assert_allclose(value, alone[0], atol=1e-5)


def test_no_files_many_and_too_many(loaded):
    one = encoded("audio", tone().T.astype("float32"), RATE)
    for count in (0, signatures.MAX_CLIPS):
        inputs = {"audio_bytes": np.repeat(one, count)}
        found = loaded.run("embed_audio_encoded", inputs)["audio_embedding"]
        assert found.shape == (count, 16)
        if count:
            np.testing.assert_allclose(found, found[:1].repeat(count, 0), atol=1e-5)
    with pytest.raises(c_loader.LoaderError, match="at most 1024 clips"):
        loaded.run("embed_audio_encoded", {"audio_bytes": np.repeat(one, 10_000)})
    video = np.zeros((10_000, 1, 12, 8, 3), "uint8")
    with pytest.raises(c_loader.LoaderError, match="at most 1024 clips"):
        loaded.run("embed_video", {"video": video})
    check_alive(loaded)


# --- Refused ---

GOOD_JPEG = file_of(picture(), "JPEG")
BAD_AUDIO = {
    "NaN": (wav(np.full(100, np.nan), bits=32, is_float=True), "must be finite"),
    "infinity": (wav(np.full(9, np.inf), bits=32, is_float=True), "must be finite"),
    "10 minutes": (wav(np.zeros(RATE * 600)), "longer than 0.215 s"),
    "an empty file of another kind": (b"\0", "not a WAV file"),
    "a header alone": (wav([])[:20], "without `fmt ` or `data`"),
    "192 kHz": (wav(tone(), 192_000), "not 8000 to 48000 Hz"),
    "12 bits": (wav(tone(), bits=16)[:34] + b"\x0c" + wav(tone())[35:], "neither PCM"),
}
BAD_VIDEO = {
    "a JPEG that was cut short": (GOOD_JPEG[:-200], "[Jj][Pp][Ee][Gg]"),
    "a PNG that was cut short": (file_of(picture())[:-60], "PNG"),
    "a PNG without pixels": (png(8, 12, rows=0), "PNG"),
    "20,000 x 20,000 by its header": (png(20_000, 20_000, rows=1), "larger than"),
    "20,000 x 20,000": (png(20_000, 20_000, rows=20_000), "larger than"),
    "2^31 x 2^31": (png(2**31 - 1, 2**31 - 1, rows=1), "larger than"),
    "a JPEG of 65,500 x 65,500": (
        GOOD_JPEG.replace(b"\x00\x0c\x00\x08\x03", b"\xff\xdc\xff\xdc\x03"),
        "larger than",
    ),
    "no pixels": (png(0, 12, rows=12), "larger than|PNG"),
    "another format": (b"GIF89a" + bytes(99), "neither a JPEG nor a PNG"),
    "text": (b"<svg/>" * 20, "neither a JPEG nor a PNG"),
}


@pytest.mark.parametrize("case", sorted(BAD_AUDIO))
def test_a_bad_wav_file_is_refused_and_the_model_lives(loaded, case):
    file, reason = BAD_AUDIO[case]
    with pytest.raises(c_loader.LoaderError, match=reason):
        ask(loaded, file, file_of(picture()))
    check_alive(loaded)


@pytest.mark.parametrize("case", sorted(BAD_VIDEO))
def test_a_bad_picture_is_refused_and_the_model_lives(loaded, case):
    file, reason = BAD_VIDEO[case]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(c_loader.LoaderError, match=reason):
        ask(loaded, wav(tone()), file)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 200 * 2**10  # KiB; decoded, the bomb has 1.2 GB
    check_alive(loaded)


def test_a_bad_file_refuses_its_batch(loaded):
    files = objects([wav(tone()), b"RIFX", wav(tone())])
    with pytest.raises(c_loader.LoaderError, match="not a WAV file"):
        loaded.run("embed_audio_encoded", {"audio_bytes": files})


BAD_TENSORS = {
    "rank of the audio": ({"audio_bytes": objects([[b""]])}, "[Rr]ank|[Ss]hape|dim"),
    "rank of the video": ({"video_bytes": objects([b""])}, "[Rr]ank|[Ss]hape|dim"),
    "dtype": ({"audio_bytes": np.zeros(1, "float32")}, "float|string"),
    "number of clips": ({"audio_bytes": objects([b"", b""])}, "same number of clips"),
}


@pytest.mark.parametrize("case", sorted(BAD_TENSORS))
def test_other_tensors_are_refused(loaded, case):
    changed, reason = BAD_TENSORS[case]
    good = {
        "audio_bytes": objects([wav(tone())]),
        "video_bytes": objects([[file_of(picture())]]),
    }
    with pytest.raises(c_loader.LoaderError, match=reason):
        loaded.run("classify_encoded", good | changed)
    check_alive(loaded)


def test_nothing_at_all_is_refused(loaded):
    with pytest.raises(c_loader.LoaderError, match="must have audio or video"):
        ask(loaded)
    check_alive(loaded)
