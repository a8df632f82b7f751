"""A trained model as a SavedModel that TF Serving can serve.

The front end is inside: it takes waveforms and pixels, and it needs none of our code.
"""

import contextlib
import dataclasses
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence

import numpy as np

from tfavmae.errors import UserError
from tfavmae.layers import exact_matmul
from tfavmae.serving import client, warmup
from tfavmae.tasks.forward import call_unmasked

# What a signature calls its input: the model's name of it.
INPUTS = {"waveform": "audio", "video": "video"}
DTYPES = {"waveform": "float32", "video": "uint8"}


@dataclasses.dataclass(frozen=True)
class Signature:
    """Name of an endpoint, its inputs, and the model outputs that it returns."""

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Verification:
    """How far the exported model's answers are from the model's, by output.

    Args:
        path: the SavedModel.
        max_abs_difference: by `signature/output`.
        tolerance: what is allowed, relative to the largest value of an output.
    """

    path: pathlib.Path
    max_abs_difference: dict[str, float]
    tolerance: float

    @property
    def worst(self) -> float:
        return max(self.max_abs_difference.values())


def export(
    model,
    directory: str | os.PathLike,
    *,
    labels: Sequence[str] = (),
    batch: dict | None = None,
    version: int = 1,
    overwrite: bool = False,
) -> pathlib.Path:
    """Writes `directory/version/`, whole or not at all.

    Signatures, as far as the model has what they need: `classify` (`logits`,
    `probabilities`), `embed` (both embeddings), `embed_audio`, `embed_video`;
    `serving_default` is the first of them. Inputs: `waveform` float32
    `(batch, samples)` in [-1, 1] and `video` uint8 `(batch, frames, height, width, 3)`,
    any batch size. Embeddings have length 1.

    Args:
        model: a built `MaskedAutoencoder` or `AudioVisualClassifier`.
        directory: its name is the model's name for TF Serving.
        labels: class names, stored as `assets/labels.txt`.
        batch: a batch of the pipeline, whose clip length and first clip are taken for
            the signatures and the warm-up requests; default: what the model's inputs
            say, and silence and black.
        version: TF Serving serves the highest.
        overwrite: replace this version if it exists.

    Returns:
        Path of the SavedModel.
    """
    target = pathlib.Path(directory) / str(version)
    if target.exists() and not overwrite:
        raise UserError(
            f"{target} exists already; export another version or ask to overwrite it."
        )
    inputs = blank_inputs(model) if batch is None else example_inputs(batch)
    signatures = signatures_of(model, inputs)
    if labels:
        _check_labels(model, inputs, signatures, labels)
    with _replacing(target) as partial:
        _write_saved_model(model, partial, signatures, inputs)
        _write_extras(partial, target.parent.name, signatures, inputs, labels)
    return target


def blank_inputs(model) -> dict[str, np.ndarray]:
    """One silent, black clip of the shape that the model was built for."""
    shapes = {}
    for modality, spec in model.inputs_by_modality.items():
        if modality == "audio":
            num_samples = round(spec.clip_seconds * spec.sample_rate_hz)
            shapes["waveform"] = (1, num_samples)
        else:
            shapes["video"] = (1, spec.num_frames, spec.height, spec.width, 3)
    return {name: np.zeros(shape, DTYPES[name]) for name, shape in shapes.items()}


def example_inputs(batch: dict, num_clips: int = 1) -> dict[str, np.ndarray]:
    """The first clips of a batch in the form that the signatures take."""
    waveform = np.asarray(batch["audio"])[:num_clips]
    if waveform.dtype == np.int16:
        waveform = waveform / np.float32(32768)
    video = np.asarray(batch["video"])[:num_clips]
    return {"waveform": waveform.astype("float32"), "video": video.astype("uint8")}


def signatures_of(model, inputs: dict[str, np.ndarray]) -> list[Signature]:
    """The signatures that the model's outputs allow, the default one first."""
    used = tuple(name for name, key in INPUTS.items() if key in model.modalities)
    found = {name: _outputs(model, {name: inputs[name]}) for name in used}
    together = _outputs(model, {name: inputs[name] for name in used})
    signatures = []
    if "logits" in together:
        signatures.append(Signature("classify", used, ("logits", "probabilities")))
    embeddings = {n: f"{INPUTS[n]}_embedding" for n in used}
    embeddings = {n: e for n, e in embeddings.items() if e in found[n]}
    if len(embeddings) == 2:
        signatures.append(Signature("embed", used, tuple(embeddings.values())))
    signatures += [
        Signature(f"embed_{INPUTS[name]}", (name,), (output,))
        for name, output in embeddings.items()
    ]
    if not signatures:
        raise UserError(
            "this model returns neither logits nor embeddings: there is nothing to "
            f"serve. It returns {sorted(together)}."
        )
    return signatures


def answer(model, signature: Signature, inputs: dict) -> dict:
    """What `signature` answers: the model's outputs, normalised, as float32."""
    import tensorflow as tf

    named = _outputs(model, {name: inputs[name] for name in signature.inputs})
    if "logits" in named:
        logits = tf.cast(named["logits"], "float32")
        activation = tf.nn.sigmoid if model.multi_label else tf.nn.softmax
        named = {**named, "logits": logits, "probabilities": activation(logits)}
    return {
        name: tf.math.l2_normalize(tf.cast(named[name], "float32"), -1)
        if name.endswith("_embedding")
        else named[name]
        for name in signature.outputs
    }


def _outputs(model, inputs):
    renamed = {INPUTS[name]: value for name, value in inputs.items()}
    return call_unmasked(model, renamed)


def _check_labels(model, inputs, signatures, labels):
    if signatures[0].name != "classify":
        raise UserError("labels were given, but this model has no classes to name.")
    num_classes = answer(model, signatures[0], inputs)["logits"].shape[-1]
    if len(labels) != num_classes:
        raise UserError(
            f"{len(labels)} labels for {num_classes} classes; give one per class, in "
            "the order of the data set that the model was fine-tuned on."
        )


def _write_saved_model(model, path, signatures, inputs):
    import keras
    import tensorflow as tf

    # The endpoints bring their variables along. `track` would look for lookup tables by
    # tracing every layer with default arguments: we have none, and it masks.
    archive = keras.export.ExportArchive()
    with exact_matmul.portable():  # it may be served on a GPU
        for signature in signatures:
            specs = {
                name: tf.TensorSpec((None, *inputs[name].shape[1:]), DTYPES[name], name)
                for name in signature.inputs
            }
            function = _endpoint(model, signature)
            # The first endpoint becomes serving_default as well.
            archive.add_endpoint(signature.name, tf.function(function), [specs])
        archive.write_out(str(path), verbose=False)


def _endpoint(model, signature):
    def serve(inputs):
        return answer(model, signature, inputs)

    return serve


def _write_extras(path, name, signatures, inputs, labels):
    if labels:
        text = "".join(f"{label}\n" for label in labels)
        (path / "assets").mkdir(exist_ok=True)
        (path / "assets" / "labels.txt").write_text(text, encoding="utf-8")
    requests = {s.name: {k: inputs[k] for k in s.inputs} for s in signatures}
    extra = path / "assets.extra" / "tf_serving_warmup_requests"
    warmup.write_requests(extra, name, requests)


@contextlib.contextmanager
def _replacing(target: pathlib.Path):
    """A directory beside `target` that takes its place once the block has succeeded.

    Its name is no number, so that a watching TF Serving never sees it half-written.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = pathlib.Path(tempfile.mkdtemp(prefix=".partial-", dir=target.parent))
    try:
        (scratch / "new").mkdir(mode=0o755)
        yield scratch / "new"
        if target.exists():
            target.rename(scratch / "old")
        (scratch / "new").rename(target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


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
    model,
    batch: dict,
    *,
    num_clips: int = 4,
    tolerance: float = 1e-4,
) -> Verification:
    """Compares the answers of a SavedModel with the model's.

    The SavedModel runs in a fresh process, in another directory, in which `tfavmae`
    cannot be imported.

    Args:
        path: from `export`.
        model: the model that was exported.
        batch: any batch of the pipeline; its first `num_clips` are asked about.
        num_clips: clips to ask about.
        tolerance: largest difference allowed, relative to the largest value.
    """
    inputs = example_inputs(batch, num_clips)
    answers = _run_without_tfavmae(pathlib.Path(path).resolve(), inputs)
    signatures = signatures_of(model, inputs)
    signatures.append(dataclasses.replace(signatures[0], name="serving_default"))
    differences, failures = {}, []
    for signature in signatures:
        for name, value in answer(model, signature, inputs).items():
            key, value = f"{signature.name}/{name}", np.asarray(value)
            differences[key] = float(np.abs(answers.pop(key) - value).max())
            # Written so that a NaN fails.
            if not differences[key] <= tolerance * max(1.0, np.abs(value).max()):
                failures.append(f"{key} by {differences[key]:.2g}")
    if failures or answers:
        extra = [f"{key} is not the model's" for key in answers]
        raise RuntimeError(f"{path} answers differently: {', '.join(failures + extra)}")
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
