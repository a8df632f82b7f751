"""How well a fine-tuned model names what it sees and hears."""

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np

from tfavmae.errors import UserError
from tfavmae.tasks import metrics
from tfavmae.tasks.forward import MODALITIES, first_views, forward, mean_over_views
from tfavmae.tasks.metrics import Estimate
from tfavmae.tasks.results import Result


@dataclasses.dataclass
class ClassScore:
    """One class: positives among the evaluated clips, recall, AP and AUC."""

    name: str
    num_clips: int
    recall: float
    average_precision: float
    auc: float


@dataclasses.dataclass
class ClassificationResult(Result):
    """Scores of a classifier on `num_clips` clips.

    Args:
        modalities: what the model was given.
        num_clips: clips evaluated.
        num_left_out: clips not evaluated because they lack a modality or a label.
        num_views: frames (views) per clip whose probabilities were averaged.
        accuracy: highest probability at the label (absent for multi-label sets).
        top5_accuracy: same with five guesses; None for fewer than ten classes.
        mean_average_precision: mean over the classes that have positives.
        mean_auc: mean over the classes that have positives and negatives.
        d_prime: from `mean_auc`.
        classes: scores of each class.
        confusion: counts `(true, predicted)`; None for multi-label sets.
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

    def table(self):
        from rich.table import Table

        num_defined = sum(not np.isnan(c.average_precision) for c in self.classes)
        table = Table(
            "figure",
            "value",
            title=f"classification from {' and '.join(self.modalities)}",
            caption=f"{self.num_clips} clips evaluated, {self.num_left_out} left out; "
            f"{self.num_views:g} views a clip; "
            f"{num_defined} of {len(self.classes)} classes occur",
        )
        for name, value in self._rows():
            table.add_row(name, value)
        return table

    def class_table(self):
        """One line per class as a `rich.table.Table`."""
        from rich.table import Table

        table = Table("class", "clips", "recall", "AP", "AUC")
        for one in self.classes:
            values = (one.recall, one.average_precision, one.auc)
            table.add_row(one.name, str(one.num_clips), *[f"{v:.3f}" for v in values])
        return table

    def _rows(self):
        if self.accuracy:
            yield "accuracy", str(self.accuracy)
        if self.top5_accuracy:
            yield "top-5 accuracy", str(self.top5_accuracy)
        yield "mAP", f"{self.mean_average_precision:.4f}"
        yield "AUC", f"{self.mean_auc:.4f}"
        yield "d-prime", f"{self.d_prime:.3f}"


def evaluate(
    model,
    batches: Iterable[dict],
    *,
    label: str = "label",
    class_names: Sequence[str] | None = None,
    modalities: Sequence[str] | None = None,
) -> ClassificationResult:
    """Scores `model` on every clip of `batches` that has what it needs.

    Probabilities (softmax for one label per clip, sigmoid for several) are averaged
    over the views of a clip.

    Args:
        model: a classifier returning `logits` `(batch, classes)`.
        batches: evaluation batches.
        label: name of the label entry: class number `(batch,)`, negative for none, or
            0/1 `(batch, classes)`.
        class_names: names of the classes.
        modalities: what a clip must have to be evaluated; default: what the model
            uses.
    """
    modalities = tuple(modalities or model.modalities)
    keep = ["example_index", label, *[f"{m}_present" for m in MODALITIES]]
    rows = forward(model, batches, ["logits"], keep)
    index = rows["example_index"]
    targets = first_views(rows[label], index)
    activation = _sigmoid if targets.ndim == 2 else _softmax
    probabilities = mean_over_views(activation(rows["logits"]), index)
    usable = np.ones(len(targets), bool) if targets.ndim == 2 else targets >= 0
    for modality in modalities:
        usable &= first_views(rows[f"{modality}_present"], index) > 0
    if not usable.any():
        raise UserError(
            f"none of the {len(usable)} clips has {' and '.join(modalities)} and a "
            f"{label!r}: there is nothing to evaluate; check the labels of the split."
        )
    result = score(probabilities[usable], targets[usable], class_names)
    return dataclasses.replace(
        result,
        modalities=modalities,
        num_left_out=int((~usable).sum()),
        num_views=len(index) / len(targets),
    )


def score(
    probabilities: np.ndarray,
    targets: np.ndarray,
    class_names: Sequence[str] | None = None,
) -> ClassificationResult:
    """Scores from arrays alone.

    Args:
        probabilities: `(clips, classes)`.
        targets: class numbers `(clips,)` or 0/1 `(clips, classes)`.
        class_names: names of the classes.
    """
    num_clips, num_classes = probabilities.shape
    names = list(class_names or [f"class {i}" for i in range(num_classes)])
    if len(names) != num_classes:
        raise UserError(
            f"{len(names)} class names for a model with {num_classes} classes: "
            "evaluate it on the data set that it was fine-tuned on."
        )
    single = targets.ndim == 1
    onehot = np.eye(num_classes)[targets] if single else targets
    auc = metrics.mean_over_classes(aucs := metrics.roc_auc(onehot, probabilities))
    precision = metrics.average_precision(onehot, probabilities)
    predicted = probabilities.argmax(-1)
    hit = np.eye(num_classes)[predicted] if single else probabilities >= 0.5
    counts = onehot.sum(0)
    recall = (hit * onehot).sum(0) / np.where(counts, counts, np.nan)
    return ClassificationResult(
        modalities=(),
        num_clips=num_clips,
        num_left_out=0,
        num_views=1,
        accuracy=_accuracy(probabilities, targets, 1) if single else None,
        top5_accuracy=(
            _accuracy(probabilities, targets, 5)
            if single and num_classes >= 10
            else None
        ),
        mean_average_precision=metrics.mean_over_classes(precision),
        mean_auc=auc,
        d_prime=metrics.d_prime(auc),
        classes=[
            ClassScore(name, int(n), float(r), float(p), float(a))
            for name, n, r, p, a in zip(
                names, counts, recall, precision, aucs, strict=True
            )
        ],
        confusion=(
            metrics.confusion_matrix(predicted, targets, num_classes)
            if single
            else None
        ),
    )


def _accuracy(probabilities, targets, k):
    return metrics.bootstrap(metrics.top_k_hits(probabilities, targets, k))


def _softmax(logits):
    from scipy.special import softmax

    return softmax(logits.astype("float64"), axis=-1)


def _sigmoid(logits):
    from scipy.special import expit

    return expit(logits.astype("float64"))
