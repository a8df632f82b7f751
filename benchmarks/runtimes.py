"""Parity, size and latency of a model in LiteRT, ONNX Runtime and OpenVINO.

    python benchmarks/runtimes.py                       # an audio classifier of 1 s
    python benchmarks/runtimes.py --modality audio_video --seconds 10.24

The model has random weights; its answers in each runtime are compared with Keras' own,
and its time for one clip with that of TensorFlow's C API on the exported SavedModel, in
turn. Prints a Markdown table, with what cannot be converted in words.
"""

import argparse
import pathlib
import statistics
import tempfile
import time

import numpy as np

from tfavmae.errors import UserError
from tfavmae.models import presets
from tfavmae.serving import c_loader, runtimes
from tfavmae.serving.export import export
from tfavmae.serving.preprocessing import ClipForm
from tfavmae.serving.signatures import blank_inputs, example_inputs


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="cav_mae", help="name of a preset")
    parser.add_argument("--size", default="tiny", help="size of the preset")
    parser.add_argument("--modality", default="audio")
    parser.add_argument("--seconds", type=float, default=0.96, help="of audio")
    parser.add_argument("--num-classes", type=int, default=35)
    parser.add_argument("--repeats", type=int, default=50)
    args = parser.parse_args()
    options = {}
    if "audio" in args.modality:
        options["audio"] = {"num_frames": round(100 * args.seconds)}
    model = presets.build_classifier(
        args.model, args.size, args.modality, num_classes=args.num_classes, **options
    )
    form = ClipForm.of_model(model)
    batch = noise(model, form)
    size = sum(np.prod(v.shape) for v in model.weights) * 4 / 2**20
    print(f"{args.model} {args.size} {args.modality}: weights of {size:.1f} MiB\n")
    with tempfile.TemporaryDirectory() as folder:
        print("| runtime | largest difference | size, MiB | ms per clip | |")
        print("| --- | --- | --- | --- | --- |")
        for row in rows(model, form, batch, pathlib.Path(folder), args.repeats):
            print(f"| {' | '.join(row)} |", flush=True)


def noise(model, form):
    """One clip of noise."""
    rng = np.random.default_rng(0)
    clip = {m: blank_inputs(model, form)[m] for m in model.modalities}
    if "audio" in clip:
        clip["audio"] = rng.uniform(-1, 1, clip["audio"].shape).astype("float32")
    if "video" in clip:
        clip["video"] = rng.integers(0, 256, clip["video"].shape, "uint8")
    return clip


def rows(model, form, batch, folder, repeats):
    """The rows of the table: TensorFlow's, then one for each runtime."""
    path = export(model, folder / "saved", batch=batch, form=form)
    served = c_loader.SavedModel(path)
    inputs = example_inputs(batch)
    asked = {k: inputs[k] for k in served.signatures["serving_default"].inputs}
    base = lambda: served.run("serving_default", asked)  # noqa: E731
    wanted = model({m: batch[m] for m in model.modalities}, training=False)["logits"]
    difference = np.abs(base()["logits"] - np.asarray(wanted)).max()
    yield (
        "TensorFlow",
        f"{difference:.0e}",
        size_of(path),
        f"{median(base, repeats):.2f}",
        "",
    )
    for kind, runtime in runtimes.RUNTIMES.items():
        try:
            written = runtimes.export(
                model, folder / kind, kind, batch=batch, form=form
            )
        except UserError as error:
            yield kind, "", "", "", str(error)
            continue
        clip = runtimes.clip_of(inputs, form, tuple(model.modalities))
        run = runtime.load(written.path)
        ours, theirs = in_turn(lambda run=run, clip=clip: run(clip), base, repeats)
        yield (
            kind,
            f"{written.worst:.0e}",
            size_of(folder / kind),
            f"{ours:.2f}",
            f"{ours / theirs:.2f} times TensorFlow's",
        )


def size_of(folder):
    """MiB of the files below a folder."""
    total = sum(x.stat().st_size for x in folder.rglob("*") if x.is_file())
    return f"{total / 2**20:.1f}"


def median(function, repeats):
    """Milliseconds of a call."""
    return in_turn(function, lambda: None, repeats)[0]


def in_turn(first, second, repeats):
    """Median milliseconds of either, measured in turn."""
    times = ([], [])
    for turn in range(repeats + 5):
        for kept, function in zip(times, (first, second), strict=True):
            begin = time.perf_counter()
            function()
            if turn >= 5:
                kept.append(1000 * (time.perf_counter() - begin))
    return [statistics.median(x) for x in times]


if __name__ == "__main__":
    main()
