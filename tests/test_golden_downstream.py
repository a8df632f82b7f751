"""Numbers that the authors' own code produced, for what comes after pretraining.

Every file below the directory named by `TFAVMAE_GOLDEN` is one test; a folder that is
absent yields none.
"""

import numpy as np
from golden_files import each_file, load

from tfavmae.data import sampling
from tfavmae.tasks import classification, metrics

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
    probabilities = (1 / (1 + np.exp(-frames))).mean(0)
    target = golden["target"][: frames.shape[1]]
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
