"""The whole way in one go: clips, pretraining, retrieval, fine-tuning, export, report.

Each step is a `tfavmae` command, printed before it runs and listed in the report. What
was done stays done: the same command goes on where it was stopped.
"""

import dataclasses
import importlib.resources
import json
import os
import pathlib
import shlex
import time

from tfavmae.demo.memory import PeakMemory
from tfavmae.errors import UserError

MODALITIES = ("audio", "video", "audio_video")
_WORDS = {"audio": "sound", "video": "picture", "audio_video": "sound and picture"}
GALLERY_SIZE = 500
NUM_VIEWS = 5  # frames of a clip over which a classifier's probabilities are averaged
_SHAPES = "sounding_shapes/demo"

# A toy scale that runs everything and learns nothing.
_QUICK_DATA = ("name=quick", "num_train_clips=48", "num_validation_clips=24")
_QUICK_TRAINING = (
    "data.batch_size=8",
    "optimizer.warmup_steps=1",
    "trainer.num_steps=4",
    "trainer.steps_per_epoch=4",
    "trainer.log_every_steps=1",
    "model.options.num_layers=2",
)
_QUICK_PRETRAINING = ("model.options.decoder.num_layers=1",)
_QUICK_GALLERY_SIZE = 16


@dataclasses.dataclass(frozen=True)
class Options:
    """What to run, and where.

    Args:
        workdir: folder of everything that is made.
        videos: folder of the user's media files; None generates SoundingShapes.
        seed: of the data and of all models.
        is_quick: a toy scale, for tests.
        recipe: pretraining recipe instead of the demo's.
        overrides: further `key=value` for all recipes.
    """

    workdir: str = "runs/demo"
    videos: str | None = None
    seed: int = 0
    is_quick: bool = False
    recipe: str | None = None
    overrides: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Step:
    """One command.

    Args:
        name: short and unique, a key of `summary.json`.
        title: what it does, for people.
        argv: the command without its first word.
    """

    name: str
    title: str
    argv: list[str]

    @property
    def command(self) -> str:
        return shlex.join(["tfavmae", *self.argv])


def run(options: Options, run_command) -> pathlib.Path:
    """Runs all steps that are not done and writes the report.

    Args:
        options: what to run.
        run_command: runs `argv` and returns the command's result.

    Returns:
        Path of `report.html`.
    """
    journal = Journal(options)
    page = journal.folder / "report.html"
    if journal.is_finished and page.exists():
        return page
    results = {}
    make_steps = own_videos if options.videos else sounding_shapes
    for step in make_steps(options, results):
        results[step.name] = journal.run(step, run_command)
    from tfavmae.demo import report

    with journal.timed("report"):
        report.write(page, options, journal, results)
    journal.finish(results)
    return page


def sounding_shapes(options: Options, results: dict):
    """The steps on generated clips; later ones may look at `results`."""
    folder = options.workdir
    settings = _QUICK_DATA if options.is_quick else ()
    argv = ["data", "build", _SHAPES, "--data-dir", f"{folder}/data"]
    argv += ["--seed", str(options.seed), *_sets(settings)]
    yield Step("data", "Make clips", argv)
    data = _data_keys(folder, results["data"])
    yield _pretrain(options, data)
    gallery = _QUICK_GALLERY_SIZE if options.is_quick else GALLERY_SIZE
    yield _retrieve(folder, "--gallery", str(gallery))
    for modality in MODALITIES:
        yield from _classify(options, data, modality)
    yield _export(folder, "finetune_audio_video", "sounding_shapes")


def own_videos(options: Options, results: dict):
    """The steps that need no labels, on the user's files."""
    folder = options.workdir
    recipe = _load_recipe(options)
    frame = recipe.model.video
    argv = ["data", "build", "clip_folder", "--videos", options.videos]
    argv += ["--clip-seconds", f"{recipe.data.clip_seconds:g}"]
    # Twice what the model sees, so that training can crop.
    argv += ["--set", f"shorter_side={2 * max(frame.height, frame.width)}"]
    yield Step("data", "Read the videos", [*argv, "--data-dir", f"{folder}/data"])
    builder = results["data"]
    data = [*_data_keys(folder, builder), *_fitting(builder, recipe, options)]
    yield _pretrain(options, data)
    split = "validation" if "validation" in builder.info.splits else "train"
    yield _retrieve(folder, "--split", split)
    yield _export(folder, "pretrain", "own_videos")


def _pretrain(options, data):
    argv = ["pretrain", "--config", _recipe(options, "pretrain")]
    argv += ["--workdir", f"{options.workdir}/pretrain", *_training_sets(options, data)]
    argv += _sets(_QUICK_PRETRAINING if options.is_quick else ())
    return Step("pretrain", "Pretrain without labels", argv)


def _retrieve(folder, *arguments):
    argv = ["retrieve", "--workdir", f"{folder}/pretrain", *arguments]
    return Step("retrieve", "Find pictures by sound and sound by picture", argv)


def _classify(options, data, modality):
    folder = f"{options.workdir}/finetune_{modality}"
    argv = ["finetune", "--config", _recipe(options, f"finetune_{modality}")]
    argv += ["--workdir", folder, "--from", f"{options.workdir}/pretrain"]
    argv += _training_sets(options, data)
    name, words = f"finetune_{modality}", _WORDS[modality]
    yield Step(name, f"Fine-tune on {words}", argv)
    argv = ["evaluate", "--workdir", folder]
    if modality != "audio":
        argv += ["--views", str(NUM_VIEWS)]
    yield Step(f"evaluate_{modality}", f"Classify by {words}", argv)


def _export(folder, source, name):
    argv = ["export", "--workdir", f"{folder}/{source}"]
    argv += ["--directory", f"{folder}/export/{name}", "--overwrite"]
    return Step("export", "Export for TensorFlow Serving", argv)


def _recipe(options, stage) -> str:
    """Path of a recipe, as short as it can be written here."""
    if stage == "pretrain" and options.recipe:
        return options.recipe
    files = importlib.resources.files("tfavmae_configs")
    path = os.fspath(files / "cav_mae" / f"{stage}_sounding_shapes_demo.yaml")
    relative = os.path.relpath(path)
    return path if relative.startswith("..") else relative


def _load_recipe(options):
    from tfavmae.config import experiment as config_lib

    overrides = _training_keys(options)
    return config_lib.load(_recipe(options, "pretrain"), overrides)


def _data_keys(folder, builder):
    name = builder.info.full_name.rsplit("/", 1)[0]
    return [f"data.dataset={name}", f"data.data_dir={folder}/data"]


def _training_keys(options):
    quick = _QUICK_TRAINING if options.is_quick else ()
    return [*quick, f"trainer.seed={options.seed}", *options.overrides]


def _training_sets(options, data):
    return _sets([*data, *_training_keys(options)])


def _sets(keys):
    return [word for key in keys for word in ("--set", key)]


def _fitting(builder, recipe, options):
    """Changes that a small data set needs."""
    splits = builder.info.splits
    count = splits["train"].num_examples
    if count < 2:
        raise UserError(
            f"{options.videos} gives {count} clip of {recipe.data.clip_seconds:g} s to "
            "train on; at least 2 are needed to tell one from another, add videos"
        )
    if count < recipe.data.batch_size:
        yield f"data.batch_size={count}"
    if "validation" not in splits:
        yield "data.validation_split=null"


class Journal:
    """`summary.json`: which steps are done, how long they took, what came out.

    Args:
        options: another workdir than one that holds a demo of other options.
    """

    def __init__(self, options: Options):
        self.folder = pathlib.Path(options.workdir)
        self.path = self.folder / "summary.json"
        asked = dataclasses.asdict(options) | {"overrides": list(options.overrides)}
        self.content = {"options": asked, "steps": {}, "is_finished": False}
        if self.path.exists():
            self._continue()
        self.folder.mkdir(parents=True, exist_ok=True)

    def _continue(self):
        content = json.loads(self.path.read_text())
        ours, theirs = self.content["options"], content["options"]
        for key, value in ours.items():
            if theirs.get(key) != value:
                raise UserError(
                    f"{self.folder} holds a demo with {key}={theirs.get(key)!r}, not "
                    f"{value!r}; use another --workdir"
                )
        self.content = content

    @property
    def is_finished(self) -> bool:
        return self.content["is_finished"]

    @property
    def durations(self) -> dict[str, float]:
        """Seconds by step."""
        return {k: s["seconds"] for k, s in self.content["steps"].items()}

    def run(self, step: Step, run_command):
        """Runs a step, with its command printed first."""
        from rich.console import Console

        console = Console(soft_wrap=True, highlight=False)
        console.rule(step.title, align="left")
        console.print(f"$ {step.command}", style="bold", markup=False)
        with self.timed(step.name) as entry:
            entry |= {"title": step.title, "command": step.command}
            return run_command(step.argv)

    def timed(self, name):
        return _Timed(self, name)

    def finish(self, results):
        """Marks the demo as done and keeps its figures."""
        kept = {k: r.to_dict() for k, r in results.items() if hasattr(r, "to_dict")}
        self.content |= {"results": kept, "is_finished": True}
        self.write()

    def write(self):
        partial = self.path.with_suffix(".partial")
        partial.write_text(json.dumps(self.content, indent=1) + "\n")
        partial.replace(self.path)


class _Timed:
    """Adds time and peak memory of a block to its entry.

    A step that was stopped counts with all its parts; one that was done and is only
    looked at again keeps what it took.
    """

    def __init__(self, journal, name):
        self.journal = journal
        new = {"seconds": 0.0, "peak_gib": 0.0, "is_done": False}
        self.entry = journal.content["steps"].setdefault(name, new)

    def __enter__(self):
        self.started = time.monotonic()
        self.memory = PeakMemory().__enter__()
        return self.entry

    def __exit__(self, kind, error, traceback):
        self.memory.__exit__()
        if not self.entry["is_done"]:
            seconds = self.entry["seconds"] + time.monotonic() - self.started
            peak = max(self.entry["peak_gib"], self.memory.peak_bytes / 2**30)
            self.entry |= {"seconds": round(seconds, 2), "peak_gib": round(peak, 3)}
            self.entry["is_done"] = error is None
        self.journal.write()
