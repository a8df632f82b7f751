import numpy as np
import pytest

from tfavmae.models import presets
from tfavmae.report import reconstructions

AUDIO = {"num_frames": 64, "num_mel_bins": 32, "patch_size": (16, 16)}
VIDEO = {"num_frames": 2, "height": 32, "width": 24, "tubelet_size": (2, 8, 8)}


def make_model(**options):
    small = {"hidden_dim": 16, "num_heads": 2, "mlp_dim": 32, "num_layers": 2}
    decoder = {"decoder": {"hidden_dim": 16, "num_heads": 2, "mlp_dim": 32}}
    return presets.build_pretraining(
        "cav_mae", "tiny", audio=AUDIO, video=VIDEO, **small, **decoder, **options
    )


def make_batch():
    rng = np.random.default_rng(0)
    return {
        "audio": rng.integers(-9000, 9000, (3, 10480)).astype("int16"),
        "video": rng.integers(0, 256, (3, 2, 32, 24, 3)).astype("uint8"),
        "audio_present": np.array([1, 0, 1], "float32"),
        "video_present": np.ones(3, "float32"),
        "example_index": np.array([4, 7, 9], "int32"),
    }


class Perfect:
    """A model whose predictions are its targets."""

    def __init__(self, model):
        self.model, self.inputs_by_modality = model, model.inputs_by_modality

    def __call__(self, inputs, masked, training):
        outputs = self.model(inputs, masked=masked, training=training)
        for modality in ("audio", "video"):
            outputs[f"{modality}_prediction"] = outputs[f"{modality}_target"]
        return outputs


@pytest.mark.parametrize("target_normalization", [None, "patch", "patch_biased"])
def test_a_perfect_prediction_gives_the_original_back(target_normalization):
    model = Perfect(make_model(target_normalization=target_normalization))
    for clip in reconstructions.reconstruct(model, make_batch()):
        for triptych in (clip.audio, clip.video):
            if triptych is not None:
                difference = triptych.reconstructed.astype(int) - triptych.original
                assert np.abs(difference).max() <= 1


def test_frames_are_the_batch_and_spectrograms_have_low_notes_below():
    batch = make_batch()
    first = reconstructions.reconstruct(make_model(), batch)[0]
    frames = np.concatenate(list(batch["video"][0]), axis=1)
    assert np.abs(first.video.original.astype(int) - frames).max() <= 1
    assert first.audio.original.shape == (32, 64, 3)
    t = np.arange(10480) / 16000
    batch["audio"][0] = (9000 * np.sin(2 * np.pi * 150 * t)).astype("int16")
    low = reconstructions.reconstruct(make_model(), batch)[0].audio.original
    assert low[-4:].mean() > low[:8].mean() + 20


def test_hidden_patches_are_transparent_and_nowhere_else_is_changed():
    model, batch = make_model(), make_batch()
    is_masked = np.asarray(model(batch, masked=True)["video_is_masked"])[0]
    triptych = reconstructions.reconstruct(model, batch)[0].video
    hidden = np.kron(is_masked.reshape(4, 3), np.ones((8, 8)))
    hidden = np.concatenate([hidden, hidden], axis=1) > 0  # two frames, one tubelet
    np.testing.assert_array_equal(triptych.visible[..., 3] == 0, hidden)
    assert triptych.visible[hidden].max() == 0
    for picture in (triptych.visible[..., :3], triptych.reconstructed):
        np.testing.assert_array_equal(picture[~hidden], triptych.original[~hidden])
    assert triptych.masked_fraction == pytest.approx(hidden.mean())
    assert (triptych.reconstructed[hidden] != triptych.original[hidden]).any()


def test_padding_after_a_short_clip_is_dark():
    batch = make_batch()
    spectrogram = np.random.default_rng(0).normal(size=(3, 64, 32)).astype("float32")
    spectrogram[0, 40:] = 9.0  # as padding comes out of the front end
    batch["audio"] = spectrogram
    clip = reconstructions.reconstruct(make_model(), batch)[0]
    darkest = clip.audio.original.reshape(-1, 3).astype(int).sum(1).min()
    for picture in (clip.audio.original, clip.audio.reconstructed):
        assert (picture[:, 40:].astype(int).sum(-1) == darkest).all()
    assert clip.audio.original[:, :40].max() > 200  # the rest has its contrast


def test_names_and_missing_modalities():
    clips = reconstructions.reconstruct(make_model(), make_batch())
    assert [clip.name for clip in clips] == ["clip 4", "clip 7", "clip 9"]
    assert [clip.audio is None for clip in clips] == [False, True, False]
    named = reconstructions.reconstruct(make_model(), make_batch(), 2, names=["a", "b"])
    assert [clip.name for clip in named] == ["a", "b"]


def test_figure_is_one_picture_with_a_row_per_clip():
    model, batch = make_model(), make_batch()
    figure = reconstructions.figure(reconstructions.reconstruct(model, batch))
    assert figure.dtype == np.uint8
    # Spectrograms of 64 x 32, and of each clip two frames of 24 x 32 side by side.
    assert figure.shape == (3 * 132, 3 * (256 + 4) + 3 * (192 + 4), 3)
    assert figure[132:260, : 3 * 260].min() == 255  # a silent clip has no spectrogram
    media = reconstructions.tensorboard_media(model, batch)
    np.testing.assert_array_equal(media["reconstruction"][0], figure)
    sounds = media["reconstruction_audio"]
    assert sounds.dtype == np.int16 and sounds.any(axis=1).tolist() == [True, True]


def test_a_model_without_a_decoder_has_nothing_to_show():
    model = make_model(reconstruction_weight=0.0)
    clips = reconstructions.reconstruct(model, make_batch())
    assert all(clip.audio is None and clip.video is None for clip in clips)
