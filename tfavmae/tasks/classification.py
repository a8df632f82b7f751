"""Classification scores of a fine-tuned model, overall and per class."""

import dataclasses
from collections.abc import Iterable, Sequence

import keras
import numpy as np
import scipy.special
from rich.table import Table

from tfavmae.errors import UserError
from tfavmae.tasks import metrics
from tfavmae.tasks.forward import (
    MODALITIES,
    Batch,
    clips_present,
    first_views,
    forward,
    mean_over_views,
)
from tfavmae.tasks.metrics import Estimate
from tfavmae.tasks.results import Result, clips_of_files


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
        num_views: views per clip whose probabilities were averaged.
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
            title=f"classification from {' and '.join(self.modalities)}",
            caption=f"{clips_of_files(self.num_clips, self.num_files)} evaluated, "
            f"{self.num_left_out} left out; "
            f"{self.num_views:g} views a clip; "
            f"{num_defined} of {len(self.classes)} classes occur",
        )
        if self.accuracy:
            table.add_row("accuracy", str(self.accuracy))
        if self.top5_accuracy:
            table.add_row("top-5 accuracy", str(self.top5_accuracy))
        table.add_row("mAP", f"{self.mean_average_precision:.4f}")
        table.add_row("AUC", f"{self.mean_auc:.4f}")
        table.add_row("d-prime", f"{self.d_prime:.3f}")
        for name, own in self.by_presence.items():
            value = own.accuracy or f"{own.mean_average_precision:.4f}"
            kind = "accuracy" if own.accuracy else "mAP"
            table.add_row(f"{kind} of {own.num_clips} with {name}", str(value))
        return table

    def class_table(self) -> Table:
        """A table with one row per class."""
        table = Table("class", "clips", "recall", "AP", "AUC")
        for one in self.classes:
            values = (one.recall, one.average_precision, one.auc)
            table.add_row(one.name, str(one.num_clips), *[f"{v:.3f}" for v in values])
        return table


def evaluate(
    model: keras.Model,
    batches: Iterable[Batch],
    *,
    label: str = "label",
    class_names: Sequence[str] | None = None,
    modalities: Sequence[str] | None = None,
    files: np.ndarray | None = None,
) -> ClassificationResult:
    """Scores a classifier on every clip that has something it reads, and a label.

    A clip that lacks one of two modalities is classified by the other and counts; the
    figures of `by_presence` tell such clips apart.

    Probabilities (softmax or sigmoid, as the model was trained) are averaged over the
    views of a clip, as CAV-MAE averages over ten frames. Where the model predicts
    segments of a clip, each counts by itself.

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

    Raises:
        UserError: no clip can be evaluated, or the names are those of other classes.
    """
    keep = ["example_index", label, *[f"{m}_present" for m in MODALITIES]]
    rows = forward(model, batches, ["logits"], keep)
    index, present = rows["example_index"], clips_present(rows)
    targets = first_views(rows[label], index)
    num_segments = rows["logits"].shape[1] if rows["logits"].ndim == 3 else 0
    is_single = targets.ndim == 1
    usable = targets >= 0 if is_single else np.ones(len(targets), bool)
    probabilities = mean_probabilities(rows["logits"], index, model.activation)
    # Asked for by name, a clip must have all; else one is enough to be classified.
    wanted = [present[m] for m in modalities or model.modalities]
    usable &= np.all(wanted, axis=0) if modalities else np.any(wanted, axis=0)
    if not usable.any():
        which = " and " if modalities else " or "
        raise UserError(
            f"None of the {len(usable)} clips has "
            f"{which.join(modalities or model.modalities)} and a {label!r}, so nothing "
            "can be evaluated; check the labels of the split."
        )
    if files is not None:
        files = files[np.unique(index)][usable]
    probabilities, targets = probabilities[usable], targets[usable]
    if num_segments:
        # Segments of a clip are no independent draws: intervals are over its clips.
        files = np.arange(len(targets)) if files is None else files
        files = np.repeat(files, num_segments)
        probabilities = probabilities.reshape(-1, probabilities.shape[-1])
        targets = targets.reshape(-1).astype("int64")
    result = score(probabilities, targets, class_names, files)
    return dataclasses.replace(
        result,
        modalities=tuple(modalities or model.modalities),
        by_presence=_by_presence(
            probabilities,
            targets,
            {m: present[m][usable] for m in model.modalities},
            max(1, num_segments),
        ),
        num_clips=int(usable.sum()),
        num_segments=num_segments,
        num_left_out=int((~usable).sum()),
        num_views=len(index) / len(usable),
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


def mean_probabilities(
    logits: np.ndarray, example_index: np.ndarray, activation: str
) -> np.ndarray:
    """Probabilities of each clip, averaged over its views: float64 `(clips, classes)`.

    Args:
        logits: `(views, ..., classes)`.
        example_index: int `(views,)`, the clip of each row.
        activation: `sigmoid` or `softmax`.
    """
    # In float64: confident float32 probabilities round to 1 and tie, and AP and AUC
    # depend on the order alone.
    logits = logits.astype("float64")
    if activation == "sigmoid":
        probabilities = scipy.special.expit(logits)
    else:
        probabilities = scipy.special.softmax(logits, axis=-1)
    return mean_over_views(probabilities, example_index)


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
            f"Received {len(names)} class names for a model with {num_classes} "
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
