"""The log-mel front end against Kaldi's own code and TensorFlow's, in any precision."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfavmae.layers import exact_matmul, spectrogram
from tfavmae.layers.exact_matmul import BFLOAT16, TF32
from tfavmae.layers.spectrogram import LogMelSpectrogram

RATE = 16000


def log_mel(waveforms, num_samples=None, **options):
    options = {"num_frames": 98, "num_mel_bins": 128, **options}
    return np.asarray(LogMelSpectrogram(**options)(waveforms, num_samples))


def signals():
    """Noise, a tone, and speech's range of loudness; 1 s each, float in [-1, 1]."""
    generator = np.random.default_rng(0)
    times = np.arange(RATE) / RATE
    noise = generator.normal(0, 0.1, RATE)
    sweep = 0.5 * np.sin(2 * np.pi * (200 + 3000 * times) * times)
    bursts = noise * np.exp(-8 * (times % 0.25)) + 1e-4 * generator.normal(size=RATE)
    return np.stack([noise, sweep, bursts]).astype("float32")


# --- Kaldi ----------------------------------------------------------------------------


def kaldi(waveform, num_mel_bins):
    import kaldi_native_fbank

    options = kaldi_native_fbank.FbankOptions()
    options.frame_opts.dither = 0
    options.frame_opts.samp_freq = RATE
    options.frame_opts.window_type = "hanning"
    options.mel_opts.num_bins = num_mel_bins
    options.use_energy = False
    computer = kaldi_native_fbank.OnlineFbank(options)
    computer.accept_waveform(RATE, waveform.tolist())
    computer.input_finished()
    return np.stack([computer.get_frame(i) for i in range(computer.num_frames_ready)])


@pytest.mark.parametrize("num_mel_bins", [80, 64])
@pytest.mark.parametrize("seed", range(4))
def test_kaldis_own_filter_banks(num_mel_bins, seed):
    generator = np.random.default_rng(seed)
    size = int(generator.integers(5000, 20000))
    waveform = generator.normal(0, 0.1, size) * generator.uniform(0, 1, size)
    waveform = np.float32(waveform - waveform.mean())
    theirs = kaldi(waveform, num_mel_bins)
    ours = log_mel(waveform[None], num_frames=len(theirs), num_mel_bins=num_mel_bins)
    difference = np.abs(ours[0] - theirs)
    assert difference.max() < 1e-3 and difference.mean() < 2e-5


def test_frames_behind_the_clip_are_zero_before_normalisation():
    waveform = np.zeros((2, RATE), "float32")
    waveform[:, :8000] = signals()[0, :8000]
    ours = log_mel(waveform, np.array([8000, RATE]), num_frames=120)
    whole = 1 + (8000 - 400) // 160
    assert not ours[0, whole:].any() and not ours[1, 98:].any()
    assert (ours[1, 60:98] == np.log(np.float32(spectrogram.FLOOR))).all()
    alone = log_mel(waveform[:1, :8000], num_frames=120)
    np.testing.assert_allclose(ours[0], alone[0], atol=2e-4)


def test_int16_is_float():
    integers = (signals() * 20000).astype("int16")
    floats = integers.astype("float32") / 32768
    np.testing.assert_allclose(log_mel(integers), log_mel(floats), atol=1e-6)


# --- AV-MAE ---------------------------------------------------------------------------


def test_the_av_mae_variant_is_tensorflows_log_mel():
    waveforms = signals()
    stft = tf.signal.stft(
        waveforms, 400, 160, 512, tf.signal.hamming_window, pad_end=True
    )
    banks = tf.signal.linear_to_mel_weight_matrix(128, 257, RATE, 80.0, 7600.0)
    theirs = tf.math.log(tf.abs(stft) @ banks + 1e-6)
    ours = log_mel(waveforms, num_frames=100, variant="av_mae")
    assert ours.shape == theirs.shape == (3, 100, 128)
    np.testing.assert_allclose(ours, theirs, atol=2e-3)
    assert np.abs(ours - theirs).mean() < 2e-5
    longer = log_mel(waveforms, num_frames=110, variant="av_mae")
    np.testing.assert_allclose(longer[:, 100:], np.log(1e-6), rtol=1e-6)


# --- names ----------------------------------------------------------------------------


def test_published_statistics_by_name():
    assert spectrogram.statistics("cav_mae_audioset") == (-5.081, 4.4849)
    assert spectrogram.statistics("mavil_vggsound") == (-5.189, 3.26)  # table 9
    doubled = (-6.6268077, 2 * 5.358466)  # Audio-MAE's code
    assert spectrogram.statistics("audio_mae_esc50") == doubled
    with pytest.raises(ValueError, match=r"named 'audioset'. Known: .*cav_mae_"):
        spectrogram.statistics("audioset")
    with pytest.raises(ValueError, match="`variant` must be one of kaldi, av_mae"):
        LogMelSpectrogram(98, 128, variant="mel")


# --- precision ------------------------------------------------------------------------


def rounding_matmul(split):
    """Emulates a device that rounds the factors of a matmul."""

    def matmul(x, matrix):
        if x.dtype == "float64":
            return tf.matmul(x, matrix)  # no CPU and no GPU rounds these
        x, matrix = (exact_matmul.rounded(a, split.num_bits) for a in (x, matrix))
        return tf.matmul(x, matrix)

    return matmul


SPLITS = [TF32, BFLOAT16]


@pytest.mark.parametrize("split", SPLITS, ids=["tf32", "bfloat16"])
def test_the_guard_holds_where_factors_are_rounded(monkeypatch, split):
    exact = log_mel(signals())
    monkeypatch.setattr(exact_matmul, "_matmul", rounding_matmul(split))
    unguarded = np.abs(log_mel(signals()) - exact)
    assert unguarded.max() > 0.3
    monkeypatch.setattr(exact_matmul, "_needed_split", lambda: split)
    guarded = np.abs(log_mel(signals()) - exact)
    broadband, tolerance = guarded[[0, 2]], {BFLOAT16: 1e-2}.get(split, 1e-3)
    assert broadband.max() < tolerance and guarded.max() < 2e-2
    assert guarded.mean() < 1e-3


@pytest.mark.parametrize("variant", ["kaldi", "av_mae"])
def test_a_graph_that_travels_is_exact_where_factors_are_rounded(monkeypatch, variant):
    exact = log_mel(signals(), variant=variant)
    monkeypatch.setattr(exact_matmul, "_matmul", rounding_matmul(TF32))
    with exact_matmul.portable():
        guarded = np.abs(log_mel(signals(), variant=variant) - exact)
    # What plain float32 itself is off by.
    assert guarded[[0, 2]].max() < 1e-3 and guarded.max() < 2e-2
    assert guarded.mean() < 1e-4


@pytest.mark.parametrize("split", SPLITS, ids=["tf32", "bfloat16"])
def test_a_matmul_in_parts_is_the_matmul(split):
    generator = np.random.default_rng(1)
    scales = 10.0 ** generator.uniform(-6, 6, (50, 1))
    x = np.float32(generator.normal(size=(50, 400)) * scales)
    x[7] = 0.0
    matrix = generator.normal(size=(400, 30))
    expected = x.astype("float64") @ matrix
    ours = exact_matmul.ExactMatmul(matrix)._in_parts(x, split).numpy()
    error = np.abs(ours - expected) / np.maximum(np.abs(x).max(1, keepdims=True), 1e-30)
    assert error.max() < 1e-4  # sums of 400 products of order 1


def test_a_cpu_pays_for_no_guard_unless_the_graph_is_to_travel():
    assert exact_matmul._needed_split() is None
    layer = LogMelSpectrogram(98, 128)

    def matmuls():
        graph = tf.function(lambda x: layer(x)).get_concrete_function(
            tf.TensorSpec((None, RATE))
        )
        found = [op for op in graph.graph.get_operations() if "MatMul" in op.type]
        return [op.outputs[0].dtype for op in found]

    assert matmuls() == 2 * [tf.float32]
    with exact_matmul.portable():
        assert matmuls() == [tf.float64]  # and an FFT


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_it_is_float32_under_any_policy(policy):
    exact = log_mel(signals())
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        np.testing.assert_array_equal(log_mel(signals()), exact)
    finally:
        keras.config.set_dtype_policy(before)


# --- elsewhere ------------------------------------------------------------------------

ON_JAX = """
import sys
import numpy as np
from tfavmae.layers.spectrogram import LogMelSpectrogram
waveforms, path = np.load(sys.argv[1]), sys.argv[2]
kaldi = LogMelSpectrogram(98, 128)(waveforms)
av_mae = LogMelSpectrogram(100, 128, variant="av_mae")(waveforms)
np.savez(path, kaldi=np.asarray(kaldi), av_mae=np.asarray(av_mae))
assert "tensorflow" not in sys.modules
"""


def test_the_same_on_jax(tmp_path, fresh_python):
    np.save(tmp_path / "in.npy", signals())
    fresh_python(
        ON_JAX,
        tmp_path / "in.npy",
        tmp_path / "out.npz",
        environment={"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"},
    )
    theirs = np.load(tmp_path / "out.npz")
    for name, frames in (("kaldi", 98), ("av_mae", 100)):
        ours = log_mel(signals(), num_frames=frames, variant=name)
        difference = np.abs(ours - theirs[name])
        assert difference.mean() < 1e-4 and difference[[0, 2]].max() < 1e-3
        # Of a pure tone, bins far from it hold the rounding of its 60 dB; how much
        # differs with the processor's vectors (0.029 without AVX-512).
        assert difference.max() < 5e-2


@pytest.mark.parametrize("is_portable", [False, True])
def test_the_same_inside_a_saved_model(tmp_path, is_portable):
    layer = LogMelSpectrogram(98, 128)
    module = tf.Module()
    module.serve = tf.function(
        lambda x: layer(x), input_signature=[tf.TensorSpec((None, RATE), tf.float32)]
    )
    if is_portable:
        with exact_matmul.portable():
            tf.saved_model.save(module, str(tmp_path))
    else:
        tf.saved_model.save(module, str(tmp_path))
    loaded = tf.saved_model.load(str(tmp_path))
    difference = np.abs(loaded.serve(signals()) - log_mel(signals()))
    assert difference[[0, 2]].max() < 1e-3 and difference.max() < 2e-2


def test_config_round_trip():
    layer = LogMelSpectrogram(64, 32, mean=-4.0, std=3.0, variant="av_mae")
    config = keras.saving.serialize_keras_object(layer)
    again = keras.saving.deserialize_keras_object(config)
    np.testing.assert_array_equal(layer(signals()), again(signals()))
