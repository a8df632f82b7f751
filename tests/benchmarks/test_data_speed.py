"""The data benchmarks run on toy data, and their parts do what they say."""

import importlib.util
import pathlib

import numpy as np
import pytest

FOLDER = pathlib.Path(__file__).resolve().parents[2] / "benchmarks"


def script(name):
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    return script("films").write_folder(tmp_path_factory.mktemp("films"), 3, 1, 1)


def test_films_are_what_they_claim(films):
    from tfavmae.media import decode

    paths = sorted(films.glob("*.mp4"))
    assert len(paths) == 3 and paths[0].samefile(paths[2])
    info = decode.probe(paths[0])
    assert (info.width, info.height, info.video_codec) == (640, 360, "h264")
    assert (info.frame_rate, info.sample_rate_hz, info.num_channels) == (30, 44100, 2)
    assert info.duration_seconds == pytest.approx(1.0, abs=0.05)
    # 30 frames and 1 s of audio in blocks of 1024 samples, and the encoder's delay.
    assert 30 + 43 < script("data_build").decode_film(paths[0]) <= 30 + 46


def test_the_usual_loaders_filter_banks_are_kaldis():
    from tfavmae.layers.spectrogram import LogMelSpectrogram

    benchmark = script("input_pipeline")
    waveform = np.random.default_rng(0).normal(0, 0.1, 16000).astype("float32")
    waveform -= waveform.mean()
    for bins, banks in (
        (128, benchmark.NumpyFilterBanks()),
        (80, benchmark.kaldi_filter_banks),
    ):
        layer = LogMelSpectrogram(98, bins)
        ours = np.asarray(layer(waveform[None]))[0]
        assert np.abs(banks(waveform) - ours).max() < 1e-3


def test_the_usual_loader_collates_what_models_take(films, tmp_path):
    from tfavmae.media import decode

    benchmark = script("input_pipeline")
    path = sorted(films.glob("*.mp4"))[0]
    clip = decode.decode(path, frame_rate=10.0, shorter_side=256)
    benchmark.store_loose(tmp_path, [clip], 2)
    form = {"num_frames": 4, "stored_rate": 10.0}
    batch = next(
        benchmark.usual_batches(tmp_path, form, benchmark.NumpyFilterBanks(), 3)
    )
    assert batch["audio"].shape == (3, 1024, 128)
    assert batch["video"].shape == (3, 4, 224, 224, 3)
    assert batch["audio"].dtype == batch["video"].dtype == np.float32


@pytest.mark.slow
def test_the_tables(tmp_path, capsys):
    tiny = ["--films=3", "--distinct=1", "--seconds=1", "--repeats=1", "--more=2"]
    script("data_build").main([*tiny, "--workers=1", f"--folder={tmp_path}"])
    out = capsys.readouterr().out
    assert "build over decoding" in out and "of 6 films" in out
    tiny = ["--clips=4", "--distinct=1", "--batch=2", "--batches=2"]
    script("input_pipeline").main([*tiny, "--usual-batches=1"])
    out = capsys.readouterr().out
    assert out.count("over usual") == 4
