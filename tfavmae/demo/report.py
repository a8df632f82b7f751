"""Report page of the demo, from the files and results of its steps."""

import importlib.metadata
import os
import pathlib
import platform
import shlex
from typing import Any

import numpy as np

from tfavmae.building.bad_files import read_bad_files
from tfavmae.config import experiment as config_lib
from tfavmae.config.experiment import DataConfig, ExperimentConfig
from tfavmae.data.pipeline import ClipSplit, open_split
from tfavmae.data.splits import place_of
from tfavmae.demo.asking import Asked
from tfavmae.demo.journal import Journal, Options
from tfavmae.report import page
from tfavmae.report.reconstructions import Reconstruction, reconstruct
from tfavmae.report.stored_clips import stored_clip
from tfavmae.tasks import retrieval, subsets
from tfavmae.training import experiment, factory
from tfavmae.training.runs import Run

# Few: the page carries its media itself.
_NUM_EXAMPLES = 6
_NUM_QUERIES = 4
_NUM_RECONSTRUCTIONS = 4
_FOLDER = "The media files of a folder, cut into clips."
_SHAPES = (
    "Generated clips of objects that move, hit the walls and sound. Some classes can "
    "be told only by ear, some only by eye, some only with both."
)
_PACKAGES = ("tfavmae", "tensorflow", "keras", "tensorflow-datasets", "numpy", "av")


def write(
    path: pathlib.Path, options: Options, journal: Journal, results: dict[str, Any]
) -> pathlib.Path:
    """Writes the page.

    Args:
        path: of the page.
        options: of the demo.
        journal: of the steps.
        results: what the commands returned, by step.

    Returns:
        The path.
    """
    folder = journal.folder / "pretrain"
    pretrained = experiment.load(folder)
    config = config_lib.load(folder / "config.yaml")
    splits = open_splits(config.data)
    shown = splits.get("validation", splits["train"])
    part = subsets.part_of_name(options.gallery_size)
    with np.load(folder / f"embeddings{part}_{shown.name}.npz") as arrays:
        vectors = dict(arrays)
    examples = retrieval.examples(vectors, num_queries=_NUM_QUERIES)
    rows = {row for one in examples for row in (one.query, *one.results)}
    stages, classification = {"pretraining": pretrained}, {}
    for name, result in results.items():
        step, _, modality = name.partition("_")
        if step == "finetune":
            stages[f"fine-tuning on {modality.replace('_', ' and ')}"] = result
        elif step == "evaluate":
            classification[modality] = result
    num_files = None
    if options.videos:
        ids = shown.ids()
        paired = retrieval.paired(vectors)["example_index"]
        num_files = len({place_of(ids[row])[0] for row in paired})
    learned_from = "your videos" if options.videos else "SoundingShapes"
    return page.write(
        path,
        page.Report(
            title=f"What a model learned from {learned_from}",
            subtitle="CAV-MAE: by filling in what is hidden, and by telling which "
            "sound belongs to which picture.",
            histories={name: stage.history for name, stage in stages.items()},
            passes={
                name: stage.history[-1]["step"]
                * stage.config.data.batch_size
                / splits["train"].num_examples
                for name, stage in stages.items()
            },
            chances={"pretraining": _contrast_chances(config.data.batch_size, shown)},
            reconstructions=_reconstructions(pretrained, config, shown),
            retrieval=results["retrieve"],
            retrieval_examples=examples,
            clips={row: stored_clip(shown, row) for row in rows},
            classification=classification,
            ceilings=dict(shown.metadata.get("ceilings", {})),
            dataset=_dataset(splits, results["data"], options, config),
            verification=results["export"],
            commands=_commands(journal, results["export"].path, results["serve"]),
            environment=_environment(journal),
            durations=_durations(journal),
            is_held_out="validation" in splits,
            num_files=num_files,
            advice=_advice(options, splits["train"]),
        ),
    )


def open_splits(data: DataConfig) -> dict[str, ClipSplit]:
    """The splits of a recipe's data set by name."""
    first = open_split(data.dataset, data.train_split, data.data_dir)
    names = [n for n in ("train", "validation", "test") if n in first.info.splits]
    return {name: open_split(data.dataset, name, data.data_dir) for name in names}


def _paired(split: ClipSplit) -> np.ndarray:
    """Whether each clip has audio and video."""
    return split.present("audio") & split.present("video")


def _contrast_chances(batch_size: int, split: ClipSplit) -> dict[str, float]:
    """Contrast in validation without a model: each batch is compared with itself."""
    counts = [
        int(_paired(split)[start : start + batch_size].sum())
        for start in range(0, split.num_examples, batch_size)
    ]
    sizes = np.array([count for count in counts if count])
    accuracy = len(sizes) / sizes.sum()
    names = ("audio_to_video", "video_to_audio")
    return {
        "contrast": float((sizes * np.log(sizes)).sum() / sizes.sum()),
        **{f"contrast_accuracy_{name}": float(accuracy) for name in names},
    }


def _reconstructions(
    pretrained: Run, config: ExperimentConfig, split: ClipSplit
) -> list[Reconstruction]:
    spec = factory.clip_spec(config.data, config.model, train=False)
    rows = split.rows(keep=("audio", "video"))[:_NUM_RECONSTRUCTIONS]
    batch = next(iter(split.evaluation_batches(spec, len(rows), indices=rows)))
    ids = split.ids()
    names = [ids[row] for row in rows]
    return reconstruct(pretrained.model, batch, len(rows), names)


def _dataset(
    splits: dict[str, ClipSplit],
    builder: Any,
    options: Options,
    config: ExperimentConfig,
) -> page.DatasetSummary:
    shown = splits.get("validation", splits["train"])
    rows = shown.rows(keep=("audio", "video"))[:_NUM_EXAMPLES]
    counts = [
        page.Split(
            name=split.name,
            num_clips=split.num_examples,
            hours=split.num_examples * config.data.clip_seconds / 3600,
            num_without_audio=int((~split.present("audio")).sum()),
            num_without_video=int((~split.present("video")).sum()),
        )
        for split in splits.values()
    ]
    summary = page.DatasetSummary(
        name=shown.info.full_name,
        splits=counts,
        examples=[stored_clip(shown, row) for row in rows],
    )
    if options.videos is None:
        summary.description, summary.facts = _SHAPES, {"seed": str(options.seed)}
    else:
        summary.description, summary.facts = _FOLDER, {"folder": options.videos}
        summary.bad_files = read_bad_files(builder.bad_files_path)
    return summary


def _commands(
    journal: Journal, export_path: pathlib.Path, asked: Asked
) -> list[page.Command]:
    """The commands of the steps, how to ask the model, and how to serve it."""
    listed = [
        page.Command(step["title"], step["command"])
        for name, step in journal.content["steps"].items()
        if "command" in step and name != "serve"
    ]
    model = pathlib.Path(export_path).parent
    ask = f"http://127.0.0.1:8501/v1/models/{model.name}:{asked.verb or 'embed'}"
    local = f"{shlex.join(['tfavmae', 'serve', str(model)])} &\n"
    local += shlex.join(["curl", "-F", f"file=@{asked.file or 'clip.mp4'}", ask])
    serve = (
        f"docker run -p 127.0.0.1:8501:8501 -v {model.resolve()}:/models/{model.name} "
        f"-e MODEL_NAME={model.name} tensorflow/serving"
    )
    if "index" in journal.content["steps"]:
        index = shlex.quote(str(journal.folder / "index"))
        search = f"tfavmae search --index {index} --serve"
        note = "A page in the browser: drop a clip, see and hear what is like it."
        listed.append(page.Command("Search in the clips", search, note))
    return [
        *listed,
        page.Command("Ask it over HTTP", local, str(asked)),
        page.Command(
            "Serve it with TensorFlow Serving",
            serve,
            "REST on port 8501. The demo does not run this.",
        ),
    ]


def _environment(journal: Journal) -> dict[str, str]:
    import tensorflow as tf

    steps = [s for s in journal.content["steps"].values() if "peak_gib" in s]
    versions = {name: importlib.metadata.version(name) for name in _PACKAGES}
    peak = max(step["peak_gib"] for step in steps)
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPU cores"
    devices = {device.device_type for device in tf.config.list_physical_devices()}
    return {
        "machine": machine,
        "devices": ", ".join(sorted(devices)),
        "Python": platform.python_version(),
        **versions,
        "peak memory": f"{peak:.1f} GiB, with all child processes",
    }


def _durations(journal: Journal) -> dict[str, float]:
    """Seconds by step; the steps that measure count as one."""
    shown: dict[str, float] = {}
    for name, seconds in journal.durations.items():
        # The report itself, while it is written.
        if not journal.content["steps"][name]["is_done"]:
            continue
        is_measuring = name.startswith(("evaluate", "retrieve"))
        title = "measuring" if is_measuring else name.replace("_", " ")
        shown[title] = shown.get(title, 0.0) + seconds
    return shown


def _advice(options: Options, train: ClipSplit) -> str:
    """What to do if nothing was learned."""
    if options.is_quick:
        return "A toy scale (--quick): everything ran, nothing was learned."
    if not options.videos:
        return ""
    count = int(_paired(train).sum())
    return (
        f"It learned from {count:,} clips with sound and picture. Add videos: a model "
        "needs thousands of clips of many places to tell which sound belongs to which "
        "picture."
    )
