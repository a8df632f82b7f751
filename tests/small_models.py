"""Every kind of model at a size at which it runs in milliseconds."""

import keras
import numpy as np

from tfavmae.models.presets import build_classifier, build_pretraining

# Grids of 5 x 3 and 2 x 3 x 2 tokens, CAV-MAE's 1 x 3 x 2: no two axes are alike.
AUDIO = dict(num_frames=20, num_mel_bins=12, patch_size=(4, 4))
CLIP = dict(num_frames=4, height=12, width=8, tubelet_size=(2, 4, 4))
PICTURE = CLIP | dict(num_frames=1, tubelet_size=(1, 4, 4))
ENCODER = dict(hidden_dim=16, num_heads=2, mlp_dim=24, num_layers=2)
DECODER = dict(
    decoder=dict(hidden_dim=12, num_heads=3, mlp_dim=20, num_layers=1),
)
RATIOS = {"audio": {"ratio": 0.6}, "video": {"ratio": 0.5}}

MODELS = {
    "av_mae": dict(num_fusion_layers=1, video=CLIP),
    "av_mae_inpainting": dict(
        num_fusion_layers=1,
        video=CLIP,
        reconstruction_weight=0.5,
        inpainting={"weight": 1},
    ),
    "cav_mae": dict(video=PICTURE, contrast={"weight": 0.3}),
    "cav_mae_sync": dict(video=PICTURE | {"num_frames": 2}, segment_frames=8),
    "mavil": dict(num_layers=1, num_fusion_layers=1, video=CLIP),
    "mavil_stage_2": dict(num_layers=1, num_fusion_layers=1, video=CLIP, teacher={}),
}


def pretraining(case, **options):
    """The model of a case, with weights none of which is 0 or alike."""
    name = case.removesuffix("_inpainting").removesuffix("_stage_2")
    sizes = ENCODER | DECODER | {"audio": AUDIO, "masking": RATIOS}
    options["decoder"] = DECODER["decoder"] | options.get("decoder", {})
    own = MODELS.get(case, {"video": PICTURE})
    model = build_pretraining(name, "tiny", **sizes | own | options)
    return with_random_weights(model)


def classifier(name="cav_mae", modality="audio_video", **options):
    video = PICTURE if name.startswith("cav_mae") else CLIP
    sizes = ENCODER | {"audio": AUDIO, "video": video, "num_classes": 3}
    if not name.startswith("cav_mae") and "classifier" not in options:
        sizes["num_fusion_layers"] = 1
    return with_random_weights(
        build_classifier(name, "tiny", modality, **sizes | options)
    )


def mbt(modality="audio_video", **options):
    """An MBT of two layers, the second of which fuses."""
    options = {"stream_fusion": {"first_layer": 1, "num_bottlenecks": 2}} | options
    return classifier("av_mae", modality, classifier="mbt", **options)


def with_random_weights(model, seed=0):
    """The same weights on every backend, tables and counters left alone."""
    rng = np.random.default_rng(seed)
    for v in sorted(model.weights, key=lambda v: v.path.split("/", 1)[1]):
        name = v.path.rsplit("/", 1)[-1]
        if name not in ("table", "training_step"):
            noise = rng.normal(size=v.shape) / 4
            if name == "moving_variance":
                noise = 1 + np.abs(noise)
            v.assign((noise + (name == "gamma")).astype("float32"))
    return model


def batch_for(model, size=4, seed=1):
    """Clips with rows in a dataset and labels; without noise."""
    rng = np.random.default_rng(seed)
    batch = {
        "example_index": np.arange(size, dtype="int32") * 7 + 3,
        "label": np.arange(size, dtype="int32") % 3,
    }
    for m, spec in model.inputs_by_modality.items():
        shape = (spec.num_frames, getattr(spec, "num_mel_bins", None))
        if m == "video":
            shape = (spec.num_frames, spec.height, spec.width, 3)
        batch[m] = rng.normal(size=(size, *shape)).astype("float32")
    return batch


def noise_for(model, size=4, seed=2):
    """Noise of both views."""
    rng = np.random.default_rng(seed)
    return {
        f"{m}_noise{view}": rng.random((size, int(np.prod(spec.grid)))).astype(
            "float32"
        )
        for m, spec in model.inputs_by_modality.items()
        for view in ("", "_2")
    }


def compiled(model, learning_rate=1e-2, **options):
    model.compile(optimizer=keras.optimizers.AdamW(learning_rate), **options)
    return model
