"""VGGSounder: VGGSound's test clips with several labels, each with its modality.

The labels and the measures are those of Zverev et al., "VGGSounder: audio-visual
evaluations for foundation models", 2025, whose package `vggsounder` has the labels as
CSV: columns `video_id`, `label`, `modality` (`A` is heard, `V` is seen, `AV` both), and
flags of the clip.
"""

import csv
import dataclasses
import importlib.util
import os
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
from rich.table import Table

from tfavmae.errors import UserError, shown
from tfavmae.tasks import metrics
from tfavmae.tasks.metrics import Estimate
from tfavmae.tasks.results import Result
from tfavmae.tasks.scores import Scores

INPUTS = ("audio_video", "audio", "video")
# Of each subset: the input whose answers are measured, and the tags of its labels.
SUBSETS: dict[str, tuple[str, tuple[str, ...]]] = {
    "seen and heard": ("audio_video", ("AV",)),
    "heard": ("audio", ("A", "AV")),
    "seen": ("video", ("V", "AV")),
    "heard only": ("audio", ("A",)),
    "seen only": ("video", ("V",)),
}
_COLUMNS = ("video_id", "label", "modality")
_TAGS = ("A", "V", "AV")
_FILE = pathlib.Path("data", "vggsounder+background-music.csv")


@dataclasses.dataclass
class SubsetScore:
    """Figures of one input against the labels of some tags.

    Args:
        num_clips: clips with such a label.
        hit: by k, share of clips with one of their labels among the k highest scores.
        f1: by k, of the k highest scores against the labels, over all pairs of clip and
            class (the micro average).
        jaccard: likewise: true positives over all that is true or predicted.
        mean_average_precision: over the classes that occur.
    """

    num_clips: int
    hit: dict[int, Estimate]
    f1: dict[int, float]
    jaccard: dict[int, float]
    mean_average_precision: float


@dataclasses.dataclass
class VGGSounderResult(Result):
    """Figures of VGGSounder.

    Args:
        num_clips: clips with scores and labels.
        num_left_out: clips with scores and without labels.
        subsets: by name, see `SUBSETS`, of the inputs that there are scores of.
        confusion: modality confusion: the share of clips for whose labels, of any tag,
            the highest score of `audio`, of `video`, or of both of them, each alone, is
            right and that of both inputs together is wrong. Empty unless all three
            inputs are there.
    """

    num_clips: int
    num_left_out: int
    subsets: dict[str, SubsetScore]
    confusion: dict[str, Estimate]

    def table(self) -> Table:
        ks = list(next(iter(self.subsets.values())).hit)
        table = Table(
            *("labels", "n", *[f"hit@{k}" for k in ks]),
            *(*[f"F1@{k}" for k in ks], "mAP"),
            title="VGGSounder",
            caption=f"{self.num_clips} clips evaluated, {self.num_left_out} left out",
        )
        for name, one in self.subsets.items():
            hits = [str(one.hit[k]) for k in ks]
            f1 = [f"{100 * one.f1[k]:.1f}" for k in ks]
            precision = f"{one.mean_average_precision:.4f}"
            table.add_row(name, str(one.num_clips), *hits, *f1, precision)
        return table

    def notes(self) -> list[str]:
        confusion = [
            f"modality confusion, {name.replace('_', ' and ')}: {one}"
            for name, one in self.confusion.items()
        ]
        return [*confusion, *super().notes()]


def labels_file(path: str | os.PathLike | None = None) -> pathlib.Path:
    """The CSV of labels: `path`, or that of the installed package `vggsounder`.

    Raises:
        UserError: there is none.
    """
    if path is not None:
        return pathlib.Path(path)
    # Not imported: the package wants others that its labels do not need.
    found = importlib.util.find_spec("vggsounder")
    if found is None or not found.submodule_search_locations:
        raise UserError(
            "the labels of VGGSounder are needed: --labels CSV, or run: pip install "
            "--no-deps vggsounder"
        )
    return pathlib.Path(found.submodule_search_locations[0], _FILE)


def read_labels(path: str | os.PathLike) -> dict[str, dict[str, str]]:
    """Labels of each clip with their tags: `{video_id: {label: "A", "V" or "AV"}}`.

    Raises:
        UserError: there is no such file, or a row is damaged; names the row.
    """
    found: dict[str, dict[str, str]] = {}
    try:
        with open(path, newline="", encoding="utf-8") as file:
            rows = csv.DictReader(file)
            missing = [x for x in _COLUMNS if x not in (rows.fieldnames or ())]
            if missing:
                raise UserError(f"{path}: has no column {', '.join(missing)}")
            for row in rows:
                clip, label, tag = (row[x] for x in _COLUMNS)
                if not clip or not label or tag not in _TAGS:
                    raise UserError(
                        f"{path}: line {rows.line_num} must have a clip, a label and "
                        f"one of {', '.join(_TAGS)}; received {shown(tag)}"
                    )
                found.setdefault(clip, {})[label] = tag
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: cannot be read as the labels ({error})") from error
    if not found:
        raise UserError(f"{path}: has no labels")
    return found


def measure(
    scores: Mapping[str, Scores],
    labels: Mapping[str, Mapping[str, str]],
    ks: Sequence[int] = (1, 5),
) -> VGGSounderResult:
    """Measures a model's answers to VGGSound's test clips against VGGSounder.

    Args:
        scores: by input, one of `INPUTS`, of one model: `audio_video` and, where they
            are known, those with the other modality hidden.
        labels: of `read_labels`.
        ks: how many of the highest scores count.

    Raises:
        UserError: the scores are of other clips or classes, or no clip has labels.
    """
    first = scores["audio_video"]
    names = _class_names(first)
    for one in scores.values():
        if _class_names(one) != names or one.ids.tolist() != first.ids.tolist():
            raise UserError(
                "the scores must be of the same clips and classes; write them with "
                "`tfavmae evaluate --save-scores`, and --only for one modality"
            )
    known = [i for i, clip in enumerate(first.ids.tolist()) if _key(clip) in labels]
    if not known:
        raise UserError(
            "none of the clips is of VGGSounder; its ids are those of VGGSound's test "
            f"clips, such as {next(iter(labels))}; received {shown(first.ids[0])}"
        )
    tags = [labels[_key(first.ids[i])] for i in known]
    ranked = {
        m: next(iter(one.logits.values()))[known].astype("float64")
        for m, one in scores.items()
    }
    subsets = {}
    for name, (m, wanted) in SUBSETS.items():
        hot = _hot(tags, names, wanted)
        has = hot.any(1)
        if m in ranked and has.any():
            subsets[name] = _score(ranked[m][has], hot[has], ks)
    confusion = {}
    if set(ranked) == set(INPUTS):
        hot = _hot(tags, names, _TAGS)
        rows = np.arange(len(hot))
        right = {m: hot[rows, x.argmax(1)] for m, x in ranked.items()}
        alone = {m: right[m] & ~right["audio_video"] for m in ("audio", "video")}
        alone["audio_video"] = alone["audio"] & alone["video"]
        confusion = {m: metrics.bootstrap(x.astype(float)) for m, x in alone.items()}
    return VGGSounderResult(len(known), len(first.ids) - len(known), subsets, confusion)


def _key(clip: str) -> str:
    """The id of a clip in VGGSounder."""
    return str(clip).rpartition("/")[2].removesuffix(".mp4")


def _class_names(scores: Scores) -> list[str]:
    if len(scores.labels) != 1 or next(iter(scores.logits.values())).ndim != 2:
        raise UserError("the scores must be of one label a clip")
    names = scores.class_names.get(scores.labels[0])
    if not names:
        raise UserError("the classes of the scores have no names to go by")
    return names


def _hot(
    tags: Sequence[Mapping[str, str]], names: Sequence[str], wanted: Sequence[str]
) -> np.ndarray:
    """bool `(clips, classes)`: which labels of some tags each clip has.

    Raises:
        UserError: a label is no class of the model.
    """
    numbers = {name: i for i, name in enumerate(names)}
    hot = np.zeros((len(tags), len(names)), bool)
    for row, own in enumerate(tags):
        for label, tag in own.items():
            if label not in numbers:
                raise UserError(
                    f"the model has no class {shown(label)} of VGGSounder; it must be "
                    "one of VGGSound's 309 classes"
                )
            if tag in wanted:
                hot[row, numbers[label]] = True
    return hot


def _score(scores: np.ndarray, hot: np.ndarray, ks: Sequence[int]) -> SubsetScore:
    order = np.argsort(-scores, axis=1, kind="stable")
    hit, f1, jaccard = {}, {}, {}
    for k in ks:
        predicted = np.zeros_like(hot)
        np.put_along_axis(predicted, order[:, :k], True, axis=1)
        both = (predicted & hot).sum()
        hit[k] = metrics.bootstrap((predicted & hot).any(1).astype(float))
        f1[k] = float(2 * both / (predicted.sum() + hot.sum()))
        jaccard[k] = float(both / (predicted | hot).sum())
    precisions = metrics.average_precision(hot.astype(float), scores)
    mean = metrics.mean_over_classes(precisions)
    return SubsetScore(len(hot), hit, f1, jaccard, float(mean))
