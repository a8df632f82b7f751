"""The signature `reconstruct`: seeds, ratios, and what is refused."""

import json

import numpy as np
import pytest
import small_models

from tfavmae.errors import UserError
from tfavmae.serving import c_loader, reconstruction
from tfavmae.serving.export import export

# Of 15 tokens of audio and 6 of video, the model is trained on 0.6 and 0.5.
GRID = {"audio_ratio": (0.5, 0.6, 0.75, 0.9), "video_ratio": (0.5, 0.75)}


@pytest.fixture(scope="module")
def model():
    return small_models.pretraining("cav_mae")


@pytest.fixture(scope="module")
def path(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("export") / "tiny"
    return export(model, folder, with_decoder=True)


@pytest.fixture(scope="module")
def loaded(path):
    return c_loader.SavedModel(path)


def request(count=3, **settings):
    rng = np.random.default_rng(0)
    settings = {"seed": 7, "audio_ratio": 0.6, "video_ratio": 0.5} | settings
    dtypes = {"seed": "int32"}
    return {
        "audio": rng.uniform(-1, 1, (count, 3440)).astype("float32"),
        "audio_samples": np.full(count, 3440, "int32"),
        "video": rng.integers(0, 256, (count, 1, 12, 8, 3), "uint8"),
        **{
            k: np.broadcast_to(x, (count,)).astype(dtypes.get(k, "float32"))
            for k, x in settings.items()
        },
    }


def test_the_ratios_are_said(model, path):
    assert reconstruction.grid(model) == GRID
    constants = json.loads((path / "assets" / "preprocessing.json").read_text())
    assert constants["mask_ratios"] == {k: list(x) for k, x in GRID.items()}


@pytest.mark.parametrize("audio", GRID["audio_ratio"])
@pytest.mark.parametrize("video", GRID["video_ratio"])
def test_it_is_the_model_that_was_built_with_these_ratios(loaded, audio, video):
    masking = {"audio": {"ratio": audio}, "video": {"ratio": video}}
    other = small_models.pretraining("cav_mae", masking=masking)
    asked = request(audio_ratio=audio, video_ratio=video, seed=[0, 3, 123456789])
    batch = {k: asked[k] for k in ("audio", "audio_samples", "video")}
    batch["example_index"] = asked["seed"]
    wanted = other(batch, masked=True)
    found = loaded.run("reconstruct", asked)
    assert len(found) == 10
    for name, value in found.items():
        if name.endswith("is_masked"):
            np.testing.assert_array_equal(value, np.asarray(wanted[name]))
        else:
            np.testing.assert_allclose(value, np.asarray(wanted[name]), atol=1e-5)
    assert found["audio_is_masked"].sum(1).tolist() == [15 - int(15 * (1 - audio))] * 3


def test_the_seed_alone_decides_what_is_hidden(loaded):
    asked = request(6, seed=[1, 2, 1, 2, 3, -1])
    hidden = loaded.run("reconstruct", asked)["audio_is_masked"]
    assert (hidden[0] == hidden[2]).all() and (hidden[1] == hidden[3]).all()
    assert len({x.tobytes() for x in hidden}) == 4


def test_clips_of_one_batch_may_differ_in_their_ratios(loaded):
    asked = request(4, audio_ratio=[0.5, 0.9, 0.75, 0.6], video_ratio=[0.75] * 4)
    together = loaded.run("reconstruct", asked)
    assert together["audio_is_masked"].sum(1).tolist() == [8, 14, 12, 9]
    for row in range(4):
        alone = {k: x[row : row + 1] for k, x in asked.items()}
        for name, value in loaded.run("reconstruct", alone).items():
            np.testing.assert_allclose(value[0], together[name][row], atol=1e-5)


def test_the_model_is_trained_on_as_before(model):
    before = reconstruction.trained_ratios(model)
    with reconstruction.masking_at(model, {"audio_ratio": 0.9, "video_ratio": 0.75}):
        assert model.masking("audio").num_kept == 1
    assert reconstruction.trained_ratios(model) == before
    assert model.masking("audio").num_kept == 6


def test_no_clips(loaded):
    assert loaded.run("reconstruct", request(0))["audio_is_masked"].shape == (0, 15)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"audio_ratio": 0.7}, "`audio_ratio` must be one of 0.5, 0.6, 0.75, 0.9"),
        ({"video_ratio": [0.5, np.nan, 0.5]}, "`video_ratio` must be one of 0.5, 0.75"),
        ({"audio_samples": [3440, 0, 3440]}, "must have audio and video"),
    ],
)
def test_bad_requests_are_refused_with_the_reason(loaded, settings, reason):
    asked = request(**settings)
    asked["audio_samples"] = asked["audio_samples"].astype("int32")
    with pytest.raises(c_loader.LoaderError, match=reason):
        loaded.run("reconstruct", asked)
    assert loaded.run("reconstruct", request())["audio_is_masked"].any()


def test_a_model_without_a_decoder_says_so(tmp_path):
    model = small_models.classifier("cav_mae")
    with pytest.raises(UserError, match=r"--with-decoder.*has no decoder"):
        export(model, tmp_path / "tiny", with_decoder=True)
    assert not (tmp_path / "tiny").exists()
