"""Cross-entropy of labels that were smoothed, mixed, summed or averaged."""

import numpy as np
import pytest

from tfavmae.objectives.classification import Classification

LOGITS = np.array([[0.5, -1.0, 2.0, 0.0], [1.5, 0.2, -0.7, 0.1]], "float32")
LABELS = np.array([[1, 0, 1, 0], [0, 1, 0, 0]], "float32")


def loss(outputs, label=LABELS, **options):
    terms = Classification(**options).terms({"label": label}, outputs)
    return float(terms["classification"].mean())


def sigmoid_losses(logits, target):
    """`(batch, classes)`."""
    logits = np.float64(logits)
    return np.log1p(np.exp(logits)) - logits * target


def softmax_losses(logits, target):
    """`(batch,)`."""
    logits = np.float64(logits)
    return np.log(np.exp(logits).sum(-1)) * target.sum(-1) - (logits * target).sum(-1)


@pytest.mark.parametrize(
    ("smoothing", "own"), [("uniform", 0.7 + 0.3 / 4), ("cav_mae_authors", 0.7)]
)
def test_label_smoothing_in_both_forms(smoothing, own):
    options = {"smoothing": smoothing, "label_smoothing": 0.3}
    target = np.where(LABELS == 1, own, 0.3 / 4)
    found = loss({"logits": LOGITS}, multi_label=True, **options)
    assert found == pytest.approx(sigmoid_losses(LOGITS, target).mean(), rel=1e-6)
    single = np.array([2, 1], "int32")
    target = np.where(np.eye(4)[single] == 1, own, 0.3 / 4)
    found = loss({"logits": LOGITS}, single, **options)
    assert found == pytest.approx(softmax_losses(LOGITS, target).mean(), rel=1e-6)


@pytest.mark.parametrize("smoothing", ["uniform", "cav_mae_authors"])
def test_the_classes_of_mixed_clips_share_what_smoothing_leaves(smoothing):
    """The second clip is not mixed, and its class gets `1 - s` alone from CAV-MAE."""
    share = np.array([0.75, 1.0], "float32")
    target = 0.9 * np.array([[0.75, 0.25, 0.75, 0], [0, 1, 0, 0]]) + 0.1 / 4
    if smoothing == "cav_mae_authors":
        target[1, 1] = 0.9
    outputs = {"logits": LOGITS, "mixing_share": share}
    options = {"smoothing": smoothing, "label_smoothing": 0.1}
    found = loss(outputs, multi_label=True, **options)
    assert found == pytest.approx(sigmoid_losses(LOGITS, target).mean(), rel=1e-6)


def test_the_sum_over_classes_is_their_number_times_the_mean():
    outputs = {"logits": LOGITS}
    mean = loss(outputs, multi_label=True)
    assert mean == pytest.approx(sigmoid_losses(LOGITS, LABELS).mean(), rel=1e-6)
    summed = loss(outputs, multi_label=True, average_classes=False)
    assert summed == pytest.approx(4 * mean, rel=1e-6)


def test_sigmoid_cross_entropy_of_one_class_a_clip():
    """MAViL trains VGGSound and Speech Commands so (table 9)."""
    found = loss({"logits": LOGITS}, np.array([2, 1]), activation="sigmoid")
    expected = sigmoid_losses(LOGITS, np.eye(4)[[2, 1]]).mean()
    assert found == pytest.approx(expected, rel=1e-6)


def test_each_modality_has_the_labels_of_its_mix():
    """AV-MAE's `mixmod`: the mean of both losses, each with its own shares."""
    shares = {"audio": [0.9, 0.4], "video": [0.2, 1.0]}
    logits = {"audio": LOGITS, "video": LOGITS[::-1] * 2}
    outputs = {"logits": LOGITS} | {f"{m}_logits": x for m, x in logits.items()}
    outputs |= {f"{m}_mixing_share": np.float32(x) for m, x in shares.items()}
    losses = []
    for m, share in shares.items():
        share = np.array(share)[:, None]
        target = 0.7 * (share * LABELS + (1 - share) * LABELS[::-1]) + 0.3 / 4
        losses.append(sigmoid_losses(logits[m], target).sum(-1).mean())
    found = loss(
        outputs,
        multi_label=True,
        per_modality=True,
        average_classes=False,
        label_smoothing=0.3,
    )
    assert found == pytest.approx(np.mean(losses), rel=1e-6)


def test_an_unknown_smoothing_is_refused():
    with pytest.raises(ValueError, match="`smoothing` must be one of"):
        Classification(smoothing="some")
