"""CAV-MAE against the authors' numbers: models from files, and what is compared."""

import json
import re

import numpy as np
import tensorflow as tf
from golden_files import (
    CAV_MAE_TOLERANCE,
    FREQUENCIES,
    below,
    close,
    close_gradients,
    in_our_order,
    load,
    noise_of,
    same_loss,
)

from tfavmae.layers.masking import TokenMasking
from tfavmae.models.cav_mae import CAVMAE
from tfavmae.models.presets import build_classifier
from tfavmae.models.transfer import address
from tfavmae.objectives.classification import Classification
from tfavmae.objectives.contrastive import InterModalContrast
from tfavmae.weights import cav_mae as cav_mae_checkpoint
from tfavmae.weights.rules import load_weights


def inputs(path, count, frames):
    """The first examples of the inputs beside a file, cut to a number of frames."""
    inputs = load(path.parent / "inputs.npz")
    image = np.moveaxis(inputs["image"][:count], 1, -1)[:, None]
    return {"audio": inputs["audio"][:count, :frames], "video": image}


def weights(golden, path):
    """Config and parameters: the file's own, or those that lie beside it."""
    if "param/norm.weight" not in golden:
        golden = load(path.parent / "cavmae_params.npz")
    return json.loads(str(golden["config"])), below(golden, "param/")


def model(config, weights, kept=None, **options):
    """The model of a config of theirs.

    Args:
        kept: dict of modality to `(kept tokens, all tokens)`.
    """
    # Half a token more, so that no rounding of the ratio can lose one.
    masking = {m: {"ratio": 1 - (k + 0.5) / n} for m, (k, n) in (kept or {}).items()}
    arguments = cav_mae_checkpoint.arguments(config)
    model = CAVMAE(**arguments | {"masking": masking} | options)
    load_weights(model, cav_mae_checkpoint.PRETRAINING, weights)
    return model


def orders(golden, prefix=""):
    """Dict of modality to tokens in drawn order, and to how many of them stay."""
    orders, kept = {}, {}
    for letter, m in cav_mae_checkpoint.STREAMS:
        noise = golden.get(f"{prefix}noise_{letter}")
        order = golden.get(f"{prefix}ids_shuffle_{letter}")
        if order is None:
            order = np.argsort(noise, axis=1, kind="stable")
        restore = golden.get(f"{prefix}ids_restore_{letter}")
        if restore is not None:
            np.testing.assert_array_equal(np.argsort(order, axis=1), restore)
        kept[m] = (count(golden, letter, order.shape[1]), order.shape[1])
        orders[m] = in_our_order(order, indices=True) if m == "audio" else order
    return orders, kept


def count(golden, letter, total):
    """How many tokens stay: as the file shows, else what its ratio leaves."""
    if f"mask_{letter}" in golden:
        return int((golden[f"mask_{letter}"][0] == 0).sum())
    if f"latent_c_{letter}" in golden:
        return golden[f"latent_c_{letter}"].shape[1]
    # 512 frames stand for the ratios 0.6 and 0.8, all other files for 0.75.
    short = "noise_a" in golden and golden["noise_a"].shape[1] == 256
    ratio = {"a": 0.6, "v": 0.8}[letter] if short else 0.75
    return int(total * (1 - float(golden.get(f"mask_ratio_{letter}", ratio))))


def with_noise(batch, orders):
    return batch | {f"{m}_noise": noise_of(order) for m, order in orders.items()}


def check_tensors(golden, outputs):
    """Everything that the file holds of one forward."""
    latent = np.concatenate([outputs["audio_tokens"], outputs["video_tokens"]], axis=1)
    found = {"latent": latent}
    for letter, m in cav_mae_checkpoint.STREAMS:
        found[f"mask_{letter}"] = np.asarray(outputs[f"{m}_is_masked"], "float32")
        found[f"latent_c_{letter}"] = outputs[f"{m}_unimodal_tokens"]
        found[f"contrast_{letter}"] = outputs[f"{m}_embedding"]
        found[f"pred_{letter}"] = outputs[f"{m}_prediction"]
    orders = {"mask_a": {"tokens": 1}, "pred_a": {"tokens": 1, "values": 2}}
    shared = set(found) & set(golden)
    assert shared, "nothing that could be compared"
    for name in shared:
        theirs = in_our_order(golden[name], **orders.get(name, {}))
        close(found[name], theirs, CAV_MAE_TOLERANCE, name)


LOSSES = {
    "loss": lambda x: x["loss"],
    "loss_mae": lambda x: x["reconstruction_audio"] + x["reconstruction_video"],
    "loss_mae_a": lambda x: x["reconstruction_audio"],
    "loss_mae_v": lambda x: x["reconstruction_video"],
    "loss_c": lambda x: 0.01 * x["contrast"],
    "c_acc": lambda x: x["contrast_accuracy_video_to_audio"],
}


def check_losses(golden, prefix, losses):
    for name, ours in LOSSES.items():
        if f"{prefix}{name}" in golden:
            same_loss(ours(losses), golden[f"{prefix}{name}"], f"{prefix}{name}")


def check_contrast(golden, batch, outputs):
    """`nce_*` and `acc_*`, of one direction and of both."""
    for direction in ("unidir", "bidir"):
        if f"nce_{direction}" not in golden:
            continue
        both = direction == "bidir"
        terms = InterModalContrast(1.0, 0.05, both).terms(batch, outputs)
        values = {name: float(term.mean()) for name, term in terms.items()}
        same_loss(values["contrast"], golden[f"nce_{direction}"])
        names = ["video_to_audio", "audio_to_video"][: 1 + both]
        accuracy = np.mean([values[f"contrast_accuracy_{name}"] for name in names])
        same_loss(accuracy, golden[f"acc_{direction}"])


def removed_lines(golden, examples):
    """Removed time columns and frequency rows, bool `(batch, lines)` each."""
    lists = json.loads(str(golden["python_random_sample_lists"]))
    shape = (examples, golden["noise_a"].shape[1] // FREQUENCIES)
    times, rows = np.zeros(shape, bool), np.zeros((examples, FREQUENCIES), bool)
    # All examples' time columns come first, then all examples' frequency rows.
    only_rows = len(lists) == examples and max(map(max, lists)) < FREQUENCIES
    for removed, line in zip(
        [*rows] if only_rows else [*times, *rows], lists, strict=False
    ):
        removed[line] = True
    return times, rows


def check_structured_masking(golden, kept):
    """Our strategy, given noise that draws the recorded lines, masks what they mask."""
    if "noise_a_used" not in golden:
        return
    examples = len(golden["noise_a"])
    if "python_random_sample_lists" not in golden:
        np.testing.assert_array_equal(golden["noise_a_used"], golden["noise_a"])
        return
    times, rows = removed_lines(golden, examples)
    lines = times[:, :, None].astype(int) + rows[:, None, :]
    used = in_our_order(golden["noise_a_used"], tokens=1)
    np.testing.assert_array_equal(used > 1, lines.reshape(examples, -1) > 0)
    strategy = {(1, 0): "time", (0, 1): "frequency", (1, 1): "time_frequency"}
    strategy = strategy[int(times.any()), int(rows.any())]
    grid = lines.shape[1:]
    count, total = kept
    masking = TokenMasking(grid, 1 - (count + 0.5) / total, strategy)
    noise = (
        in_our_order(golden["noise_a"], tokens=1) / 4 + lines.reshape(examples, -1) / 4
    )
    is_masked = np.asarray(masking.is_masked(masking(noise.astype("float32"))))
    recorded = in_our_order(golden["mask_a"], tokens=1) == 1
    assert masking.num_kept == count
    # Where lines take more than they may, which tokens return was decided by a tie.
    single = lines.reshape(examples, -1) == 0
    np.testing.assert_array_equal(is_masked[single], recorded[single])
    np.testing.assert_array_equal(is_masked.sum(1), recorded.sum(1))


def check_features(model, golden, batch):
    """What `forward_feat` returns: all tokens, through all joint layers."""
    if not any(name.startswith(("feat_", "retrieval_")) for name in golden):
        return
    model.encoder.chain_streams = True
    options = {"masked": False} if isinstance(model, CAVMAE) else {}
    outputs = model(batch, **options)
    for letter, m in cav_mae_checkpoint.STREAMS:
        tokens = np.asarray(outputs[f"{m}_unimodal_tokens"])
        mean = np.asarray(outputs[f"{m}_embedding"])
        found = {
            f"feat_{letter}": tokens,
            f"feat_{letter}_mean": mean,
            f"retrieval_{letter}": mean / np.linalg.norm(mean, axis=1, keepdims=True),
        }
        for name in set(found) & set(golden):
            theirs = golden[name]
            if name == "feat_a":
                theirs = in_our_order(theirs, tokens=1)
            close(
                found[name], theirs.reshape(found[name].shape), CAV_MAE_TOLERANCE, name
            )


def classifier(config, weights, modality):
    """The classifier of a config of theirs, for one of their modes."""
    arguments = cav_mae_checkpoint.fine_tuning_arguments(config, modality)
    model = build_classifier("cav_mae", "base", **arguments)
    load_weights(model, cav_mae_checkpoint.fine_tuned_table(modality), weights)
    return model


def check_modes(golden, both, alone, batch):
    """`logits/*`: what each of their modes makes of a clip.

    Args:
        both: the classifier of both modalities.
        alone: dict of modality to the classifier of that one, of the same weights.
        batch: of both modalities.
    """
    for mode, theirs in below(golden, "logits/").items():
        m = re.search("audio|video", mode)
        model = both if mode.startswith(("multi", "missing")) else alone[m[0]]
        ours = model(batch if m is None else {m[0]: batch[m[0]]})["logits"]
        close(ours, theirs, CAV_MAE_TOLERANCE, mode)
        if mode.startswith("missing"):
            # A clip whose other modality is there, and said to be missing.
            present = np.zeros(len(theirs), "f")
            other = {"audio": "video", "video": "audio"}[m[0]]
            ours = model(batch | {f"{other}_present": present})["logits"]
            close(ours, theirs, CAV_MAE_TOLERANCE, mode)


def check_classifier_losses(golden, model, batch):
    """`loss/*` of the mode of both modalities, and some gradients of each."""
    table = cav_mae_checkpoint.fine_tuned_table()
    activations = {"bce": "sigmoid", "ce": "softmax"}
    batch = batch | {"label": golden["targets"]}
    for name, theirs in below(golden, "loss/").items():
        model.objectives = [Classification(activation=activations[name])]
        with tf.GradientTape() as tape:
            loss = model.compute_losses(batch, model(batch))["loss"]
        same_loss(loss, theirs, name)
        gradients = tape.gradient(loss, model.trainable_variables)
        named = zip(map(address, model.trainable_variables), gradients, strict=True)
        ours = dict(named)
        recorded = table.convert(below(golden, f"grad_{name}/"))
        close_gradients({a: (np.asarray(ours[a]), x) for a, x in recorded.items()})
