"""Export of a trained model as a SavedModel for TF Serving.

The front end is part of it: a SavedModel takes audio samples and pixels, and it runs
without tfavmae.
"""

import contextlib
import dataclasses
import functools
import os
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from tfavmae import files
from tfavmae.errors import UserError
from tfavmae.layers import exact_matmul
from tfavmae.serving import client, warmup
from tfavmae.tasks.forward import Batch

DTYPES = {"audio": "float32", "video": "uint8"}
LOCK = ".export.lock"  # in the folder of the versions


@dataclasses.dataclass(frozen=True)
class Signature:
    """Name of an endpoint, its inputs, and the model outputs that it returns."""

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Verification:
    """Differences between the answers of an exported model and of the model itself.

    Args:
        path: the SavedModel.
        max_abs_difference: largest absolute difference, by `signature/output`.
        tolerance: largest difference allowed, relative to the largest value of an
            output.
    """

    path: pathlib.Path
    max_abs_difference: dict[str, float]
    tolerance: float

    @property
    def worst(self) -> float:
        """The largest difference of all outputs."""
        return max(self.max_abs_difference.values())


def export(
    model: keras.Model,
    directory: str | os.PathLike,
    *,
    labels: Sequence[str] = (),
    batch: Batch | None = None,
    version: int = 1,
    overwrite: bool = False,
) -> pathlib.Path:
    """Writes the SavedModel `directory/version/`, completely or not at all.

    Signatures, if the model has the outputs: `classify` (`logits`, `probabilities`),
    `embed` (both embeddings), `embed_audio`, `embed_video`; `serving_default` is the
    first of them. Inputs: `audio` float32 `(batch, samples)` in [-1, 1] and `video`
    uint8 `(batch, frames, height, width, 3)`, any batch size. Embeddings have length 1.

    Args:
        model: a built `MaskedAutoencoder` or `AudioVisualClassifier`.
        directory: parent of the versions; its name is the model's name for TF Serving.
        labels: class names, stored as `assets/labels.txt`.
        batch: a batch of the pipeline; its clip length is that of the signatures, its
            first clip that of the warm-up requests. Default: the sizes of the model's
            inputs, and a silent, black clip.
        version: number of the version; TF Serving serves the highest.
        overwrite: whether to replace this version if it exists.

    Returns:
        Path of the SavedModel.

    Raises:
        UserError: the version exists, another export into `directory` is running, the
            labels do not fit, the model has nothing to serve, or the disk is full.
    """
    directory = pathlib.Path(directory)
    target = directory / str(version)
    if target.exists() and not overwrite:
        raise UserError(
            f"{target} exists already; export another version, or overwrite it."
        )
    inputs = blank_inputs(model) if batch is None else example_inputs(batch)
    signatures = signatures_of(model, inputs)
    if labels:
        _check_labels(model, inputs, signatures, labels)
    with contextlib.ExitStack() as stack:
        stack.enter_context(files.exclusive(directory / LOCK, "export"))
        files.remove_partial(directory)
        # The temporary name is not a number: a TF Serving that watches the folder never
        # loads an incomplete version.
        partial = stack.enter_context(files.replacing(target))
        partial.mkdir()
        _write_saved_model(model, partial, signatures, inputs)
        if labels:
            (partial / "assets").mkdir(exist_ok=True)
            text = "".join(f"{label}\n" for label in labels)
            (partial / "assets" / "labels.txt").write_text(text, encoding="utf-8")
        requests = {s.name: {k: inputs[k] for k in s.inputs} for s in signatures}
        extra = partial / "assets.extra" / "tf_serving_warmup_requests"
        warmup.write_requests(extra, directory.name, requests)
    return target


def blank_inputs(model: keras.Model) -> dict[str, np.ndarray]:
    """One silent, black clip of the sizes that the model was built for."""
    shapes: dict[str, tuple[int, ...]] = {}
    for modality, spec in model.inputs_by_modality.items():
        if modality == "audio":
            shapes["audio"] = (1, round(spec.clip_seconds * spec.sample_rate_hz))
        else:
            shapes["video"] = (1, spec.num_frames, spec.height, spec.width, 3)
    return {name: np.zeros(shape, DTYPES[name]) for name, shape in shapes.items()}


def example_inputs(batch: Batch, num_clips: int = 1) -> dict[str, np.ndarray]:
    """The first clips of a batch in the form that the signatures take."""
    audio = np.asarray(batch["audio"])[:num_clips]
    if audio.dtype == np.int16:
        audio = audio / np.float32(32768)
    video = np.asarray(batch["video"])[:num_clips]
    return {"audio": audio.astype("float32"), "video": video.astype("uint8")}


def signatures_of(model: keras.Model, inputs: dict[str, np.ndarray]) -> list[Signature]:
    """The signatures that the model's outputs allow, the default one first.

    Args:
        model: see `export`.
        inputs: clips in the form that the signatures take.

    Raises:
        UserError: the model has neither logits nor embeddings, or several heads.
    """
    used = tuple(name for name in DTYPES if name in model.modalities)
    together = model({name: inputs[name] for name in used}, training=False)
    signatures = []
    if isinstance(together.get("logits"), dict):
        heads = ", ".join(together["logits"])
        raise UserError(
            f"A served classifier answers with one label; this one has {heads}. "
            "Fine-tune it on one of them."
        )
    if "logits" in together:
        signatures.append(Signature("classify", used, ("logits", "probabilities")))
    embeddings = {}
    for name in used:
        # Asked for one modality alone: some models embed only both together.
        alone = model({name: inputs[name]}, training=False)
        if f"{name}_embedding" in alone:
            embeddings[name] = f"{name}_embedding"
    if len(embeddings) == 2:
        signatures.append(Signature("embed", used, tuple(embeddings.values())))
    signatures += [
        Signature(f"embed_{name}", (name,), (output,))
        for name, output in embeddings.items()
    ]
    if not signatures:
        raise UserError(
            "The model must return logits or embeddings to be served; received "
            f"{sorted(together)}."
        )
    return signatures


def answer(
    model: keras.Model, signature: Signature, inputs: Batch
) -> dict[str, tf.Tensor]:
    """The outputs of a signature: those of the model, normalized, as float32.

    Args:
        model: see `export`.
        signature: one of `signatures_of`.
        inputs: arrays or tensors by input name; others are ignored.
    """
    named = model({name: inputs[name] for name in signature.inputs}, training=False)
    if "logits" in named:
        logits = tf.cast(named["logits"], "float32")
        activation = getattr(tf.nn, model.activation)
        named = {**named, "logits": logits, "probabilities": activation(logits)}
    return {
        name: tf.math.l2_normalize(tf.cast(named[name], "float32"), -1)
        if name.endswith("_embedding")
        else named[name]
        for name in signature.outputs
    }


def _check_labels(model, inputs, signatures, labels):
    if signatures[0].name != "classify":
        raise UserError(
            "`labels` must be empty for a model without classes; received "
            f"{len(labels)} labels."
        )
    num_classes = answer(model, signatures[0], inputs)["logits"].shape[-1]
    if len(labels) != num_classes:
        raise UserError(
            f"Received {len(labels)} labels for {num_classes} classes; give one per "
            "class, in the order of the data set that the model was fine-tuned on."
        )
    for label in labels:
        if "\n" in label:
            raise UserError(f"A label must be one line; received {label!r}.")


def _write_saved_model(model, path, signatures, inputs):
    # The endpoints bring their variables along. `archive.track(model)` is for lookup
    # tables, which we have none of, and makes TensorFlow trace the layers with default
    # arguments (Keras 3.15), with which they mask.
    archive = keras.export.ExportArchive()
    # It may be served on a GPU, which rounds the factors of plain float32 products.
    with exact_matmul.portable():
        for signature in signatures:
            specs = {
                name: tf.TensorSpec((None, *inputs[name].shape[1:]), DTYPES[name], name)
                for name in signature.inputs
            }
            function = tf.function(functools.partial(answer, model, signature))
            # The first endpoint becomes serving_default as well.
            archive.add_endpoint(signature.name, function, [specs])
        archive.write_out(str(path), verbose=False)


# Runs `client.main` while every import of our packages fails.
_WITHOUT_TFAVMAE = """
import runpy, sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("tfavmae", "tfavmae_datasets"):
            raise ImportError(f"{name} must not be needed to serve a model")

sys.meta_path.insert(0, Refuse())
runpy.run_path(sys.argv[1], run_name="client")["main"](*sys.argv[2:])
"""


def verify_export(
    path: str | os.PathLike,
    model: keras.Model,
    batch: Batch,
    *,
    num_clips: int = 4,
    tolerance: float = 1e-4,
) -> Verification:
    """Compares the answers of a SavedModel with those of the model.

    The SavedModel runs in a fresh process, in another directory, in which `tfavmae`
    cannot be imported.

    Args:
        path: path of the SavedModel, from `export`.
        model: the model that was exported.
        batch: any batch of the pipeline.
        num_clips: the first clips of the batch to compare.
        tolerance: largest difference allowed, relative to the largest value.

    Raises:
        RuntimeError: an answer differs, or the SavedModel does not run.
    """
    inputs = example_inputs(batch, num_clips)
    answers = _run_without_tfavmae(pathlib.Path(path).resolve(), inputs)
    signatures = signatures_of(model, inputs)
    signatures.append(dataclasses.replace(signatures[0], name="serving_default"))
    differences: dict[str, float] = {}
    failures = []
    for signature in signatures:
        for name, value in answer(model, signature, inputs).items():
            key, value = f"{signature.name}/{name}", np.asarray(value)
            differences[key] = float(np.abs(answers.pop(key) - value).max())
            # Not `>`: it would be False for NaN.
            if not differences[key] <= tolerance * max(1.0, np.abs(value).max()):
                failures.append(f"{key} by {differences[key]:.2g}")
    if failures or answers:
        extra = [f"{key} is not the model's" for key in answers]
        raise RuntimeError(
            f"{path} answers differently: {', '.join(failures + extra)}."
        )
    return Verification(pathlib.Path(path), differences, tolerance)


def _run_without_tfavmae(path, inputs):
    with tempfile.TemporaryDirectory() as scratch:
        asked, answered = (pathlib.Path(scratch, f"{n}.npz") for n in ("in", "out"))
        np.savez(asked, **inputs)
        # -I: neither PYTHONPATH nor the working directory is searched for modules.
        command = [sys.executable, "-I", "-c", _WITHOUT_TFAVMAE, client.__file__]
        done = subprocess.run(
            [*command, str(path), str(asked), str(answered)],
            cwd=scratch,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            last = done.stderr.strip().rpartition("\n")[2]
            raise RuntimeError(f"{path} does not run by itself: {last}")
        with np.load(answered) as file:
            return dict(file)
