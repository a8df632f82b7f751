"""Numbers that the authors' own code produced, for what comes after pretraining.

Every file below the directory named by `TFAVMAE_GOLDEN` is one test; a folder that is
absent yields none.
"""

import numpy as np
import scipy.special
from golden_files import AV_MAE_TOLERANCE, below, close, each_file, load, same_loss

from tfavmae.data import sampling
from tfavmae.layers.mixup import mix, partners
from tfavmae.models import presets
from tfavmae.objectives.classification import Classification
from tfavmae.tasks import classification, metrics
from tfavmae.tasks.scores import mean_probabilities

DIRECTIONS = {
    "audio_to_other/metrics": ("audio", "video"),
    "video_to_other/metrics": ("video", "audio"),
}


def retrieval_row(queries, gallery):
    ranks = metrics.paired_ranks(queries, gallery)
    recalls = [metrics.recall_at_k(ranks, k, ties="repeated") for k in (1, 5, 10)]
    return [*recalls, ranks.median(ties="repeated")]


def check_retrieval(golden):
    for key, (query, target) in DIRECTIONS.items():
        np.testing.assert_allclose(
            retrieval_row(golden[query], golden[target]), golden[key], rtol=1e-12
        )
    video = golden["video"].copy()
    video[1] = video[0]
    row = retrieval_row(golden["audio"], video)
    np.testing.assert_allclose(row, golden["dup/metrics"], rtol=1e-12)


def check_classification(golden):
    target, logits = golden["target"], golden["logits"]
    auc = metrics.roc_auc(target, logits)
    np.testing.assert_allclose(auc, golden["AUC"], rtol=1e-9)
    precision = metrics.average_precision(target, logits)
    np.testing.assert_allclose(precision, golden["AP"], rtol=1e-9)
    mean_auc = metrics.mean_over_classes(auc)
    np.testing.assert_allclose(mean_auc, golden["mAUC"], rtol=1e-9)
    np.testing.assert_allclose(metrics.d_prime(mean_auc), golden["d_prime"], rtol=1e-9)
    accuracy = metrics.accuracy(logits, target.argmax(-1))
    np.testing.assert_allclose(accuracy, golden["acc"], rtol=1e-12)
    result = classification.score(logits, target)
    np.testing.assert_allclose(result.mean_average_precision, golden["mAP"], rtol=1e-9)


def check_mean_over_frames(golden):
    frames = golden["frames_logits"].astype("float64")  # (frames, clips, classes)
    num_frames, num_clips, num_classes = frames.shape
    probabilities = mean_probabilities(
        frames.reshape(-1, num_classes),
        np.tile(np.arange(num_clips), num_frames),
        "sigmoid",
        presets.paper("cav_mae").MEAN_OVER_VIEWS,
    )
    target = golden["target"][:num_clips]
    result = classification.score(probabilities, target)
    np.testing.assert_allclose(
        result.mean_average_precision, golden["multiframe_mAP_first60"], rtol=1e-6
    )


def check_balanced_sampling(golden):
    weights = sampling.balanced_weights(golden["target"])
    np.testing.assert_allclose(weights, golden["sample_weight"], rtol=1e-6)


@each_file("metrics", "*.npz")
def test_metrics(path):
    golden = load(path)
    check_retrieval(golden)
    check_classification(golden)
    check_mean_over_frames(golden)
    check_balanced_sampling(golden)


@each_file("av_mae", "numerics.npz", entries="mixup/.*")
def test_numerics_mix_up(path):
    golden = load(path)
    for case in sorted({name.split("/")[1] for name in golden if "mixup" in name}):
        entries = below(golden, f"mixup/{case}/")
        shares = dict(
            zip(
                ("rgb", "spectrogram"),
                entries.pop("lambda_rgb_spectrogram"),
                strict=True,
            )
        )
        # Without `mixmod` both modalities have one share, which the labels have, too.
        assert ("label_all" in entries) == (shares["rgb"] == shares["spectrogram"])
        label = entries.pop("in_label")
        pairs = {f"out_{m}": (entries.pop(f"in_{m}"), x) for m, x in shares.items()}
        pairs |= {f"label_{m}": (label, x) for m, x in shares.items()}
        pairs["label_all"] = (label, shares["rgb"])
        for name, theirs in entries.items():
            x, share = pairs[name]
            ours = mix(x, np.full(len(x), share, "f"), partners(x))
            close(ours, theirs, AV_MAE_TOLERANCE, f"{case} {name}")


@each_file("av_mae", "numerics.npz", entries="map/.*")
def test_numerics_mean_average_precision(path):
    golden = load(path)
    labels, logits = golden["map/labels"], golden["map/logits"]
    precisions = metrics.average_precision(labels, logits)
    found = {
        f"per_class_average_precision_{i}": precision
        for i, precision in enumerate(precisions)
    }
    mean_auc = metrics.mean_over_classes(metrics.roc_auc(labels, logits))
    mean = metrics.mean_over_classes(precisions)
    found |= {"mAP": mean, "nanmean_average_precision": mean}
    found |= {"AUC": mean_auc, "d-prime": metrics.d_prime(mean_auc)}
    for name, theirs in below(golden, "map/out_").items():
        np.testing.assert_allclose(found[name], theirs, rtol=1e-9, err_msg=name)


@each_file("av_mae", "numerics.npz", entries="epic/.*")
def test_numerics_verbs_and_nouns(path):
    golden = load(path)
    onehot, logits = golden["epic/onehot"], golden["epic/logits"]
    # Verbs come first; how many there are is not recorded.
    ends = range(1, onehot.shape[1])
    (split,) = (i for i in ends if (onehot[:, :i].sum(1) == 1).all())
    targets = dict(
        zip(("verb", "noun"), np.split(onehot, [split], axis=1), strict=True)
    )
    parts = dict(zip(("verb", "noun"), np.split(logits, [split], axis=1), strict=True))
    labels = {name: x.argmax(-1) for name, x in targets.items()}
    for name, x in parts.items():
        hits = metrics.top_k_hits(x, labels[name])
        np.testing.assert_array_equal(hits, golden[f"epic/{name}_correct"])
    scores = [scipy.special.softmax(x, axis=-1) for x in parts.values()]
    for name, k in (("action_correct", 1), ("action_top5", 5)):
        hits = metrics.joint_top_k_hits(scores, list(labels.values()), k)
        np.testing.assert_array_equal(hits, golden[f"epic/{name}"].ravel(), name)
    # Of two modalities; the second has the logits of the batch in reverse (found by the
    # number: nothing in the file says so).
    outputs = {
        "logits": parts,
        "video_logits": parts,
        "audio_logits": {name: x[::-1] for name, x in parts.items()},
    }
    loss = 0.0
    for name in parts:
        options = {"head": name, "weight": 0.5, "per_modality": True}
        objective = Classification(name, label_smoothing=0.3, **options)
        term = objective.terms(targets, outputs)[f"classification_{name}"]
        loss += term.weight * float(term.mean())
    same_loss(loss, golden["epic/loss_two_heads_smoothing0.3"])
