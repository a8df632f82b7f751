"""Exports for other runtimes: LiteRT, ONNX, OpenVINO.

Each is one file of one signature that takes one clip of the model's size: these
runtimes plan their memory for it. They read arrays; the way from a file to an array is
theirs.
"""

import dataclasses
import importlib.util
import os
import pathlib
import shutil
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

from tfavmae import files
from tfavmae.errors import UserError, on_one_line, shown
from tfavmae.layers import gradients
from tfavmae.serving.export import Labels, assets_of
from tfavmae.serving.preprocessing import ClipForm
from tfavmae.serving.signatures import (
    Signature,
    answer,
    blank_inputs,
    example_inputs,
    signatures_of,
)
from tfavmae.tasks.forward import MODALITIES, Batch

Run = Callable[[Batch], dict[str, np.ndarray]]


class Answering(keras.Model):
    """A model that answers a signature, and nothing else.

    Args:
        model: see `signatures.signatures_of`.
        signature: one of its signatures.

    Call arguments:
        inputs: dict of modality to one clip of the model's size: `audio` float32
            `(1, samples)`, `video` `(1, frames, height, width, 3)` of 0 to 255.
    """

    def __init__(self, model: keras.Model, signature: Signature) -> None:
        super().__init__(name=signature.name)
        self.model, self.signature = model, signature
        self.built = True

    def call(self, inputs: Batch, training: bool = False) -> dict[str, Any]:
        return answer(self.model, self.signature, inputs)


@dataclasses.dataclass(frozen=True)
class Runtime:
    """A format and what runs it.

    Attributes:
        suffix: of its file.
        packages: modules that writing and running it needs, by the name on PyPI.
        load: from a path to a function of a clip's arrays.
    """

    suffix: str
    packages: dict[str, str]
    load: Callable[[pathlib.Path], Run]


def _load_litert(path: pathlib.Path) -> Run:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path))
    interpreter.allocate_tensors()
    (name,) = interpreter.get_signature_list()
    runner = interpreter.get_signature_runner(name)
    return lambda clip: dict(runner(**clip))


def _load_onnx(path: pathlib.Path) -> Run:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [x.name for x in session.get_outputs()]
    return lambda clip: dict(zip(names, session.run(names, clip), strict=True))


def _load_openvino(path: pathlib.Path) -> Run:
    import openvino

    # On CPUs that have bfloat16 it would compute in it.
    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(path, "CPU", settings)

    def run(clip: Batch) -> dict[str, np.ndarray]:
        found = compiled(clip)
        return {port.any_name: found[port] for port in compiled.outputs}

    return run


RUNTIMES = {
    "litert": Runtime(".tflite", {"ai_edge_litert": "ai-edge-litert"}, _load_litert),
    "onnx": Runtime(
        ".onnx", {"tf2onnx": "tf2onnx", "onnxruntime": "onnxruntime"}, _load_onnx
    ),
    "openvino": Runtime(".xml", {"openvino": "openvino"}, _load_openvino),
}


@dataclasses.dataclass(frozen=True)
class RuntimeExport:
    """A file that was written, and how far its answers are from the model's.

    Attributes:
        path: of the file.
        signature: that it answers.
        max_abs_difference: by output.
    """

    path: pathlib.Path
    signature: str
    max_abs_difference: dict[str, float]

    @property
    def worst(self) -> float:
        """The largest difference of all outputs."""
        return max(self.max_abs_difference.values())


def check_installed(kind: str) -> None:
    """Raises a `UserError` where what writes and runs a format is missing."""
    packages = RUNTIMES[kind].packages
    missing = [p for m, p in packages.items() if importlib.util.find_spec(m) is None]
    if missing:
        raise UserError(
            f"--format {kind} needs {', '.join(missing)}: "
            "pip install 'tfavmae[runtimes]'"
        )


def clip_of(inputs: Batch, form: ClipForm, modalities: tuple[str, ...]) -> Batch:
    """The first clip of a batch as these runtimes take it.

    Args:
        inputs: from `signatures.example_inputs`.
        form: of the export.
        modalities: of the signature.
    """
    clip = {m: np.asarray(inputs[m])[:1] for m in MODALITIES if m in modalities}
    if "audio" in clip:
        missing = form.spec.num_samples - clip["audio"].shape[1]
        clip["audio"] = np.pad(clip["audio"], ((0, 0), (0, missing)))
    return clip


def export(
    model: keras.Model,
    directory: str | os.PathLike,
    kind: str,
    *,
    batch: Batch | None = None,
    form: ClipForm | None = None,
    labels: Labels = (),
    card: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    tolerance: float = 1e-3,
) -> RuntimeExport:
    """Writes the model's default signature for another runtime, and runs it there.

    Args:
        model: see `signatures.signatures_of`.
        directory: gets `model.SUFFIX`, and beside it the files of class names, the
            preprocessing constants and the model card, as of `export.export`.
        kind: a key of `RUNTIMES`.
        batch: a batch of the pipeline, of which the first clip is compared. Default: a
            silent, black one.
        form, labels, card: see `export.export`.
        overwrite: whether to replace the file if it exists.
        tolerance: largest difference from the model's answer that is allowed, relative
            to the largest value.

    Raises:
        UserError: the file exists, a package is missing, the format cannot hold the
            model, or its answers differ; nothing is written then.
    """
    check_installed(kind)
    directory, runtime = pathlib.Path(directory), RUNTIMES[kind]
    form = form or ClipForm.of_model(model)
    inputs = blank_inputs(model, form) if batch is None else example_inputs(batch)
    target = directory / f"model{runtime.suffix}"
    if target.exists() and not overwrite:
        raise UserError(f"{target} exists already; overwrite it, or name another.")
    signature = signatures_of(model, inputs)[0]
    texts = assets_of(model, [signature], form, labels, card)
    clip = clip_of(inputs, form, signature.modalities)
    answering = Answering(model, signature)
    wanted = {k: np.asarray(x) for k, x in answering(clip).items()}
    lead = f"--format {kind}"
    with files.scratch_folder() as scratch:
        written = pathlib.Path(scratch, target.name)
        try:
            _convert(answering, written, kind, clip, sorted(wanted))
            found = runtime.load(written)(clip)
        except Exception as error:  # converters and runtimes have errors of their own
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise UserError(
                f"{lead}: cannot be converted ({on_one_line(shown(lines[0]))}); serve "
                "the SavedModel instead."
            ) from error
        differences = {k: float(np.abs(found[k] - x).max()) for k, x in wanted.items()}
        for name, x in wanted.items():
            # Not `>`: it would be False for NaN.
            if not differences[name] <= tolerance * max(1.0, np.abs(x).max()):
                raise UserError(
                    f"{lead}: `{name}` of the converted model differs from the model's "
                    f"by {differences[name]:.2g}; serve the SavedModel instead."
                )
        directory.mkdir(parents=True, exist_ok=True)
        for file in sorted(pathlib.Path(scratch).iterdir()):
            if file.name.startswith(target.stem):  # OpenVINO keeps weights in a second
                with files.replacing(directory / file.name) as partial:
                    shutil.copy(file, partial)
    for name, text in texts.items():
        files.write_atomically(directory / name, text)
    return RuntimeExport(target, signature.name, differences)


def _convert(
    answering: Answering,
    path: pathlib.Path,
    kind: str,
    clip: Batch,
    outputs: list[str],
) -> None:
    """Keras' own converter, and what its result needs."""
    specs = {
        name: keras.InputSpec(shape=x.shape, dtype=x.dtype.name, name=name)
        for name, x in clip.items()
    }
    options: dict[str, Any] = {"input_signature": [specs], "verbose": False}
    if kind == "litert":
        import tensorflow as tf

        # Keras allows operations that only a build with TensorFlow in it has, and
        # leaves the weights variables, which no delegate of a phone takes.
        builtins = {"supported_ops": [tf.lite.OpsSet.TFLITE_BUILTINS]}
        options |= {"target_spec": builtins}
        options |= {"experimental_enable_resource_variables": False}
    with gradients.forward_only():
        answering.export(str(path), format=kind, **options)
    if kind == "openvino":
        _name_outputs(path, outputs)


def _name_outputs(path: pathlib.Path, names: list[str]) -> None:
    """Gives OpenVINO's outputs their names: it keeps those of inner operations."""
    import openvino

    model = openvino.Core().read_model(path)
    if len(model.outputs) != len(names):
        raise ValueError(f"{len(model.outputs)} outputs instead of {len(names)}")
    for port, name in zip(model.outputs, names, strict=True):
        port.get_tensor().set_names({name})
    named = path.with_name(f"named-{path.name}")
    openvino.serialize(model, named)
    # Only now: the model reads its weights from the old file.
    del model
    for suffix in (".xml", ".bin"):
        named.with_suffix(suffix).replace(path.with_suffix(suffix))
