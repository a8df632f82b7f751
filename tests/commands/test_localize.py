"""`localize`: maps of media files, and figures on known positions."""

import json

import media_files
import numpy as np
import pytest
from PIL import Image

import tfavmae
from tfavmae.media.decode import decode, probe
from tfavmae.tasks import heat_maps


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    path = tmp_path_factory.mktemp("videos") / "own.mp4"
    media_files.write_clip(
        path, seconds=2.5, size=(80, 48), sound=media_files.sine(500.0)
    )
    return path


def test_figures_are_written_with_the_box_beside_them(shapes_run, cli, tmp_path):
    page = tmp_path / "page.html"
    done = cli("localize", "--workdir", shapes_run, "--html", page)
    assert done.status == 0, done
    stored = json.loads((shapes_run / "localization_validation.json").read_text())
    assert stored["num_clips"] + stored["num_left_out"] == 15
    assert stored["num_left_out"] >= 1
    assert set(stored["predictions"]) == {
        *("map_range", "map_median", "relative_range", "relative_median"),
        "centre_box",
    }
    for one in stored["predictions"].values():
        assert 0 <= one["success"]["value"] <= 1 and 0 < one["auc"]["value"] <= 1
    assert "box in the centre" in done.out and "cIoU@0.5" in done.out
    text = page.read_text()
    assert "cIoU@0.5" in text and text.count('class="pair"') == 8


def test_known_positions_are_those_of_the_frame_that_was_shown(shapes_run):
    """The object is brighter than the ground where the box is: it was found there."""
    run = tfavmae.load(shapes_run)
    split = run.open_split()
    from tfavmae.tasks import localization

    found = localization.measured_maps(run, split)
    frames = np.concatenate([x["video"].numpy() for x in run.batches(split)])
    inside, outside = [], []
    for index, truth in zip(found["example_index"], found["truth"] > 0, strict=True):
        frame = frames[index, 0].astype(float)
        ground = np.median(frame.reshape(-1, 3), axis=0)
        difference = np.abs(frame - ground).sum(-1)
        inside.append(difference[truth].mean())
        outside.append(difference[~truth].mean())
    assert np.mean(np.array(inside) > np.array(outside)) >= 0.9


def test_a_film_and_a_picture_show_the_file_under_its_map(
    shapes_run, video, cli, tmp_path
):
    film, picture = tmp_path / "map.mp4", tmp_path / "map.png"
    page = tmp_path / "page.html"
    done = cli("localize", video, "--workdir", shapes_run, "--output", film)
    assert done.status == 0, done
    info = probe(film)
    assert info.has_audio and (info.width, info.height) == (80, 48)
    assert info.duration_seconds == pytest.approx(2.5, abs=0.1)
    plain, painted = decode(video, frame_rate=5.0), decode(film, frame_rate=5.0)
    assert len(painted.frames) == pytest.approx(len(plain.frames), abs=1)
    assert np.abs(painted.audio).mean() > 0.5 * np.abs(plain.audio).mean()
    done = cli(
        *("localize", video, "--workdir", shapes_run, "--relative"),
        *("--output", picture, "--html", page),
    )
    assert done.status == 0, done
    pixels = np.asarray(Image.open(picture))
    assert pixels.shape == (244, 800, 3)  # two frames of 5:3, 240 high, and a gap
    left, right = pixels[:240, :400].astype(int), pixels[:240, 400:].astype(int)
    # The model reads a square: what is beside it is dark, not painted.
    assert np.abs(right[:, 180:220] - left[:, 180:220]).mean() > 10
    assert right[:, :40].sum() == pytest.approx(0.4 * left[:, :40].sum(), rel=0.05)
    assert page.read_text().count('class="pair"') == 1


@pytest.mark.slow
def test_a_map_of_each_stored_frame_for_a_model_of_one(shapes_run, video):
    run = tfavmae.load(shapes_run)
    with run.open_files([video]) as clips:
        rows = np.arange(clips.split.num_examples)
        windows = heat_maps.window_maps(run, clips.split, rows)
        again = heat_maps.heat_maps(run, clips.split, indices=rows)
    assert [len(w.maps) for w in windows] == [8, 8, 8]
    np.testing.assert_allclose(windows[0].times, (np.arange(8) + 0.5) / 8)
    # The frame in the middle of the window is what one view shows.
    np.testing.assert_allclose(windows[0].maps[4], again["video_map"][0, 0], atol=1e-5)
    top, left, height, width = windows[0].part
    assert (top, height) == (0, 1) and width == pytest.approx(0.6, abs=0.02)
    assert left == pytest.approx(0.2, abs=0.02)


def test_files_that_have_no_map_are_named(shapes_run, video, cli, tmp_path):
    still = tmp_path / "still.png"
    Image.new("RGB", (64, 64)).save(still)
    done = cli("localize", still, video, "--workdir", shapes_run, "--json")
    assert done.status == 0 and f"skipped {still}: has no audio" in done.err
    found = json.loads(done.out)
    assert found[0]["file"] == str(video) and found[0]["start_seconds"] == 0.0
    assert all(-1 <= x["fit"] <= 1 and 0 <= min(x["peak"]) <= 1 for x in found)
    done = cli("localize", still, "--workdir", shapes_run)
    assert done.status == 2 and "none of the files has both" in done.err
    film = ("--output", tmp_path / "x.mp4")
    other = tmp_path / "other.mp4"
    other.write_bytes(video.read_bytes())
    done = cli("localize", video, other, "--workdir", shapes_run, *film)
    assert done.status == 2 and "a film shows one file; received 2" in done.err
    done = cli("localize", video, "--workdir", shapes_run, "--output", "x.gif")
    assert done.status == 2 and ".png or .mp4" in done.err


def test_a_set_without_positions_is_refused(shapes_run, cli, quick_free_set):
    data = ("--set", f"data.dataset={quick_free_set}", "--split", "fold_1")
    done = cli("localize", "--workdir", shapes_run, *data)
    assert done.status == 2 and "does not say where its sound sources are" in done.err


@pytest.fixture
def quick_free_set(tmp_path):
    import tone_sets

    tone_sets.build(tmp_path)
    return tmp_path / "bells" / "1.0.0"
