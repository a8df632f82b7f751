"""tensorflow-io decodes flac, mp3 and ogg inside the graph, to PyAV's samples."""

from fractions import Fraction

import av
import media_files
import numpy as np
import pytest
import tensorflow as tf

pytestmark = pytest.mark.io


def sound(times):
    """A rising tone: any shift in time would show."""
    return 0.5 * np.sin(2 * np.pi * (300 + 400 * times) * times)[None]


def write_vorbis(path, seconds=2.0, rate=44100):
    """FFmpeg's own encoder, which is called experimental and knows stereo only."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("vorbis", rate=rate)
        stream.layout, stream.options = "stereo", {"strict": "experimental"}
        times = np.arange(round(seconds * rate)) / rate
        samples = np.repeat(sound(times), 2, axis=0).astype(np.float32)
        for first in range(0, times.size, 1024):
            part = np.ascontiguousarray(samples[:, first : first + 1024])
            frame = av.AudioFrame.from_ndarray(part, format="fltp", layout="stereo")
            frame.sample_rate = rate
            frame.pts, frame.time_base = first, Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def decoded_by_pyav(path):
    """float32 `(samples,)` in [-1, 1] of the first channel."""
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray() for frame in container.decode(audio=0)]
    samples = np.concatenate([frame[0].ravel() for frame in frames])
    if samples.dtype == np.int16:
        return samples / np.float32(2**15)
    if samples.dtype == np.int32:
        return samples / np.float32(2**31)
    return samples.astype(np.float32)


def decode_in_graph(kind):
    import tensorflow_io as tfio

    decode = {
        "flac": lambda content: tfio.audio.decode_flac(content, dtype=tf.int16),
        "mp3": tfio.audio.decode_mp3,
        "ogg": tfio.audio.decode_vorbis,
    }[kind]

    def samples(path):
        decoded = decode(tf.io.read_file(path))[:, 0]
        scale = 2.0**15 if decoded.dtype == tf.int16 else 1.0
        return tf.cast(decoded, tf.float32) / scale

    return samples


def best_lag(first, second, reach=2500):
    """Samples that the second lags behind."""
    size = 2 ** int(np.ceil(np.log2(len(first) + len(second))))
    spectrum = np.fft.rfft(second, size) * np.fft.rfft(first, size).conj()
    correlation = np.fft.irfft(spectrum)
    lags = np.concatenate([np.arange(reach), np.arange(-reach, 0)])
    return int(lags[correlation[lags].argmax()])


@pytest.mark.parametrize(
    "kind, codec, tolerance, longest_lag",
    [
        ("flac", "flac", 0.0, 0),
        # tfio keeps the encoder's delay, which PyAV cuts off.
        ("mp3", "libmp3lame", 2e-3, 1105),
        ("ogg", "vorbis", 2e-3, 0),
    ],
)
def test_samples_are_pyavs(tmp_path, kind, codec, tolerance, longest_lag):
    path = tmp_path / f"tone.{kind}"
    if codec == "vorbis":
        write_vorbis(path)
    else:
        media_files.write_clip(path, 2.0, video=None, audio=codec, sound=sound)
    dataset = tf.data.Dataset.from_tensors(str(path)).map(decode_in_graph(kind))
    (ours,) = dataset.as_numpy_iterator()
    theirs = decoded_by_pyav(path)
    lag = best_lag(theirs, ours)
    assert 0 <= lag <= longest_lag
    ours = ours[lag:]
    size = min(len(ours), len(theirs))
    assert size > 1.9 * 44100
    assert np.abs(ours[:size] - theirs[:size]).max() <= tolerance
