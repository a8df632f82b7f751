"""Classification scores of a fine-tuned model, overall and per class."""

import dataclasses
from collections.abc import Iterable, Sequence

import keras
import numpy as np
from rich.table import Table

from tfavmae.errors import UserError
from tfavmae.tasks import metrics
from tfavmae.tasks.forward import MODALITIES, Batch, clips_present, forward
from tfavmae.tasks.metrics import Estimate
from tfavmae.tasks.results import Result, averaged, clips_of_files
from tfavmae.tasks.scores import Scores, mean_probabilities, score_clips


@dataclasses.dataclass
class ClassScore:
    """Scores of one class; `num_clips` is the number of its positives.

    Recall is of the highest probability, for multi-label sets of probabilities from 0.5
    on. A score that is not defined without positives (or negatives) is NaN.
    """

    name: str
    num_clips: int
    recall: float
    average_precision: float
    auc: float


@dataclasses.dataclass
class PresenceScore:
    """Scores of the clips that have the same modalities; see `ClassificationResult`."""

    num_clips: int
    accuracy: Estimate | None
    mean_average_precision: float


@dataclasses.dataclass
class ClassificationResult(Result):
    """Scores of a classifier on `num_clips` clips.

    Args:
        modalities: modalities that each clip had, all or one of them.
        num_clips: clips evaluated.
        num_left_out: clips not evaluated because they lack what the model reads, or a
            label.
        num_views: views per clip that were averaged.
        accuracy: share of clips with the highest probability at their label; `None` for
            multi-label sets.
        top5_accuracy: share of clips with their label among the five highest
            probabilities; `None` for multi-label sets and fewer than ten classes.
        mean_average_precision: mean over the classes that have positives.
        mean_auc: mean over the classes that have positives and negatives.
        d_prime: d-prime of `mean_auc`.
        classes: scores of each class.
        confusion: counts `(true, predicted)`; `None` for multi-label sets.
        num_files: files that the clips were cut from, over which the intervals are
            drawn; `None` if that was not asked for.
        num_segments: segments of each clip that were scored; 0 for the clip itself.
        by_presence: scores of the clips that have both modalities (`audio and video`),
            `audio only` or `video only`; empty where all clips have all.
        num_runs: runs that were averaged (`tfavmae ensemble`).
        mean: what was averaged, `logits` or `probabilities`.
    """

    modalities: tuple[str, ...]
    num_clips: int
    num_left_out: int
    num_views: float
    accuracy: Estimate | None
    top5_accuracy: Estimate | None
    mean_average_precision: float
    mean_auc: float
    d_prime: float
    classes: list[ClassScore]
    confusion: np.ndarray | None
    num_files: int | None = None
    num_segments: int = 0
    by_presence: dict[str, PresenceScore] = dataclasses.field(default_factory=dict)
    num_runs: int = 1
    mean: str = "probabilities"

    @property
    def chance(self) -> float:
        """Accuracy of naming the most frequent class every time."""
        return max(one.num_clips for one in self.classes) / self._num_scored

    @property
    def chance_precision(self) -> float:
        """Mean average precision of random scores: the mean share of positives."""
        shares = [one.num_clips / self._num_scored for one in self.classes]
        return float(np.mean([share for share in shares if share]))

    @property
    def _num_scored(self) -> int:
        return self.num_clips * max(1, self.num_segments)

    def table(self) -> Table:
        num_defined = sum(not np.isnan(c.average_precision) for c in self.classes)
        table = Table(
            "figure",
            "value",
            "n",
            title=f"classification from {' and '.join(self.modalities)}",
            caption=f"{clips_of_files(self.num_clips, self.num_files)} evaluated, "
            f"{self.num_left_out} left out; "
            f"{averaged(self.num_views, self.num_runs, self.mean)}; "
            f"{num_defined} of {len(self.classes)} classes occur",
        )
        for row in self.rows():
            table.add_row(*row)
        return table

    def rows(self) -> list[tuple[str, str, str]]:
        """Name, value and n of every figure."""
        num_defined = sum(not np.isnan(c.average_precision) for c in self.classes)
        scored = f"{self._num_scored}{' segments' if self.num_segments else ''}"
        classes = f"{scored}, {num_defined} classes"
        rows = []
        if self.accuracy:
            rows.append(("accuracy", str(self.accuracy), scored))
        if self.top5_accuracy:
            rows.append(("top-5 accuracy", str(self.top5_accuracy), scored))
        rows.append(("mAP", f"{self.mean_average_precision:.4f}", classes))
        rows.append(("AUC", f"{self.mean_auc:.4f}", classes))
        rows.append(("d-prime", f"{self.d_prime:.3f}", classes))
        for name, own in self.by_presence.items():
            value = own.accuracy or f"{own.mean_average_precision:.4f}"
            kind = "accuracy" if own.accuracy else "mAP"
            rows.append((f"{kind} with {name}", str(value), str(own.num_clips)))
        return rows

    def class_table(self) -> Table:
        """`class_rows` for the terminal."""
        table = Table(*self.class_head)
        for row in self.class_rows():
            table.add_row(*row)
        return table

    @property
    def class_head(self) -> tuple[str, ...]:
        """Names of the columns of `class_rows`.

        The recall of a class is its accuracy where a clip has one class.
        """
        recall = "accuracy" if self.accuracy else "recall at 0.5"
        return ("class", "n", "AP", "AUC", recall)

    def class_rows(self) -> list[tuple[str, ...]]:
        """The figures of each class, the highest average precision first."""
        rows = []
        precisions = np.array([one.average_precision for one in self.classes])
        # NaN, of classes that do not occur, is sorted to the end.
        for number in np.argsort(-precisions, kind="stable"):
            one = self.classes[number]
            values = (one.average_precision, one.auc, one.recall)
            cells = ["-" if np.isnan(value) else f"{value:.3f}" for value in values]
            rows.append((one.name, str(one.num_clips), *cells))
        return rows


def evaluate(
    model: keras.Model,
    batches: Iterable[Batch],
    *,
    label: str = "label",
    class_names: Sequence[str] | None = None,
    modalities: Sequence[str] | None = None,
    files: np.ndarray | None = None,
    mean: str = "probabilities",
) -> ClassificationResult:
    """Scores a classifier on every clip that has something it reads, and a label.

    Args:
        model: a classifier with the output `logits` `(batch, classes)` or
            `(batch, segments, classes)`.
        batches: evaluation batches.
        label: name of the label entry: class number `(batch,)` or `(batch, segments)`,
            negative for none, or 0/1 `(batch, classes)`.
        class_names: names of the classes.
        modalities: modalities that a clip must have to be evaluated; default: any of
            the model's.
        files: int, the file of each clip of the split, by `example_index`
            (`Split.files`); intervals are drawn over files then, over clips if None.
        mean: what is averaged over the views of a clip, see `scores.score_clips`.

    Raises:
        UserError: no clip can be evaluated, or the names are those of other classes.
    """
    scores = score_clips(model, batches, [label], mean=mean)
    if modalities:
        scores = dataclasses.replace(
            scores, modalities=tuple(modalities), complete=True
        )
    names = {label: list(class_names) if class_names else None}
    scores = dataclasses.replace(scores, class_names=names)
    return measure(scores, None if files is None else files[scores.rows])


def measure(scores: Scores, files: np.ndarray | None = None) -> ClassificationResult:
    """Figures of the scores of one label.

    A clip that lacks one of two modalities is classified by the other and counts; the
    figures of `by_presence` tell such clips apart. Where the model predicts segments of
    a clip, each counts by itself.

    Args:
        scores: of the clips.
        files: int `(clips,)`, the file of each clip, over which intervals are drawn;
            `None` to take each clip for its own.

    Raises:
        UserError: no clip can be evaluated, or the names are those of other classes.
    """
    (label,), usable = scores.labels, scores.usable()
    probabilities = scores.probabilities[label][usable]
    targets = scores.targets[label][usable]
    num_segments = probabilities.shape[1] if probabilities.ndim == 3 else 0
    files = None if files is None else files[usable]
    if num_segments:
        # Segments of a clip are no independent draws: intervals are over its clips.
        files = np.arange(len(targets)) if files is None else files
        files = np.repeat(files, num_segments)
        probabilities = probabilities.reshape(-1, probabilities.shape[-1])
        targets = targets.reshape(-1).astype("int64")
    result = score(probabilities, targets, scores.class_names.get(label), files)
    return dataclasses.replace(
        result,
        modalities=scores.modalities,
        by_presence=_by_presence(
            probabilities,
            targets,
            {m: scores.present[m][usable] for m in scores.modalities},
            max(1, num_segments),
        ),
        num_clips=int(usable.sum()),
        num_segments=num_segments,
        num_left_out=int((~usable).sum()),
        num_views=scores.num_views,
        num_runs=scores.num_runs,
        mean=scores.mean,
    )


def _by_presence(
    probabilities: np.ndarray,
    targets: np.ndarray,
    present: dict[str, np.ndarray],
    rows_per_clip: int,
) -> dict[str, PresenceScore]:
    """Scores of the clips that have both modalities, or one alone; empty if all have.

    Args:
        probabilities: `(clips * rows_per_clip, classes)`.
        targets: of the same rows.
        present: by modality whether a clip has it, bool `(clips,)`.
        rows_per_clip: segments of a clip, or 1.
    """
    has_all = np.all([*present.values()], axis=0)
    if has_all.all():
        return {}
    groups = {" and ".join(present): has_all}
    groups |= {f"{m} only": has & ~has_all for m, has in present.items()}
    scores = {}
    for name, clips in groups.items():
        if clips.any():
            rows = np.repeat(clips, rows_per_clip)
            own = score(probabilities[rows], targets[rows])
            scores[name] = PresenceScore(
                int(clips.sum()), own.accuracy, own.mean_average_precision
            )
    return scores


def predict(
    model: keras.Model, batches: Iterable[Batch]
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Classifies every clip, whether or not it has a label.

    Args:
        model: a classifier with the output `logits` `(batch, classes)`.
        batches: evaluation batches.

    Returns:
        Probabilities as of `mean_probabilities`; and by modality whether a clip has it,
        bool `(clips,)`: the model reads zeros where it does not.

    Raises:
        UserError: the batches hold no clip.
    """
    keep = ["example_index", *[f"{m}_present" for m in MODALITIES]]
    rows = forward(model, batches, ["logits"], keep)
    index = rows["example_index"]
    probabilities = mean_probabilities(rows["logits"], index, model.activation)
    return probabilities, clips_present(rows)


def score(
    probabilities: np.ndarray,
    targets: np.ndarray,
    class_names: Sequence[str] | None = None,
    files: np.ndarray | None = None,
) -> ClassificationResult:
    """Scores from arrays, without a model.

    Args:
        probabilities: `(clips, classes)`.
        targets: class numbers `(clips,)` or 0/1 `(clips, classes)`.
        class_names: names of the classes; default: their numbers.
        files: int `(clips,)`, the file of each clip; None to take each for its own.

    Raises:
        UserError: the number of names is not that of the classes.
    """
    num_clips, num_classes = probabilities.shape
    names = list(class_names or [f"class {i}" for i in range(num_classes)])
    if len(names) != num_classes:
        raise UserError(
            f"received {len(names)} class names for a model with {num_classes} "
            "classes; evaluate it on the data set that it was fine-tuned on."
        )
    is_single = targets.ndim == 1
    onehot = np.eye(num_classes)[targets] if is_single else targets
    aucs = metrics.roc_auc(onehot, probabilities)
    precisions = metrics.average_precision(onehot, probabilities)
    predicted = probabilities.argmax(-1)
    is_hit = np.eye(num_classes)[predicted] if is_single else probabilities >= 0.5
    counts = onehot.sum(0)
    recalls = (is_hit * onehot).sum(0) / np.where(counts, counts, np.nan)
    accuracy = top5_accuracy = confusion = None
    if is_single:
        accuracy = _accuracy(probabilities, targets, 1, files)
        confusion = metrics.confusion_matrix(predicted, targets, num_classes)
    # Of fewer classes, guessing five finds half of them or more.
    if is_single and num_classes >= 10:
        top5_accuracy = _accuracy(probabilities, targets, 5, files)
    mean_auc = metrics.mean_over_classes(aucs)
    return ClassificationResult(
        modalities=(),
        num_clips=num_clips,
        num_left_out=0,
        num_views=1,
        accuracy=accuracy,
        top5_accuracy=top5_accuracy,
        mean_average_precision=metrics.mean_over_classes(precisions),
        mean_auc=mean_auc,
        d_prime=metrics.d_prime(mean_auc),
        classes=[
            ClassScore(name, int(n), float(r), float(p), float(a))
            for name, n, r, p, a in zip(
                names, counts, recalls, precisions, aucs, strict=True
            )
        ],
        confusion=confusion,
        num_files=None if files is None else len(np.unique(files)),
    )


def _accuracy(probabilities, targets, k, files):
    hits = metrics.top_k_hits(probabilities, targets, k)
    return metrics.bootstrap(hits, groups=files)
