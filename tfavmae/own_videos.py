"""Training on a folder of media files: what follows from the files, and why.

`storage_options` says how the files are stored as clips, `choose` which keys of the
recipe follow from these clips. Everything else is the recipe's.
"""

import dataclasses
import json
import math
import os
from collections.abc import Collection
from typing import Any

import numpy as np

from tfavmae.building.decoding import probe_files
from tfavmae.building.worker_pool import WorkerPool
from tfavmae.config.experiment import ExperimentConfig
from tfavmae.data.pipeline import ClipSplit, open_split
from tfavmae.data.statistics import spectrogram_statistics
from tfavmae.errors import UserError
from tfavmae.layers.spectrogram import LogMelSpectrogram
from tfavmae_datasets.clip_folder.listing import list_folder

_NUM_PROBED = 200  # files whose lengths are looked at
_NUM_MEASURED = 500  # clips whose spectrograms are measured
_MIN_MONITORED = 20  # validation clips by which weights are chosen
# Passes over the training clips, and limits of the steps, by stage.
_PASSES = {"pretrain": 60, "finetune": 30}
_MIN_STEPS = 100
_NUM_VALIDATIONS = 10


@dataclasses.dataclass(frozen=True)
class Choice:
    """A value that follows from the files.

    Attributes:
        key: of the recipe.
        value: of the key.
        reason: for people.
    """

    key: str
    value: Any
    reason: str

    @property
    def override(self) -> str:
        """As an argument of `--set`."""
        return f"{self.key}={json.dumps(self.value)}"


def storage_options(
    videos: str | os.PathLike,
    recipe: ExperimentConfig,
    labels: str | os.PathLike | None = None,
    *,
    is_length_fixed: bool = False,
) -> dict[str, Any]:
    """How a folder is stored for a recipe: fields of `ClipFolderConfig`.

    - `clip_seconds`: the recipe's; less where nine of ten files are shorter, because
      the rest of a clip would be padding.
    - `min_seconds`: a quarter of a clip, at most half a second: what is shorter is
      mostly padding.
    - `frame_rate`: 8 a second, or what gives the recipe's stride between frames.
    - `shorter_side`: twice what the model sees, for crops and larger models later.
    - `validation_fraction`: a fifth of the files, because a tenth of a small folder is
      one or two files; a tenth of 200 files or more.

    Args:
        videos: the folder.
        recipe: with the user's changes.
        labels: CSV of the labels.
        is_length_fixed: whether clips must have the recipe's length.

    Raises:
        UserError: there is no such folder, or no file in it can be read.
    """
    listing = list_folder(videos)
    names = listing.files
    step = max(1, len(names) // _NUM_PROBED)
    paths = [os.fspath(listing.folder / name) for name in names[::step]]
    with WorkerPool() as pool:
        outcomes = list(probe_files(pool, paths))
    lengths = [o.value.duration_seconds or 0.0 for o in outcomes if o.value is not None]
    if not lengths:
        raise UserError(f"{paths[0]}: {outcomes[0].reason}; so are all others tried")
    seconds = recipe.data.clip_seconds
    if not is_length_fixed:
        long = math.ceil(10 * float(np.quantile(lengths, 0.9))) / 10
        seconds = min(seconds, max(long, 0.2))
    stride = recipe.data.frame_stride_seconds
    frame = recipe.model.video
    options = {
        "name": "videos" if labels is None else "labelled",
        "clip_seconds": seconds,
        "min_seconds": min(0.5, seconds / 4),
        # The smallest rate from 8 a second on of which the stride is a whole number.
        "frame_rate": math.ceil(8 * stride - 1e-6) / stride if stride else 8.0,
        "shorter_side": 2 * max(frame.height, frame.width),
        "validation_fraction": 0.2 if len(names) < 200 else 0.1,
    }
    if labels is not None:
        options["labels"] = os.fspath(labels)
    return options


def inputs_of(source: ExperimentConfig) -> list[str]:
    """Overrides that give a recipe the model and the inputs of a run.

    Its weights fit no other model, and were trained on no other numbers.
    """
    model, data = source.model, source.data
    values = {"model.name": model.name, "model.size": model.size}
    for name in ("audio", "video"):
        section = getattr(model, name).as_dict()
        values |= {f"model.{name}.{key}": value for key, value in section.items()}
    values["data.clip_seconds"] = data.clip_seconds
    values["data.frame_stride_seconds"] = data.frame_stride_seconds
    return [f"{key}={json.dumps(value)}" for key, value in values.items()]


def choose(
    recipe: ExperimentConfig,
    options: dict[str, Any],
    dataset: str,
    data_dir: str,
    *,
    given: Collection[str] = (),
    keeps_length: bool = False,
    keeps_inputs: bool = False,
) -> list[Choice]:
    """The keys of a recipe that follow from a folder's clips, each with its reason.

    Args:
        recipe: with the user's changes.
        options: of `storage_options`.
        dataset: name of the data set that was built with them.
        data_dir: its folder.
        given: keys that the user has set, which stay.
        keeps_length: leave the length of the training and its schedule to the recipe.
        keeps_inputs: leave the model's inputs to the recipe, whose weights they fit.

    Raises:
        UserError: there are too few clips to train on.
    """
    train = open_split(dataset, "train", data_dir)
    has_validation = "validation" in train.info.splits
    found = [
        Choice("data.dataset", dataset, "your files, cut into clips"),
        Choice("data.data_dir", data_dir, "its folder"),
    ]
    if not has_validation:
        reason = "a single file: nothing is held back to validate with"
        found.append(Choice("data.validation_split", None, reason))
    if not keeps_inputs:
        found += _inputs(recipe, options, train)
    counts, folder = _Counts(train), train.metadata.get("videos")
    if counts.all < 2:
        raise UserError(
            f"{folder} gives {counts.all} clip of {options['clip_seconds']:g} s to "
            "train on; at least 2 are needed to tell one from another, add videos"
        )
    if recipe.stage == "finetune":
        found.append(Choice("model.modality", counts.modality, str(counts)))
    elif counts.both < 2:
        raise UserError(
            f"{folder}: pretraining compares audio with video, and {counts}; add "
            "videos with sound"
        )
    found += _length(recipe, counts.all, given, keeps_length)
    if has_validation and not keeps_length:
        validation = open_split(dataset, "validation", data_dir)
        found += _monitor(recipe, train, validation)
    return [choice for choice in found if choice.key not in given]


def _inputs(
    recipe: ExperimentConfig, options: dict[str, Any], train: ClipSplit
) -> list[Choice]:
    """Length of the clips, and normalization of their spectrograms."""
    found, seconds = [], options["clip_seconds"]
    audio = recipe.model.audio
    front_end = LogMelSpectrogram(
        audio.num_frames, audio.num_mel_bins, variant=audio.variant
    )
    if seconds != recipe.data.clip_seconds:
        reason = "nine of ten files are not longer"
        found.append(Choice("data.clip_seconds", seconds, reason))
    patch = audio.patch_size[0]
    available = front_end.count_frames(round(seconds * audio.sample_rate_hz))
    num_frames = max(1, available // patch) * patch
    if num_frames != audio.num_frames:
        reason = f"whole patches of {patch} that {seconds:g} s fill, 10 ms apart"
        found.append(Choice("model.audio.num_frames", num_frames, reason))
    if train.present("audio").any():
        mean, std, count = spectrogram_statistics(
            train, front_end, seconds, _NUM_MEASURED
        )
        reason = f"measured on {count} of your training clips"
        if audio.statistics is not None:
            found.append(Choice("model.audio.statistics", None, "measured instead"))
        found += [
            Choice("model.audio.mean", round(mean, 2), reason),
            # Of digital silence it is 0.
            Choice("model.audio.std", max(round(std, 2), 0.1), reason),
        ]
    return found


class _Counts:
    """Numbers of training clips by what they have."""

    def __init__(self, train: ClipSplit) -> None:
        audio, video = train.present("audio"), train.present("video")
        self.all, self.both = train.num_examples, int((audio & video).sum())
        self.audio, self.video = int(audio.sum()), int(video.sum())

    def __str__(self) -> str:
        return (
            f"of {self.all} training clips {self.both} have both, {self.audio} audio, "
            f"{self.video} video"
        )

    @property
    def modality(self) -> str:
        """What a classifier reads: both where most clips have both."""
        if 2 * self.both >= self.all:
            return "audio_video"
        return "audio" if self.audio >= self.video else "video"


def _length(
    recipe: ExperimentConfig,
    count: int,
    given: Collection[str],
    keeps_length: bool,
) -> list[Choice]:
    """Batch, steps and schedule for a number of training clips."""
    found, stage, usual = [], recipe.stage, recipe.data.batch_size
    # A power of two, so that devices and micro-batches divide it. Contrast needs other
    # clips in the batch; a classifier learns more from more steps.
    parts = {"pretrain": 2, "finetune": 4}[stage]
    batch = min(usual, max(2, 2 ** int(math.log2(max(count / parts, 1)))))
    if "data.batch_size" in given:
        batch = usual
    if batch != usual:
        reason = f"at least {parts} steps to a pass over {count} training clips"
        found.append(Choice("data.batch_size", batch, reason))
        # Adam's noise grows with the square root of the batch.
        rate = float(f"{recipe.optimizer.learning_rate * math.sqrt(batch / usual):.2g}")
        if not recipe.optimizer.learning_rate_per_256:
            reason = f"the recipe's, for a batch of {batch} instead of {usual}"
            found.append(Choice("optimizer.learning_rate", rate, reason))
    if keeps_length:
        return found
    steps, most = recipe.trainer.num_steps, recipe.trainer.num_steps
    if "trainer.num_epochs" in given:
        passes = recipe.trainer.num_epochs or 0.0
        steps = max(1, math.ceil(passes * count / batch))
        found.append(Choice("trainer.num_steps", steps, f"{passes:g} passes"))
    elif "trainer.num_steps" not in given:
        passes = _PASSES[stage]
        steps = min(max(round(passes * count / batch), _MIN_STEPS), most)
        reason = f"{passes} passes, at least {_MIN_STEPS} steps and at most {most}"
        found.append(Choice("trainer.num_steps", steps, reason))
    every = max(1, steps // _NUM_VALIDATIONS)
    reason = f"{_NUM_VALIDATIONS} validations and checkpoints in the run"
    found += [
        Choice("trainer.steps_per_epoch", every, reason),
        Choice("trainer.checkpoint_every_steps", every, reason),
        Choice("optimizer.warmup_steps", steps // 10, "a tenth of the steps"),
    ]
    return found


def _monitor(
    recipe: ExperimentConfig, train: ClipSplit, validation: ClipSplit
) -> list[Choice]:
    """The metric that chooses the weights to keep, if enough clips were held back."""
    metric, mode, count = "val_loss", "min", validation.num_examples
    if recipe.stage == "finetune":
        metric, mode = "val_accuracy", "max"
        label = recipe.data.label
        known = np.isin(validation.labels(label), np.unique(train.labels(label)))
        count = int(known.sum())
    if count < _MIN_MONITORED:
        reason = f"{count} validation clips of known classes are too few to choose by"
        return [Choice("trainer.monitor", None, f"{reason}: the last weights are kept")]
    reason = f"the weights that did best on {count} clips held back are kept"
    return [
        Choice("trainer.monitor", metric, reason),
        Choice("trainer.monitor_mode", mode, f"which {metric} is best"),
    ]
