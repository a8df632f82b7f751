"""Comparison of an export with the model that it was made of."""

import base64
import dataclasses
import os
import pathlib
import subprocess
import sys
import tempfile
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfavmae.serving import c_loader, reconstruction
from tfavmae.serving.preprocessing import ClipForm
from tfavmae.serving.run_card import Cost
from tfavmae.serving.signatures import ENCODED, answer, example_inputs, signatures_of
from tfavmae.serving.stored_weights import StoredWeights
from tfavmae.serving.warmup_files import encoded
from tfavmae.tasks.forward import Batch


@dataclasses.dataclass(frozen=True)
class Verification:
    """Differences between the answers of an exported model and of the model itself.

    Args:
        path: the SavedModel.
        max_abs_difference: largest absolute difference, by `signature/output`; of
            targets the root mean square.
        tolerance: largest difference allowed, relative to the largest value of an
            output.
        cost: what the type of the stored weights changes on clips, if it was measured.
    """

    path: pathlib.Path
    max_abs_difference: dict[str, float]
    tolerance: float
    cost: Cost | None = None

    @property
    def worst(self) -> float:
        """The largest difference of all outputs."""
        return max(self.max_abs_difference.values())


def verify_export(
    path: str | os.PathLike,
    model: keras.Model,
    batch: Batch,
    *,
    form: ClipForm | None = None,
    weights: StoredWeights | None = None,
    with_decoder: bool = False,
    num_clips: int = 4,
    tolerance: float = 1e-4,
) -> Verification:
    """Compares the answers of a SavedModel with those of the model.

    The SavedModel runs in a fresh process, through TensorFlow's C API: neither Keras
    nor `tfavmae` are in it.

    Args:
        path: path of the SavedModel, from `export`.
        model: the model that was exported.
        batch: any batch of the pipeline.
        form: of the export.
        weights: of the export; by default those of the model.
        with_decoder: whether it has `reconstruct`.
        num_clips: the first clips of the batch to compare.
        tolerance: largest difference allowed, relative to the largest value.

    Raises:
        RuntimeError: an answer differs, or the SavedModel does not run.
    """
    form = form or ClipForm.of_model(model)
    weights = weights or StoredWeights(model, "float32")
    inputs = example_inputs(batch, num_clips)
    if with_decoder:
        count = len(next(iter(inputs.values())))
        inputs |= reconstruction.varied_settings(model, count)
    in_files: dict[str, Any] = {
        f"{m}_bytes": encoded(m, inputs[m], form.spec.sample_rate_hz)
        for m in model.modalities
    }
    answers = _run_through_c_api(pathlib.Path(path).resolve(), {**inputs, **in_files})
    answers = _on_one_scale(answers)
    differences: dict[str, float] = {}
    failures = []
    batches = {"": inputs, ENCODED: inputs | _read_files(form, in_files)}
    signatures = signatures_of(model, inputs, with_decoder)
    for signature in signatures:
        wanted = _answers(model, weights, signature, batches)
        if signature is signatures[0]:
            own = f"{signature.name}/"
            wanted |= {
                f"serving_default/{k.removeprefix(own)}": x
                for k, x in wanted.items()
                if k.startswith(own)
            }
        for key, value in _on_one_scale(wanted).items():
            # Flags as numbers.
            value = value.astype("float32")
            differences[key] = difference(key, answers.pop(key), value)
            # Not `>`: it would be False for NaN.
            if not differences[key] <= tolerance * max(1.0, np.abs(value).max()):
                failures.append(f"{key} by {differences[key]:.2g}")
    if failures or answers:
        extra = [f"{key} is not the model's" for key in answers]
        raise RuntimeError(
            f"{path} answers differently: {', '.join(failures + extra)}."
        )
    return Verification(pathlib.Path(path), differences, tolerance)


def difference(key: str, answer: np.ndarray, wanted: np.ndarray) -> float:
    """The largest one; of targets the root mean square.

    A target holds the logarithm of what little power a band of silence has, which is
    rounding error: 3e-4 in a few of a spectrogram's bins.
    """
    difference = np.abs(answer - wanted)
    if key.endswith("_target"):
        return float(np.sqrt(np.mean(np.square(difference))))
    return float(difference.max())


def _on_one_scale(answers: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Answers with the targets of `reconstruct` as they were before normalisation.

    A patch of silence is divided by next to nothing: what is left is rounding error.
    """
    found = dict(answers)
    for key in (key for key in answers if key.endswith("_target")):
        found[key] = answers[key] * answers[f"{key}_std"] + answers[f"{key}_mean"]
    return found


def _read_files(form: ClipForm, in_files: dict[str, Any]) -> dict[str, Any]:
    """The clips of encoded files, as the pipeline would give them."""
    found: dict[str, Any] = {}
    if "audio_bytes" in in_files:
        read = tf.function(form.read_audio, autograph=False)
        audio, samples = read(tf.constant(in_files["audio_bytes"]))
        found |= {"audio": audio, "audio_samples": samples}
    if "video_bytes" in in_files:
        read = tf.function(form.read_frames, autograph=False)
        found["video"], _ = read(tf.constant(in_files["video_bytes"]))
    return found


def _answers(model, weights, signature, batches):
    """What the model itself answers, by `signature/output`, to some batches by ending.

    Args:
        signature: what is asked.
        batches: dict of the ending of the signature's name to the batch.
    """
    found = {}
    with weights.scope():
        for suffix, batch in batches.items():
            for name, value in answer(model, signature, batch).items():
                found[f"{signature.name}{suffix}/{name}"] = np.asarray(value)
    return found


def _run_through_c_api(
    path: pathlib.Path, inputs: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    with tempfile.TemporaryDirectory() as scratch:
        asked, answered = (pathlib.Path(scratch, f"{n}.npz") for n in ("in", "out"))
        # NumPy stores arrays of bytes without the zeros that end them.
        arrays: dict[str, Any] = {k: _in_base64(x) for k, x in inputs.items()}
        np.savez(asked, **arrays)
        # -I: neither PYTHONPATH nor the working directory is searched for modules.
        command = [sys.executable, "-I", c_loader.__file__, "answer", str(path)]
        done = subprocess.run(
            [*command, str(asked), str(answered)],
            cwd=scratch,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            last = done.stderr.strip().rpartition("\n")[2]
            raise RuntimeError(f"{path} does not run by itself: {last}")
        with np.load(answered) as file:
            return dict(file)


def _in_base64(array: np.ndarray) -> np.ndarray:
    if array.dtype != object:
        return array
    flat = [base64.b64encode(x) for x in array.ravel()]
    return np.array(flat).reshape(array.shape)
