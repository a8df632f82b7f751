"""`reconstruct`: clips of media files under any mask, and errors of a split."""

import json
import wave

import media_files
import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    media_files.write_clip(
        folder / "own.mp4", seconds=2.5, size=(80, 48), sound=media_files.sine(500.0)
    )
    Image.new("RGB", (64, 64), (200, 40, 40)).save(folder / "still.png")
    return folder


def test_pictures_sounds_and_a_page(shapes_run, files, cli, tmp_path):
    page, out = tmp_path / "page.html", tmp_path / "out"
    done = cli(
        *("reconstruct", files / "own.mp4", "--workdir", shapes_run),
        *("--mask", "time,freq,chunk", "--ratio", "0.5", "--clips", 2),
        *("--html", page, "--output", out),
    )
    assert done.status == 0, done
    folders = sorted(path.name for path in out.iterdir())
    assert len(folders) == 6  # two windows under three masks
    one = out / "own_mp4_0_00_00_time_audio_50_video_50"
    assert {path.name for path in one.iterdir()} == {
        *(f"{m}_{k}.png" for m in ("audio", "video") for k in ("original", "visible")),
        *("audio_reconstructed.png", "video_reconstructed.png"),
        *("original.wav", "reconstructed.wav"),
    }
    visible = np.asarray(Image.open(one / "audio_visible.png"))
    # Whole times are hidden: 3 of 6 steps of 16 frames, from top to bottom.
    columns = (visible[..., 3] == 0).all(0)
    assert columns.sum() == 48 and columns.reshape(6, 16).all(1).sum() == 3
    chunk = out / "own_mp4_0_00_00_chunk_audio_50_video_50"
    hidden = np.asarray(Image.open(chunk / "audio_visible.png"))[..., 3] == 0
    steps = hidden.all(0).reshape(6, 16).all(1)
    assert steps.sum() == 3
    assert sum(abs(np.diff(np.append(steps, steps[0]).astype(int)))) == 2  # one gap
    with wave.open(str(one / "reconstructed.wav")) as sound:
        assert sound.getframerate() == 16000 and sound.getnframes() > 14000
    text = page.read_text()
    assert text.count("<audio controls") == 12
    assert "mean squared error" in text and "mean and the deviation" in text


def test_one_modality_from_the_other(shapes_run, files, cli, tmp_path):
    done = cli(
        *("reconstruct", files / "own.mp4", "--workdir", shapes_run),
        *("--audio-ratio", 1, "--video-ratio", 0, "--output", tmp_path),
        "--json",
    )
    assert done.status == 0, done
    (clip,) = json.loads(done.out)
    assert clip["audio"]["hidden"] == 1.0 and clip["audio"]["mse"] > 0
    assert clip["video"] == {"hidden": 0.0, "mse": None}
    (folder,) = tmp_path.iterdir()
    audio = np.asarray(Image.open(folder / "audio_visible.png"))
    video = np.asarray(Image.open(folder / "video_visible.png"))
    assert (audio[..., 3] == 0).all() and (video[..., 3] == 255).all()


def test_errors_of_a_split_by_strategy_and_ratio(shapes_run, cli, tmp_path):
    page = tmp_path / "page.html"
    masks = ("--mask", "uniform,tf", "--ratio", "0.25,0.75", "--clips", 5)
    done = cli("reconstruct", "--workdir", shapes_run, *masks, "--html", page)
    assert done.status == 0, done
    stored = json.loads((shapes_run / "reconstruction_validation.json").read_text())
    assert stored["num_clips"] == 5 and stored["is_normalized"]
    kinds = [(one["strategy"], one["ratios"]["audio"]) for one in stored["masks"]]
    assert kinds == [
        ("uniform", 0.25),
        ("uniform", 0.75),
        ("time_frequency", 0.25),
        ("time_frequency", 0.75),
    ]
    for one in stored["masks"]:
        for m in ("audio", "video"):
            error = one["errors"][m]
            assert 0.3 < error["low"] <= error["value"] <= error["high"] < 5
    text = page.read_text()
    assert text.count('<svg class="chart"') == 2 and "time-frequency" in text
    again = cli("reconstruct", "--workdir", shapes_run, *masks)
    assert again.status == 0
    assert stored == json.loads(
        (shapes_run / "reconstruction_validation.json").read_text()
    )


def test_a_file_without_one_modality_is_masked_in_the_other(shapes_run, files, cli):
    still = files / "still.png"
    done = cli("reconstruct", still, "--workdir", shapes_run, "--ratio", 0.5)
    assert done.status == 0 and "50 %" in done.out
    whole = ("--video-ratio", 1)
    done = cli("reconstruct", still, "--workdir", shapes_run, *whole)
    assert done.status == 2 and "One token at least must be visible" in done.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--ratio", "1.5"), "--ratio must be in [0, 1]; received '1.5'"),
        (("--ratio", "a,0.5"), "--ratio must be in [0, 1]; received 'a'"),
        (("--mask", "tme"), "no mask 'tme'"),
        (("--ratio", "1"), "One token at least must be visible"),
        (("--ratio", "0.99"), "lower it"),
        (("--audio-ratio", "-1"), "--audio-ratio must be in [0, 1]"),
    ],
)
def test_masks_that_cannot_be_are_refused(words, message, shapes_run, files, cli):
    done = cli("reconstruct", files / "own.mp4", "--workdir", shapes_run, *words)
    assert done.status == 2 and message in done.err
    assert done.err.count("\n") == 1
