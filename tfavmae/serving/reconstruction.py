"""The signature `reconstruct`: a masked autoencoder with its decoder, as a service.

A model drops the tokens that it masks, so how many there are is a shape of its graph.
The graph therefore holds the model once for every combination of a few ratios, and each
clip takes the branch of its own: exactly what the model computes, at the cost of the
tokens that are kept.
"""

import contextlib
import functools
import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfavmae.layers.masking import TokenMasking
from tfavmae.serving.refusals import checked
from tfavmae.tasks.forward import Batch

RATIOS = (0.5, 0.75, 0.9)  # and those that the model was trained with
_OUTPUTS = ("prediction", "target", "target_mean", "target_std", "is_masked")
_TOLERANCE = 1e-4  # float32 does not hold 0.9


def can_reconstruct(model: keras.Model) -> bool:
    """Whether a model has a decoder that predicts each modality from itself.

    CAV-MAE Sync does so by pairs of a segment and a frame, not by clips.
    """
    if getattr(model, "num_pairs", 1) > 1:
        return False
    asked = [name for x in getattr(model, "objectives", ()) for name in x.requires]
    return getattr(model, "decoder", None) is not None and "reconstruction" in asked


def trained_ratios(model: keras.Model) -> dict[str, float]:
    """Ratios by the name of their input: of each modality, or of both together."""
    if model.joint_ratio is not None:
        return {"ratio": model.joint_ratio}
    return {f"{m}_ratio": model.masking(m).ratio for m in model.modalities}


def grid(model: keras.Model) -> dict[str, tuple[float, ...]]:
    """The ratios that are served, ascending, by the name of their input.

    One that would leave no token to encode is none of them.
    """
    return {
        name: tuple(sorted({x for x in (*RATIOS, own) if _fits(model, name, x)}))
        for name, own in trained_ratios(model).items()
    }


def varied_settings(model: keras.Model, num_clips: int) -> dict[str, np.ndarray]:
    """Seeds and ratios that differ from clip to clip: inputs of `reconstruct`."""
    settings = {"seed": np.arange(num_clips, dtype="int32")}
    rows = itertools.islice(
        itertools.cycle(itertools.product(*grid(model).values())), num_clips
    )
    columns = np.array(list(rows), "float32").reshape(num_clips, -1).T
    return settings | dict(zip(grid(model), columns, strict=True))


def _fits(model: keras.Model, name: str, ratio: float) -> bool:
    try:
        _masking_at(model, name, ratio)
    except ValueError:
        return False
    return True


def _masking_at(model: keras.Model, name: str, ratio: float) -> TokenMasking:
    if name == "ratio":
        count = sum(model.masking(m).num_tokens for m in model.modalities)
        return TokenMasking((count,), ratio)
    own = model.masking(name.removesuffix("_ratio")).get_config()
    return TokenMasking(**own | {"ratio": ratio})


@contextlib.contextmanager
def masking_at(model: keras.Model, ratios: Mapping[str, float]) -> Iterator[None]:
    """The model masks with other ratios while the block runs or is traced.

    Args:
        model: a `MaskedAutoencoder`.
        ratios: by the names of `trained_ratios`.
    """
    before = trained_ratios(model)
    try:
        _set_ratios(model, ratios)
        yield
    finally:
        _set_ratios(model, before)


def _set_ratios(model: keras.Model, ratios: Mapping[str, float]) -> None:
    for name, ratio in ratios.items():
        other = _masking_at(model, name, ratio)
        if name == "ratio":
            model.joint_ratio = ratio
            continue
        masking = model.masking(name.removesuffix("_ratio"))
        masking.ratio, masking.num_kept = other.ratio, other.num_kept


def reconstruct(model: keras.Model, batch: Batch) -> dict[str, tf.Tensor]:
    """Masks each clip by its own seed and ratios, and predicts what is hidden.

    Args:
        model: one that `can_reconstruct`.
        batch: what the model reads, all of it; `seed` int32 `(batch,)`, and each of
            `trained_ratios` float32 `(batch,)`, a value of `grid`.

    Returns:
        By modality, float32 `{m}_prediction`, `{m}_target` `(batch, tokens, values)`,
        `{m}_target_mean`, `{m}_target_std` `(batch, tokens, 1 or values)`, and bool
        `{m}_is_masked` `(batch, tokens)`: the model's outputs of these names where the
        clip is row `seed` of its data set.
    """
    ratios = grid(model)
    batch = {k: tf.convert_to_tensor(x) for k, x in batch.items()}
    choices = {name: _choice(batch.pop(name), x, name) for name, x in ratios.items()}
    branch = tf.zeros_like(next(iter(choices.values())))
    for name, values in ratios.items():
        branch = branch * len(values) + choices[name]
    branches = [
        _branch(model, dict(zip(ratios, values, strict=True)))
        for values in itertools.product(*ratios.values())
    ]
    batch["example_index"] = batch.pop("seed")
    if tf.executing_eagerly():
        clips = [
            branches[number]({k: x[row : row + 1] for k, x in batch.items()})
            for row, number in enumerate(branch.numpy())
        ]
        return {k: tf.concat([x[k] for x in clips], 0) for k in clips[0]}
    clip = {k: tf.TensorSpec([1, *x.shape[1:]], x.dtype) for k, x in batch.items()}
    traced = [
        tf.function(x, autograph=False).get_concrete_function(clip) for x in branches
    ]

    def of_clip(branch_and_clip: Any) -> dict[str, tf.Tensor]:
        branch, clip = branch_and_clip
        rows = {k: x[None] for k, x in clip.items()}
        calls = [functools.partial(function, rows) for function in traced]
        return {k: x[0] for k, x in tf.switch_case(branch, calls).items()}

    specs = {
        k: tf.TensorSpec(x.shape[1:], x.dtype)
        for k, x in traced[0].structured_outputs.items()
    }
    # One clip at a time: they may differ in their ratios.
    return tf.map_fn(of_clip, (branch, batch), fn_output_signature=specs)


def _choice(given: tf.Tensor, ratios: tuple[float, ...], name: str) -> tf.Tensor:
    """int32 `(batch,)`, the place of each ratio among those that are served."""
    distance = tf.abs(given[:, None] - tf.constant(ratios, tf.float32))
    is_served = tf.reduce_all(tf.reduce_min(distance, axis=1) < _TOLERANCE)
    known = ", ".join(f"{x:g}" for x in ratios)
    distance = checked(distance, is_served, f"`{name}` must be one of {known}.")
    return tf.argmin(distance, axis=1, output_type=tf.int32)


def _branch(
    model: keras.Model, ratios: Mapping[str, float]
) -> Callable[[Batch], dict[str, tf.Tensor]]:
    """The model at some ratios, as a function of a batch."""
    kept = sorted(f"{m}_{part}" for m in model.modalities for part in _OUTPUTS)

    def run(batch: Batch) -> dict[str, tf.Tensor]:
        with masking_at(model, ratios):
            named = model(batch, masked=True, training=False)
        return {k: tf.convert_to_tensor(named[k]) for k in kept}

    return run
