"""MAViL against `mavil_reference`: outputs, losses and gradients."""

import dataclasses

import keras
import mavil_reference as reference
import numpy as np
import pytest
import tensorflow as tf

from tfavmae.models.mavil import MAViL
from tfavmae.models.transfer import address

SIZES = dict(
    hidden_dim=16,
    num_heads=2,
    mlp_dim=24,
    num_layers=2,
    num_fusion_layers=2,
    decoder=dict(hidden_dim=12, num_heads=3, mlp_dim=20, num_layers=1),
    audio=dict(num_frames=20, num_mel_bins=12, patch_size=(4, 4)),
    video=dict(num_frames=4, height=12, width=8, tubelet_size=(2, 4, 4)),
    # Far larger than the paper's, so that a wrong term cannot hide behind the others.
    contrast={"weight": 0.7},
    intra_contrast={"weight": 0.9},
)
SETTINGS = reference.Settings(
    num_heads=2,
    num_layers=2,
    num_fusion_layers=2,
    decoder_num_heads=3,
    decoder_num_layers=1,
    audio_grid=(5, 3),
    audio_patch=(4, 4),
    video_grid=(2, 3, 2),
    video_patch=(2, 4, 4),
    alpha=0.7,
    beta=0.9,
)
VARIANTS = {
    "stage_1": ({}, {}),
    "stage_1_bottleneck": ({"bottleneck": {}}, {"fusion": "bottleneck"}),
    "stage_2": ({"teacher": {}}, {}),
    "other_masks_and_temperatures": (
        {
            "masking": {"audio": {"ratio": 0.6}, "video": {"ratio": 0.6}},
            "contrast": {"weight": 0.7, "temperature": 0.3},
            "intra_contrast": {"weight": 0.9, "temperature": 0.5},
        },
        {"mask_ratio": 0.6, "inter_temperature": 0.3, "intra_temperature": 0.5},
    ),
}


def draw_weights(model, seed=0):
    """Weights in which no bias is 0, no scale 1, and no two are alike."""
    rng = np.random.default_rng(seed)
    for v in model.weights:
        name = address(v).rsplit("/", 1)[-1]
        if name in ("table", "training_step"):
            continue
        noise = rng.normal(size=v.shape)
        if name == "kernel":
            noise /= np.sqrt(v.shape[0])
        elif name == "gamma":
            noise = 1 + 0.2 * noise
        else:
            noise *= 0.3
        v.assign(noise.astype("float32"))


def draw_batch(size=3, seed=1):
    rng = np.random.default_rng(seed)
    batch = {
        "audio": rng.normal(size=(size, 20, 12)),
        "video": rng.normal(size=(size, 4, 12, 8, 3)),
    }
    for view in ("", "_2"):
        batch[f"audio_noise{view}"] = rng.uniform(size=(size, 15))
        batch[f"video_noise{view}"] = rng.uniform(size=(size, 12))
    return {name: x.astype("float32") for name, x in batch.items()}


@dataclasses.dataclass
class Pair:
    """A model and what the reference makes of its weights and batch."""

    model: MAViL
    settings: reference.Settings

    def __post_init__(self):
        self.batch = draw_batch()
        draw_weights(self.model)
        self.weights = {
            address(v): np.asarray(v, "float64") for v in self.model.weights
        }
        self.clips = [
            {name: x[i].astype("float64") for name, x in self.batch.items()}
            for i in range(3)
        ]

    def reference_losses(self, changes=None):
        weights = {**self.weights, **(changes or {})}
        return reference.losses(self.clips, weights, self.settings)

    def gradients(self):
        variables = self.model.trainable_variables
        with tf.GradientTape() as tape:
            loss = self.model.compute_losses(
                self.batch, self.model(self.batch, masked=True)
            )["loss"]
        gradients = tape.gradient(loss, [v.value for v in variables])
        return {
            address(v): np.asarray(g, "float64")
            for v, g in zip(variables, gradients, strict=True)
        }


@pytest.fixture(scope="module", params=VARIANTS)
def pair(request):
    options, settings = VARIANTS[request.param]
    keras.utils.set_random_seed(0)
    model = MAViL(**{**SIZES, **options}, name="mavil")
    return Pair(model, dataclasses.replace(SETTINGS, **settings))


def test_losses(pair):
    ours = pair.model.compute_losses(pair.batch, pair.model(pair.batch, masked=True))
    theirs = pair.reference_losses()
    decoding = "distillation" if pair.model.teacher else "reconstruction"
    names = {name: name for name in theirs}
    names |= {m: f"{decoding}_{m}" for m in ("audio", "video")}
    for name, our_name in names.items():
        np.testing.assert_allclose(
            ours[our_name], theirs[name], rtol=2e-6, err_msg=name
        )


def test_outputs(pair):
    ours = pair.model(pair.batch, masked=True)
    teacher = {
        name.removeprefix("teacher/"): value
        for name, value in pair.weights.items()
        if name.startswith("teacher/")
    }
    for i, clip in enumerate(pair.clips):
        theirs = reference.one_clip(clip, pair.weights, teacher, pair.settings)
        for m in ("audio", "video"):
            names = {
                f"{m}_prediction": f"{m}_predictions",
                f"{m}_embedding": f"{m[0]}_emb",
                f"{m}_embedding_2": f"{m[0]}_emb_2",
            }
            for name, their_name in names.items():
                np.testing.assert_allclose(
                    ours[name][i], theirs[their_name], atol=1e-5, err_msg=name
                )


def test_gradients_against_finite_differences(pair):
    """Along each part's gradient plus a random direction, on the float64 reference."""
    gradients = pair.gradients()
    rng = np.random.default_rng(2)
    parts = sorted({"/".join(name.split("/")[:2]) for name in gradients})
    assert len(parts) > 15
    for part in parts:
        names = [n for n in gradients if (n + "/").startswith(part + "/")]
        direction = {
            n: unit(gradients[n]) + unit(rng.normal(size=gradients[n].shape))
            for n in names
        }
        step = 1e-5
        up, down = (
            pair.reference_losses(
                {n: pair.weights[n] + s * step * direction[n] for n in names}
            )["loss"]
            for s in (1, -1)
        )
        ours = sum(np.sum(gradients[n] * direction[n]) for n in names)
        size = sum(np.linalg.norm(gradients[n]) for n in names)
        assert abs((up - down) / (2 * step) - ours) < 2e-5 * size + 1e-6, part


def unit(x):
    return x / max(np.linalg.norm(x), 1e-30)


def test_every_trainable_weight_matters_and_the_teacher_does_not(pair):
    gradients = pair.gradients()
    assert not [name for name in gradients if name.startswith("teacher/")]
    largest = max(np.abs(g).max() for g in gradients.values())
    for name, g in gradients.items():
        if not name.endswith("qkv/bias"):
            assert np.abs(g).max() > 1e-6 * largest, name


def test_reference_of_known_values():
    """The reference itself, where the answer is known by hand."""
    x = np.eye(3)
    expected = -np.log(np.e / (np.e + 2))
    assert reference.contrast(x, 5 * x, 1.0) == pytest.approx(expected)
    wrong = np.array([[1.0], [2.0], [9.0]])
    target = np.array([[0.0], [0.0], [9.0]])
    assert reference.reconstruction(wrong, target, visible=[1]) == pytest.approx(0.5)
    noise = [0.9, 0.1, 0.5, 0.7, 0.3]
    settings = dataclasses.replace(SETTINGS, mask_ratio=0.6)
    assert reference.visible_tokens(noise, settings) == [1, 4]
