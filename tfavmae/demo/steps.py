"""Steps of the demo: clips, pretraining, retrieval, fine-tuning, export, an answer.

Each step is a `tfavmae` command, printed before it runs and listed in the report.
Finished work is kept: the same command continues where it was stopped.
"""

import importlib.resources
import importlib.util
import json
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from tfavmae.demo.journal import Journal, Options, Step
from tfavmae.files import exclusive

_WORDS = {"audio": "sound", "video": "picture", "audio_video": "sound and picture"}
NUM_VIEWS = 5  # frames of a clip over which a classifier's probabilities are averaged
_SHAPES = "sounding_shapes/demo"

# A toy scale that runs everything and learns nothing: a few batches of eight, and each
# of the twelve classes in both splits.
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


def run(options: Options, run_command: Callable[[list[str]], Any]) -> pathlib.Path:
    """Runs the steps and writes the report.

    Every step runs again in a demo that was stopped: the commands recognise finished
    work, and the report needs what they return.

    Args:
        options: of the demo.
        run_command: runs a command, given its words, and returns its result.

    Returns:
        Path of `report.html`.

    Raises:
        UserError: a step failed, or the folder holds a demo of other options.
    """
    journal = Journal(options)
    page = journal.folder / "report.html"
    # A finished demo whose page was removed writes it again.
    if journal.is_finished and page.exists():
        return page
    with exclusive(journal.folder / "demo.lock", "demo"):
        journal = Journal(options)  # another process may have made steps since
        results: dict[str, Any] = {}
        make_steps = own_videos if options.videos else sounding_shapes
        for step in make_steps(options, results):
            results[step.name] = journal.run(step, run_command)
        # Only now: it imports TensorFlow, and the first step may end in a user's error.
        from tfavmae.demo import report

        results["serve"] = _serve(options, journal, results)
        with journal.timed("report"):
            report.write(page, options, journal, results)
        journal.finish(results)
    return page


def _serve(options: Options, journal: Journal, results: dict[str, Any]) -> Any:
    """Asks the export over HTTP about a held-out file; see `asking.Asked`."""
    from tfavmae.data.pipeline import open_split
    from tfavmae.demo import asking

    info = results["data"].info
    split = "validation" if "validation" in info.splits else "train"
    name = info.full_name.rsplit("/", 1)[0]
    folder = f"{options.workdir}/data/downloads/{name}/{split}"
    clips = open_split(name, split, f"{options.workdir}/data")
    file, label = asking.held_out_file(clips, pathlib.Path(options.videos or folder))
    export = results["export"].path.parent
    step = Step("serve", "Ask it over HTTP", asking.command_of(export))
    asked = journal.run(step, lambda argv: asking.ask(export, file, label))
    print(asked)
    return asked


def sounding_shapes(options: Options, results: dict[str, Any]) -> Iterator[Step]:
    """The steps on generated clips.

    Args:
        options: of the demo.
        results: results of the steps so far, by name; filled while this runs.
    """
    folder = options.workdir
    settings = _QUICK_DATA if options.is_quick else ()
    argv = ["data", "build", _SHAPES, "--data-dir", f"{folder}/data"]
    argv += ["--seed", str(options.seed), *_sets(settings)]
    yield Step("data", "Make clips", argv)
    # Without the version: a rebuilt data set may have a newer one.
    name = results["data"].info.full_name.rsplit("/", 1)[0]
    data = [f"data.dataset={name}", f"data.data_dir={folder}/data"]
    yield _pretrain(options, data)
    yield _retrieve(folder, "--gallery", str(options.gallery_size))
    for modality, words in _WORDS.items():
        yield from _classifier(options, modality, words, data)
    yield _export(folder, "finetune_audio_video", "sounding_shapes")
    yield from _index(folder, f"{folder}/clips", "--split", "validation[:20%]")


def own_videos(options: Options, results: dict[str, Any]) -> Iterator[Step]:
    """The steps on the user's files; with labels, a classifier of each modality.

    Args:
        options: of the demo.
        results: results of the steps so far, by name; filled while this runs.

    Raises:
        UserError: there are too few clips to train on.
    """
    from tfavmae import own_videos as own
    from tfavmae.config import experiment as config_lib
    from tfavmae.data.pipeline import open_split

    folder, videos = options.workdir, str(options.videos)
    files = ["--videos", videos, "--data-dir", f"{folder}/data"]
    recipe = config_lib.load(_recipe(options, "pretrain"), _training_keys(options))
    # What `pretrain --videos` would do by itself: the reader is to see it as a step.
    stored = own.storage_options(videos, recipe)
    name = stored.pop("name")
    argv = ["data", "build", f"clip_folder/{name}", *files]
    argv += _sets(f"{key}={json.dumps(value)}" for key, value in stored.items())
    yield Step("data", "Read the videos", argv)
    yield _pretrain(options, [], files)
    is_held_out = "validation" in results["data"].info.splits
    yield _retrieve(folder, "--split", "validation" if is_held_out else "train")
    source = "pretrain"
    if options.labels:
        train = open_split(f"clip_folder/{name}", "train", f"{folder}/data")
        has = {m: train.present(m).any() for m in ("audio", "video")}
        for modality, words in _WORDS.items():
            if all(has[part] for part in modality.split("_")):
                source = f"finetune_{modality}"
                keys = [f"model.modality={modality}"]
                more = [*files, "--labels", options.labels]
                yield from _classifier(options, modality, words, keys, more)
    yield _export(folder, source, "own_videos")
    yield from _index(folder, videos)


def _classifier(
    options: Options,
    modality: str,
    words: str,
    keys: list[str],
    files: Sequence[str] = (),
) -> Iterator[Step]:
    """Fine-tuning and evaluation of the classifier of a modality."""
    folder = options.workdir
    name = f"finetune_{modality}"
    run_folder = f"{folder}/{name}"
    argv = ["finetune", *_config(options, name, files), *files]
    argv += ["--workdir", run_folder, "--from", f"{folder}/pretrain"]
    argv += _sets([*keys, *_training_keys(options)])
    yield Step(name, f"Fine-tune on {words}", argv)
    argv = ["evaluate", "--workdir", run_folder]
    # Views are other frames of a clip, which a model of audio does not see.
    argv += [] if modality == "audio" else ["--views", str(NUM_VIEWS)]
    # What an ideal observer can reach is known of clips that lack nothing.
    argv += ["--complete"] if modality == "audio_video" else []
    yield Step(f"evaluate_{modality}", f"Classify by {words}", argv)


def _pretrain(options: Options, keys: list[str], files: Sequence[str] = ()) -> Step:
    argv = ["pretrain", *_config(options, "pretrain", files), *files]
    argv += ["--workdir", f"{options.workdir}/pretrain"]
    argv += _sets([*keys, *_training_keys(options)])
    argv += _sets(_QUICK_PRETRAINING if options.is_quick else ())
    return Step("pretrain", "Pretrain without labels", argv)


def _retrieve(folder: str, *arguments: str) -> Step:
    argv = ["retrieve", "--workdir", f"{folder}/pretrain", *arguments]
    return Step("retrieve", "Find pictures by sound and sound by picture", argv)


def _export(folder: str, source: str, name: str) -> Step:
    argv = ["export", "--workdir", f"{folder}/{source}"]
    # A demo that was stopped after its export exports again.
    argv += ["--directory", f"{folder}/export/{name}", "--overwrite"]
    return Step("export", "Export for TensorFlow Serving", argv)


def _index(folder: str, *arguments: str) -> Iterator[Step]:
    """An index to search in, if the extra `search` is installed."""
    if importlib.util.find_spec("lancedb"):
        argv = ["index", *arguments, "--workdir", f"{folder}/pretrain"]
        argv += ["--index", f"{folder}/index"]
        yield Step("index", "Make the clips searchable", argv)


def _config(options: Options, stage: str, files: Sequence[str]) -> list[str]:
    """`--config` and a recipe; nothing where the command has one of its own."""
    is_chosen = options.recipe and stage == "pretrain"
    return [] if files and not is_chosen else ["--config", _recipe(options, stage)]


def _recipe(options: Options, stage: str) -> str:
    """Path of a recipe, as short as it can be written here."""
    if stage == "pretrain" and options.recipe:
        return options.recipe
    files = importlib.resources.files("tfavmae_configs")
    folder, name = "cav_mae", f"{stage}_sounding_shapes_demo.yaml"
    if options.videos:
        folder, name = "own_videos", f"{stage}.yaml"
    path = str(files / folder / name)
    relative = os.path.relpath(path)
    return path if relative.startswith("..") else relative


def _training_keys(options: Options) -> list[str]:
    quick = _QUICK_TRAINING if options.is_quick else ()
    # Of a user's clips, the batch follows from their number.
    quick = [key for key in quick if not (options.videos and "batch_size" in key)]
    return [*quick, f"trainer.seed={options.seed}", *options.overrides]


def _sets(keys: Iterable[str]) -> list[str]:
    return [word for key in keys for word in ("--set", key)]
