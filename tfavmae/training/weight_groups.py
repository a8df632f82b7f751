"""Which weights learn, and how fast: freezing and learning rates by place."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import keras

from tfavmae.errors import UserError
from tfavmae.models.classifier import HEAD_LAYERS

if TYPE_CHECKING:
    # `benchmarks/step_time.py` runs where tf-models, which configs need, is missing.
    from tfavmae.config.experiment import OptimizerConfig

HEAD_PATHS = f"(^|/)({'|'.join(HEAD_LAYERS)})/"

# Depth of the first fusion layer in the authors' code, whatever there is below it:
# `layer_id + 11` in AV-MAE's, right for 12 layers and wrong for 24; MAViL's takes the
# number from `blocks_av.0` as from `blocks.0`.
_FIRST_FUSION_LAYER = {"av_mae_authors": 11, "mavil_authors": 1}


def freeze(model: keras.Model, patterns: Sequence[str]) -> None:
    """Takes weights out of training: no gradient, no moments, no decay.

    Args:
        model: a built model that has no optimizer yet.
        patterns: regular expressions, searched in the paths of its weights.

    Raises:
        UserError: a pattern finds no weight that could learn, or none is left.
    """
    learning = list(model.trainable_variables)
    for pattern in patterns:
        found = [v for v in learning if re.search(pattern, v.path)]
        if not found:
            raise UserError(
                f"trainer.freeze: {pattern!r} matches none of the {len(learning)}"
                f" weights, e.g. {learning[0].path}; correct or remove it."
            )
        for variable in found:
            variable.trainable = False
    if not model.trainable_variables:
        raise UserError("trainer.freeze leaves no weight to train; freeze fewer.")


def modality_paths(modality: str) -> str:
    """Regular expression of the weights that serve one modality alone.

    Its tokenizer, its encoder with the norm and class token, its stream of an MBT, and
    its norms in layers that streams share.
    """
    return f"(^|/)({modality}(_|/)|norm_[12]_{modality}/)"


def learning_rate_factors(
    options: "OptimizerConfig", model: keras.Model
) -> dict[str, float]:
    """`{regular expression: factor}` of a config's `optimizer` section.

    Raises:
        UserError: the model has no layers to count, or too few.
    """
    factors = options.learning_rate_factors.as_dict()
    places = {
        HEAD_PATHS: options.head_learning_rate_factor,
        modality_paths("audio"): options.audio_learning_rate_factor,
        modality_paths("video"): options.video_learning_rate_factor,
    }
    factors |= {path: factor for path, factor in places.items() if factor != 1.0}
    if options.layer_decay is not None:
        factors |= layer_factors(model, options.layer_decay, options.layer_decay_form)
    return factors


def layer_factors(
    model: keras.Model, layer_decay: float, form: str = "depth"
) -> dict[str, float]:
    """Learning rates that fall with the depth of a layer (MAE, appendix A.1).

    Args:
        model: a model with `layer_index(variable)`.
        layer_decay: factor per layer.
        form: `depth`, or how the authors' code counts fusion layers:
            `av_mae_authors` or `mavil_authors`.

    Returns:
        `{regular expression: layer_decay ** (layers above)}`, one for each trainable
        variable; the factor of the top layer is 1.

    Raises:
        UserError: the model has no `layer_index`, or too few layers for the form.
    """
    if not hasattr(model, "layer_index"):
        raise UserError(
            f"optimizer.layer_decay: {type(model).__name__} has no layer_index;"
            " set optimizer.layer_decay=null."
        )
    # Of all weights: the top stays where it is if the head is frozen.
    index = {v.path: model.layer_index(v) for v in model.weights}
    top = max(index.values())
    if form != "depth" and model.encoder.num_unimodal_layers:
        if form == "mavil_authors":
            # Their last number is one more than the layers of one modality.
            below = model.encoder.num_unimodal_layers + 1
            index = {path: min(i, below) for path, i in index.items()}
            top = below
        for path in index:
            if layer := re.search(r"(^|/)encoder/joint/block_(\d+)/", path):
                index[path] = _FIRST_FUSION_LAYER[form] + int(layer[2])
    if max(index.values()) > top:
        raise UserError(
            f"optimizer.layer_decay_form={form} counts {max(index.values())} layers,"
            f" and the model has {top}; set optimizer.layer_decay_form=depth."
        )
    # Without the model's name, which Keras leaves out of paths after a reload.
    learning = {v.path: v.path.split("/", 1)[-1] for v in model.trainable_variables}
    return {
        f"(^|/){re.escape(short)}$": layer_decay ** (top - index[path])
        for path, short in learning.items()
    }
