"""Models by name and size."""

import difflib
import inspect

from tfavmae.models import av_mae, mavil
from tfavmae.models.base import AudioVisualModel
from tfavmae.models.cav_mae import CAVMAE, LAYER_NORM_EPSILON, cav_mae_encoder
from tfavmae.models.cav_mae_sync import CAVMAESync
from tfavmae.models.classifier import AudioVisualClassifier
from tfavmae.models.masked_autoencoder import MaskedAutoencoder
from tfavmae.paper_inputs import PAPER_INPUTS

ENCODERS = {
    "tiny": dict(hidden_dim=128, num_heads=4, mlp_dim=512, num_layers=5),
    "small": dict(hidden_dim=384, num_heads=6, mlp_dim=1536, num_layers=12),
    "base": dict(hidden_dim=768, num_heads=12, mlp_dim=3072, num_layers=12),
    "large": dict(hidden_dim=1024, num_heads=16, mlp_dim=4096, num_layers=24),
}

_MAE_DECODER = dict(
    decoder_hidden_dim=512,
    decoder_num_heads=16,
    decoder_mlp_dim=2048,
    decoder_num_layers=8,
)
_MAE_DECODERS = {
    "tiny": dict(
        decoder_hidden_dim=96,
        decoder_num_heads=4,
        decoder_mlp_dim=384,
        decoder_num_layers=2,
    ),
    "small": _MAE_DECODER,
    "base": _MAE_DECODER,
    "large": _MAE_DECODER,
}
_AV_MAE_DECODERS = {
    "tiny": _MAE_DECODERS["tiny"],
    "base": dict(
        decoder_hidden_dim=384,
        decoder_num_heads=6,
        decoder_mlp_dim=1536,
        decoder_num_layers=4,
    ),
    "large": dict(
        decoder_hidden_dim=512,
        decoder_num_heads=8,
        decoder_mlp_dim=2048,
        decoder_num_layers=4,
    ),
}
DECODERS = {
    "av_mae": _AV_MAE_DECODERS,
    "cav_mae": _MAE_DECODERS,
    "cav_mae_sync": _MAE_DECODERS,
    "mavil": _MAE_DECODERS,
}

MODELS = {
    "av_mae": av_mae.AVMAE,
    "cav_mae": CAVMAE,
    "cav_mae_sync": CAVMAESync,
    "mavil": mavil.MAViL,
}


def _look_up(table, what, name):
    if name not in table:
        raise ValueError(f"Unknown {what} {name!r}. Known: {', '.join(table)}.")
    return table[name]


def check_options(classes, options, ignored=("self", "kwargs", "name")):
    """Raises a `ValueError` naming the nearest argument if no constructor has it."""
    names = [p for c in classes for p in inspect.signature(c.__init__).parameters]
    known = [p for p in names if p not in ignored]
    for option in options:
        if option not in known:
            near = difflib.get_close_matches(option, known, 1)
            hint = (
                f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}."
            )
            raise ValueError(f"Unknown model option {option!r}; {hint}")


def pretraining_arguments(name, size="base", **options):
    """The constructor's arguments of a pretraining model, options over sizes."""
    model = _look_up(MODELS, "model", name)
    decoder = _look_up(DECODERS[name], f"size of {name}", size)
    sizes = {**_look_up(ENCODERS, "size", size), **decoder}
    # A subclass hands on what it does not know to the class that it extends.
    check_options(model.__mro__[: model.__mro__.index(MaskedAutoencoder)], options)
    return {**sizes, **options}


def build_pretraining(name="cav_mae", size="base", **options):
    """A pretraining model.

    Args:
        name: `av_mae`, `cav_mae`, `cav_mae_sync` or `mavil`.
        size: `tiny`, `small` (not of `av_mae`), `base` or `large`.
        **options: arguments of the model's class, over those of the size.
    """
    return MODELS[name](**pretraining_arguments(name, size, **options), name=name)


# How each paper fine-tunes: the encoder, its options beyond the sizes with their
# values, and the rest of the classifier.
CLASSIFIERS = {
    "av_mae": dict(
        encoder=av_mae.av_mae_classifier_encoder,
        encoder_options={"fusion": "mid", "num_fusion_layers": 2},
        positions=av_mae.POSITIONS,
        layer_norm_epsilon=av_mae.LAYER_NORM_EPSILON,
    ),
    "cav_mae": dict(
        encoder=lambda modality, **sizes: cav_mae_encoder(
            **sizes, modalities=modality.split("_")
        ),
        encoder_options={"num_joint_layers": 1},
        positions={"trainable": True},
        modality_embedding=True,
        layer_norm_epsilon=LAYER_NORM_EPSILON,
    ),
    "mavil": dict(
        encoder=mavil.mavil_classifier_encoder,
        encoder_options={
            "num_fusion_layers": 2,
            "fusion": "concat",
            "num_bottlenecks": 4,
            "share_bottleneck_blocks": True,
            "normalize_before_fusion": False,
            "normalize_after_fusion": True,
            "class_token": True,
        },
        layer_norm_epsilon=mavil.LAYER_NORM_EPSILON,
        new_weights=("encoder/joint",),
    ),
}


def build_classifier(name="cav_mae", size="base", modality="audio_video", **options):
    """A classifier around the encoder of the pretraining model of the same name.

    Args:
        name, size: as of `build_pretraining`.
        modality: `audio`, `video` or `audio_video`.
        **options: arguments of `AudioVisualClassifier` and of the encoder;
            `layer_norm_epsilon` is of both.
    """
    recipe = dict(_look_up(CLASSIFIERS, "model", name))
    encoder, inputs = recipe.pop("encoder"), PAPER_INPUTS[name]
    sizes = {**_look_up(ENCODERS, "size", size), **recipe.pop("encoder_options")}
    sizes |= {k: options.pop(k) for k in tuple(options) if k in sizes}
    epsilon = {"layer_norm_epsilon": recipe["layer_norm_epsilon"]}
    epsilon |= {k: options[k] for k in epsilon if k in options}
    check_options([AudioVisualClassifier, AudioVisualModel], options)
    hidden_dim = sizes.pop("hidden_dim")
    for key in ("audio", "video"):
        options[key] = {**inputs[key], **(options.get(key) or {})}
    return AudioVisualClassifier(
        encoder(modality=modality, **epsilon, **sizes),
        hidden_dim,
        modality=modality,
        **{**recipe, **options},
        name="classifier",
    )
