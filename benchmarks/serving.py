"""Time and memory of an export, and latency of a served model beside Keras' own.

    python benchmarks/serving.py --model cav_mae --size tiny

Ratios are of one run. Exporting is compared with building the model and tracing each
of its signatures once; latency through TensorFlow's C API with `predict_function`; the
round trip of one clip as files (WAV of 44.1 kHz, JPEG of 640 x 360) to `tfavmae serve`
with the model's own time for a clip as arrays.
"""

import argparse
import io
import pathlib
import resource
import statistics
import tempfile
import time

import keras
import numpy as np
import PIL.Image
import tensorflow as tf

from tfavmae.models import presets
from tfavmae.serving import c_loader
from tfavmae.serving.client import RestClient
from tfavmae.serving.export import export
from tfavmae.serving.local import local_server
from tfavmae.serving.preprocessing import ClipForm
from tfavmae.serving.signatures import Endpoints, blank_inputs, signatures_of
from tfavmae.serving.stored_weights import TYPES, StoredWeights
from tfavmae.serving.warmup_files import encoded

NUM_CLASSES = 309


def main() -> None:
    """Measures, and prints one figure a line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="cav_mae", help="name of a preset")
    parser.add_argument("--size", default="tiny", help="size of the preset")
    parser.add_argument("--weights", choices=TYPES, default="float32")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--repeats", type=int, default=10)
    args = parser.parse_args()
    begin = time.perf_counter()
    model = presets.build_classifier(args.model, args.size, num_classes=NUM_CLASSES)
    form = ClipForm.of_model(model)
    weights = StoredWeights(model, args.weights)
    endpoints = Endpoints(model, form, weights.scope)
    for signature in signatures_of(model, blank_inputs(model, form)):
        endpoints.make(signature)
    traced = time.perf_counter() - begin
    before, begin = _peak_mib(), time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        path = export(model, pathlib.Path(folder) / "model", weights=args.weights)
        exported = time.perf_counter() - begin
        size = sum(np.prod(v.shape) * 4 for v in model.weights) / 2**20
        print(f"building and tracing: {traced:.1f} s")
        print(f"exporting: {exported:.1f} s, {exported / traced:.2f} times as long")
        print(f"memory: {_peak_mib() - before:.0f} MiB more; weights {size:.0f} MiB")
        stored = sum(x.stat().st_size for x in path.rglob("*")) / 2**20
        print(f"size on disk: {stored:.0f} MiB")
        _print_latency(model, path, form, args)
        _print_round_trip(model, path, form, args.repeats)


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def _print_latency(
    model: keras.Model, path: pathlib.Path, form: ClipForm, args: argparse.Namespace
) -> None:
    served = c_loader.SavedModel(path)
    wanted = set(served.signatures["classify"].inputs)
    model.make_predict_function()
    for size in args.batch_sizes:
        clips = {
            name: np.repeat(x, size, axis=0)
            for name, x in blank_inputs(model, form).items()
        }
        inputs = {name: clips[name] for name in wanted}
        batch = {m: tf.constant(clips[m]) for m in model.modalities}

        def predict(batch: dict[str, tf.Tensor] = batch) -> None:
            model.predict_function([(batch,)])["logits"].numpy()

        def serve(inputs: dict[str, np.ndarray] = inputs) -> None:
            served.run("classify", inputs)

        ours, keras_own = _medians(serve, predict, args.repeats)
        print(
            f"batch {size}: {ours:.1f} ms, predict_function {keras_own:.1f} ms, "
            f"{ours / keras_own:.3f} times as long"
        )


def _print_round_trip(
    model: keras.Model, path: pathlib.Path, form: ClipForm, repeats: int
) -> None:
    served = c_loader.SavedModel(path)
    blank = blank_inputs(model, form)
    arrays = {name: blank[name] for name in served.signatures["classify"].inputs}
    rng = np.random.default_rng(0)
    files = {}
    if "audio" in model.modalities:
        seconds = blank["audio"].shape[1] / form.spec.sample_rate_hz
        noise = rng.uniform(-1, 1, (1, round(seconds * 44_100)))
        files["audio_bytes"] = encoded("audio", noise, 44_100)
    if "video" in model.modalities:
        pictures = [_jpeg(rng) for _ in range(blank["video"].shape[1])]
        files["video_bytes"] = np.array([pictures], object)
    with local_server(path.parent) as server:
        client = RestClient(server.models[0], server.url)
        whole, own = _medians(
            lambda: client.predict("classify_encoded", **files),
            lambda: served.run("classify", arrays),
            repeats,
        )
    print(
        f"a clip as files over HTTP: {whole:.1f} ms, the model alone {own:.1f} ms, "
        f"{whole / own:.3f} times as long"
    )


def _jpeg(rng: np.random.Generator) -> bytes:
    """A smooth picture, of about the size of a frame of a film."""
    small = PIL.Image.fromarray(rng.integers(0, 256, (36, 64, 3), "uint8"))
    buffer = io.BytesIO()
    small.resize((640, 360)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def _medians(first, second, repeats: int) -> list[float]:
    """Milliseconds of either, measured in turn."""
    times: tuple[list[float], list[float]] = ([], [])
    for turn in range(repeats + 2):
        for kept, function in zip(times, (first, second), strict=True):
            begin = time.perf_counter()
            function()
            if turn >= 2:
                kept.append(1000 * (time.perf_counter() - begin))
    return [statistics.median(x) for x in times]


if __name__ == "__main__":
    main()
