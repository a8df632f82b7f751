"""Export of a trained model as a SavedModel for TF Serving.

The way from a file to the model's input is part of it: a SavedModel takes samples and
pixels, or WAV, JPEG and PNG files, and it runs without tfavmae.
"""

import contextlib
import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfavmae import files
from tfavmae.errors import UserError, shown
from tfavmae.layers import exact_matmul, gradients
from tfavmae.serving import reconstruction, warmup
from tfavmae.serving.preprocessing import ClipForm
from tfavmae.serving.signatures import (
    ENCODED,
    Endpoints,
    Signature,
    blank_inputs,
    example_inputs,
    signatures_of,
)
from tfavmae.serving.stored_weights import StoredWeights
from tfavmae.serving.warmup_files import encoded
from tfavmae.tasks.forward import Batch

LOCK = ".export.lock"  # in the folder of the versions
Labels = Sequence[str] | Mapping[str, Sequence[str] | None]


def export(
    model: keras.Model,
    directory: str | os.PathLike,
    *,
    labels: Labels = (),
    batch: Batch | None = None,
    form: ClipForm | None = None,
    card: Mapping[str, Any] | None = None,
    weights: str | StoredWeights = "float32",
    with_decoder: bool = False,
    version: int | None = None,
    overwrite: bool = False,
) -> pathlib.Path:
    """Writes the SavedModel `directory/version/`, completely or not at all.

    Signatures, if the model has the outputs: `classify`, or `events` of a model that
    names the segments of a clip; `embed` (both embeddings), `embed_audio`,
    `embed_video`; `similarity` of the audio and the video of a clip; `reconstruct`,
    which masks and predicts. Each has a form whose name ends in `_encoded`, which takes
    files. `serving_default` is the first.
    docs/serving.md has their inputs and outputs.

    Args:
        model: a built `MaskedAutoencoder` or `AudioVisualClassifier`.
        directory: parent of the versions; its name is the model's name for TF Serving.
        labels: class names, stored as `assets/labels.txt`; of several heads a dict,
            stored as `assets/labels_HEAD.txt`.
        batch: a batch of the pipeline, whose first clip the warm-up requests ask
            about. Default: a silent, black clip.
        form: how clips become inputs. Default: of the sizes of the model's inputs.
        card: `model_card.json` as data and `model_card.md` as text, by these names.
        weights: one of `TYPES`, or weights that were made so.
        with_decoder: whether to export `reconstruct`, which holds the model once for
            every combination of `reconstruction.grid`.
        version: number of the version; TF Serving serves the highest. Default: the
            next one, or with `overwrite` the highest there is.
        overwrite: whether to replace this version if it exists.

    Returns:
        Path of the SavedModel.

    Raises:
        UserError: the version exists, another export into `directory` is running, the
            labels do not fit, the model has nothing to serve or no decoder to export,
            or the disk is full.
    """
    directory, form = pathlib.Path(directory), form or ClipForm.of_model(model)
    _check_size(form, batch)
    inputs = blank_inputs(model, form) if batch is None else example_inputs(batch)
    signatures = signatures_of(model, inputs, with_decoder)
    if not signatures:
        raise UserError("the model must return logits or embeddings to be served.")
    if with_decoder and signatures[-1].name != "reconstruct":
        raise UserError(
            "with_decoder (--with-decoder): the model has no decoder that predicts, "
            "clip by clip, what is masked; export a pretraining run that does."
        )
    texts = assets_of(model, signatures, form, labels, card)
    if isinstance(weights, str):
        weights = StoredWeights(model, weights)
    with contextlib.ExitStack() as stack:
        stack.enter_context(files.exclusive(directory / LOCK, "export"))
        files.remove_partial(directory)
        version = version or _next_version(directory, overwrite)
        target = directory / str(version)
        if target.exists() and not overwrite:
            raise UserError(
                f"{target} exists already; export another version, or overwrite it."
            )
        # The temporary name is not a number: a TF Serving that watches the folder never
        # loads an incomplete version.
        partial = stack.enter_context(files.replacing(target))
        partial.mkdir()
        _write_saved_model(model, partial, signatures, form, weights)
        (partial / "assets").mkdir(exist_ok=True)
        for name, text in texts.items():
            (partial / "assets" / name).write_text(text, encoding="utf-8")
        extra = partial / warmup.REQUESTS
        requests = _warmup(signatures, form, inputs)
        warmup.write_requests(extra, directory.name, requests)
    return target


def assets_of(
    model: keras.Model,
    signatures: Sequence[Signature],
    form: ClipForm,
    labels: Labels,
    card: Mapping[str, Any] | None,
) -> dict[str, str]:
    """The text files that travel with a served model, by name; see `export`.

    Raises:
        UserError: the labels do not fit the model.
    """
    texts = {} if not labels else _label_files(model, signatures, labels)
    constants = form.constants()
    if any(signature.name == "reconstruct" for signature in signatures):
        constants["mask_ratios"] = reconstruction.grid(model)
    texts["preprocessing.json"] = _json(constants)
    for name, content in (card or {}).items():
        texts[name] = content if isinstance(content, str) else _json(content)
    return texts


def _json(content: Any) -> str:
    return json.dumps(content, indent=1, allow_nan=False, default=str) + "\n"


def _check_size(form: ClipForm, batch: Batch | None) -> None:
    """Of a batch, the clips must have the form's length."""
    if batch is None or "audio" not in batch:
        return
    length = np.shape(batch["audio"])[1]
    if length > form.spec.num_samples:
        raise UserError(
            f"the clips of the batch have {length} samples, those of the export "
            f"{form.spec.num_samples}; export with the form of the batch."
        )


def _next_version(directory: pathlib.Path, overwrite: bool) -> int:
    found = [int(x.name) for x in directory.iterdir() if x.name.isdecimal()]
    return max(found, default=0 if not overwrite else 1) + (not overwrite)


def _label_files(
    model: keras.Model, signatures: Sequence[Signature], labels: Labels
) -> dict[str, str]:
    """The files of class names, checked, by name."""
    if signatures[0].name not in ("classify", "events"):
        raise UserError(
            "`labels` must be empty for a model without classes; received "
            f"{len(labels)} labels."
        )
    heads = model.num_classes
    if not isinstance(heads, Mapping):
        heads, labels = {"": heads}, {"": labels}
    texts = {}
    for head, num_classes in heads.items():
        names = labels.get(head) if isinstance(labels, Mapping) else labels
        if names is None:
            continue
        if len(names) != num_classes:
            raise UserError(
                f"received {len(names)} labels for {num_classes} classes; give one per "
                "class, in the order of the data set that the model was fine-tuned on."
            )
        for label in names:
            if "\n" in label:
                raise UserError(f"a label must be one line; received {shown(label)}.")
        file = f"labels_{head}.txt" if head else "labels.txt"
        texts[file] = "".join(f"{label}\n" for label in names)
    return texts


def _warmup(
    signatures: Sequence[Signature], form: ClipForm, inputs: Batch
) -> dict[str, dict[str, np.ndarray]]:
    """A request of one clip for every signature."""
    requests = {}
    for signature in signatures:
        settings = signature.setting_inputs(1)
        known = inputs | settings
        requests[signature.name] = {k: known[k] for k in signature.specs(form)}
        in_files = {
            f"{m}_bytes": encoded(m, inputs[m], form.spec.sample_rate_hz)
            for m in signature.modalities
        }
        requests[signature.name + ENCODED] = in_files | settings
    return requests


def _write_saved_model(
    model: keras.Model,
    path: pathlib.Path,
    signatures: Sequence[Signature],
    form: ClipForm,
    weights: StoredWeights,
) -> None:
    # The endpoints bring their variables along. `archive.track(model)` is for lookup
    # tables, which we have none of, and makes TensorFlow trace the layers with default
    # arguments (Keras 3.15), with which they mask.
    archive = keras.export.ExportArchive()
    # It may be served on a GPU, which rounds the factors of plain float32 products.
    with exact_matmul.portable(), gradients.forward_only():
        endpoints = Endpoints(model, form, weights.scope)
        for signature in signatures:
            # With a signature beside it, Keras would wrap the function into another
            # one and trace it again. The first endpoint becomes serving_default too.
            for name, function in endpoints.make(signature).items():
                archive.add_endpoint(name, function)
        # Not the gradients that TensorFlow's own functions define, either.
        options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
        archive.write_out(str(path), options=options, verbose=False)
