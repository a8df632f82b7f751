"""Contents of a report. Every part is optional; an absent part has no section."""

import dataclasses

import numpy as np

from tfavmae.report.reconstructions import Reconstruction
from tfavmae.serving.verification import Verification
from tfavmae.tasks.classification import ClassificationResult
from tfavmae.tasks.retrieval import RetrievalExample, RetrievalResult


@dataclasses.dataclass
class Clip:
    """A clip to be shown and played.

    Args:
        name: of the clip, e.g. its id.
        video: uint8 `(frames, height, width, 3)`; None if the clip has none.
        audio: int16 `(samples,)`; None if the clip has none.
        sample_rate_hz: of the audio.
        label: its class in words, if it has one.
        file: the media file that it was cut from, if several clips may share one.
    """

    name: str
    video: np.ndarray | None = None
    audio: np.ndarray | None = None
    sample_rate_hz: int = 16000
    label: str = ""
    file: str = ""


@dataclasses.dataclass
class Headline:
    """A figure, its name, and one sentence on what it means."""

    value: str
    label: str
    meaning: str


@dataclasses.dataclass
class Command:
    """A command that repeats a step, with an optional remark."""

    title: str
    command: str
    note: str = ""


@dataclasses.dataclass
class Split:
    """Counts of one split of the data set."""

    name: str
    num_clips: int
    hours: float
    num_without_audio: int = 0
    num_without_video: int = 0


@dataclasses.dataclass
class DatasetSummary:
    """The data set in figures and examples.

    Args:
        name: of the data set.
        description: one or two sentences.
        splits: counts by split.
        bad_files: `(path, reason)` of files that could not be used.
        facts: anything else worth listing, name to value.
        examples: clips shown at the top of the page.
    """

    name: str
    description: str = ""
    splits: list[Split] = dataclasses.field(default_factory=list)
    bad_files: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    facts: dict[str, str] = dataclasses.field(default_factory=dict)
    examples: list[Clip] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Report:
    """Everything that a page can show.

    Args:
        title: of the page.
        subtitle: one sentence below it.
        headlines: figures at the top; by default derived from the results below.
        histories: rows of `history.jsonl` by stage, e.g. `{"pretraining": rows}`.
        passes: how often each stage saw its training clips.
        chances: by stage, the value by chance of the curves for which there is one.
        reconstructions: from `reconstructions.reconstruct`.
        retrieval: from `tasks.retrieval.evaluate`.
        retrieval_examples: from `tasks.retrieval.examples`.
        clips: the clips of these examples, by `example_index`.
        classification: results by `audio`, `video`, `audio_video`.
        ceilings: the best accuracy that an ideal observer of each could reach.
        dataset: the data set.
        verification: from `serving.verification.verify_export`.
        commands: the commands that repeat the run.
        environment: versions and hardware, name to value.
        durations: seconds by step.
        notes: caveats, one paragraph each.
        is_held_out: whether the evaluated clips were kept out of training.
        num_files: media files that the clips of `retrieval` were cut from; None if
            each clip is a recording of its own.
        advice: what to do if the figures are no better than chance.
    """

    title: str
    subtitle: str = ""
    headlines: list[Headline] | None = None
    histories: dict[str, list[dict]] = dataclasses.field(default_factory=dict)
    passes: dict[str, float] = dataclasses.field(default_factory=dict)
    chances: dict[str, dict[str, float]] = dataclasses.field(default_factory=dict)
    reconstructions: list[Reconstruction] = dataclasses.field(default_factory=list)
    retrieval: RetrievalResult | None = None
    retrieval_examples: list[RetrievalExample] = dataclasses.field(default_factory=list)
    clips: dict[int, Clip] = dataclasses.field(default_factory=dict)
    classification: dict[str, ClassificationResult] = dataclasses.field(
        default_factory=dict
    )
    ceilings: dict[str, float] = dataclasses.field(default_factory=dict)
    dataset: DatasetSummary | None = None
    verification: Verification | None = None
    commands: list[Command] = dataclasses.field(default_factory=list)
    environment: dict[str, str] = dataclasses.field(default_factory=dict)
    durations: dict[str, float] = dataclasses.field(default_factory=dict)
    notes: list[str] = dataclasses.field(default_factory=list)
    is_held_out: bool = True
    num_files: int | None = None
    advice: str = ""
