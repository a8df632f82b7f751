"""The report page of the demo, put together from what its steps left."""

import importlib.metadata
import os
import pathlib
import platform

import numpy as np

from tfavmae.config import experiment as config_lib
from tfavmae.data.pipeline import open_split
from tfavmae.report import page
from tfavmae.report.reconstructions import reconstruct
from tfavmae.tasks import retrieval
from tfavmae.training import experiment, factory

_NUM_EXAMPLES = 6
_NUM_QUERIES = 3
_NUM_RECONSTRUCTIONS = 4
_FOLDER = "The media files of a folder, cut into clips."
_SHAPES = (
    "Generated clips of objects that move, hit the walls and sound. Some classes can "
    "be told only by ear, some only by eye, some only with both."
)
_PACKAGES = ("tfavmae", "tensorflow", "keras", "tensorflow-datasets", "numpy", "av")


def write(path, options, journal, results) -> pathlib.Path:
    """Writes the page.

    Args:
        path: of the page.
        options: `demo.Options`.
        journal: `demo.Journal` of the steps.
        results: what the commands returned, by step.
    """
    folder = journal.folder
    trained = experiment.load(folder / "pretrain")
    config = config_lib.load(folder / "pretrain" / "config.yaml")
    splits = open_splits(config.data)
    shown = splits.get("validation", splits["train"])
    examples, clips = _retrieval_examples(folder, shown)
    name = "your videos" if options.videos else "SoundingShapes"
    return page.write(
        path,
        page.Report(
            title=f"What a model learned from {name}",
            subtitle="CAV-MAE: by filling in what is hidden, and by telling which "
            "sound belongs to which picture.",
            histories=_histories(results, trained),
            reconstructions=_reconstructions(trained, config, shown),
            retrieval=results["retrieve"],
            retrieval_examples=examples,
            clips=clips,
            classification={
                key.removeprefix("evaluate_"): result
                for key, result in results.items()
                if key.startswith("evaluate_")
            },
            ceilings=dict(shown.metadata.get("ceilings", {})),
            dataset=_dataset(splits, results["data"], options, config),
            verification=results["export"],
            commands=_commands(journal, results["export"].path),
            environment=_environment(journal),
            durations=_durations(journal),
            notes=_notes(options, splits, results["retrieve"]),
        ),
    )


def open_splits(data):
    """The splits of a config's data set by name."""
    first = open_split(data.dataset, data.train_split, data.data_dir)
    names = [
        name for name in ("train", "validation", "test") if name in first.info.splits
    ]
    return {name: open_split(data.dataset, name, data.data_dir) for name in names}


def to_clip(split, row) -> page.Clip:
    """A stored clip as the page shows it."""
    example = split.example(int(row))
    names = split.label_names("label")
    label = int(example.get("label", -1))
    return page.Clip(
        name=split.ids()[row],
        frames=np.stack(list(example["frames"])) if example["has_video"] else None,
        waveform=example["audio"] if example["has_audio"] else None,
        label=names[label] if names and label >= 0 else "",
    )


def _retrieval_examples(folder, split):
    (file,) = (folder / "pretrain").glob(f"embeddings_{split.name}.npz")
    with np.load(file) as vectors:
        examples = retrieval.examples(dict(vectors), num_queries=_NUM_QUERIES)
    rows = {row for one in examples for row in (one.query, *one.results)}
    return examples, {row: to_clip(split, row) for row in rows}


def _histories(results, trained):
    histories = {"pretraining": trained.history}
    for key, result in results.items():
        if key.startswith("finetune_"):
            title = key.removeprefix("finetune_").replace("_", " and ")
            histories[f"fine-tuning on {title}"] = result.history
    return histories


def _reconstructions(trained, config, split):
    spec = factory.clip_spec(config.data, config.model, train=False)
    rows = split.rows(keep=("audio", "video"))[:_NUM_RECONSTRUCTIONS]
    batch = next(iter(split.evaluation_batches(spec, len(rows), indices=rows)))
    ids = split.ids()
    return reconstruct(trained.model, batch, len(rows), [ids[row] for row in rows])


def _dataset(splits, builder, options, config):
    shown = splits.get("validation", splits["train"])
    rows = shown.rows(keep=("audio", "video"))[:_NUM_EXAMPLES]
    counts = [_count(split, config.data.clip_seconds) for split in splits.values()]
    own = options.videos is not None
    return page.DatasetSummary(
        name=shown.info.full_name,
        description=_FOLDER if own else _SHAPES,
        splits=counts,
        bad_files=_bad_files(builder) if own else [],
        facts={"folder": options.videos} if own else {"seed": str(options.seed)},
        examples=[to_clip(shown, row) for row in rows],
    )


def _count(split, clip_seconds):
    missing = {m: int((~split.present(m)).sum()) for m in ("audio", "video")}
    return page.Split(
        name=split.name,
        num_clips=split.num_examples,
        hours=split.num_examples * clip_seconds / 3600,
        num_without_audio=missing["audio"],
        num_without_video=missing["video"],
    )


def _bad_files(builder):
    import csv

    with open(builder.bad_files_path, newline="", encoding="utf-8") as file:
        return [(row["path"], row["reason"]) for row in csv.DictReader(file)]


def _commands(journal, export_path):
    listed = [
        page.Command(step["title"], step["command"])
        for step in journal.content["steps"].values()
        if "command" in step
    ]
    model = pathlib.Path(export_path).parent
    serve = (
        f"docker run -p 8501:8501 -v {model.resolve()}:/models/{model.name} "
        f"-e MODEL_NAME={model.name} tensorflow/serving"
    )
    ask = f"curl http://localhost:8501/v1/models/{model.name}/metadata"
    return [
        *listed,
        page.Command(
            "Serve the model", serve, "REST on port 8501; not run by the demo."
        ),
        page.Command("See what it answers", ask, "Signatures, inputs and outputs."),
    ]


def _environment(journal):
    steps = [s for s in journal.content["steps"].values() if "peak_gib" in s]
    versions = {name: importlib.metadata.version(name) for name in _PACKAGES}
    peak = max(step["peak_gib"] for step in steps)
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPU cores"
    return {
        "machine": machine,
        "devices": _devices(),
        "Python": platform.python_version(),
        **versions,
        "peak memory": f"{peak:.1f} GiB, with all child processes",
    }


def _devices():
    import tensorflow as tf

    return ", ".join(sorted({d.device_type for d in tf.config.list_physical_devices()}))


def _durations(journal):
    """Seconds by step, the fine-tunings apart from each other, measuring together."""
    shown = {}
    for name, seconds in journal.durations.items():
        is_measuring = name.startswith(("evaluate", "retrieve"))
        title = "measuring" if is_measuring else name.replace("_", " ")
        shown[title] = shown.get(title, 0.0) + seconds
    return shown


def _notes(options, splits, result):
    notes = []
    if options.is_quick:
        notes.append("A toy scale (--quick): everything ran, nothing was learned.")
    if "validation" not in splits:
        notes.append(
            "There were too few files to hold some back: retrieval was measured on "
            "clips that were trained on, so it shows less than it seems to."
        )
    if result.num_clips < 50:
        notes.append(
            f"Retrieval among {result.num_clips} clips is easy by chance alone; "
            "compare with the chance level, and add videos for a figure that counts."
        )
    return notes
