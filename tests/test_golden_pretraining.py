"""The pretraining models against the numbers of the authors' own code.

Every file below the directory named by `TFAVMAE_GOLDEN` is one test, which builds the
model that the file describes; a folder that is absent yields none.
"""

import json
import re

import golden_av_mae as av_mae
import golden_cav_mae as cav_mae
import numpy as np
import tensorflow as tf
from golden_files import (
    AV_MAE_TOLERANCE,
    CAV_MAE_TOLERANCE,
    FREQUENCIES,
    below,
    close,
    close_gradients,
    each_file,
    gradients_of,
    in_our_order,
    load,
    noise_of,
)

from tfavmae.layers.embedding import patchify_audio, patchify_video
from tfavmae.layers.positions import sincos_1d, sincos_2d, sincos_3d
from tfavmae.models.transfer import address
from tfavmae.objectives.contrastive import InterModalContrast
from tfavmae.training.optimizers import PathAdam
from tfavmae.training.schedules import CosineSchedule
from tfavmae.weights import scenic
from tfavmae.weights.cav_mae import PRETRAINING, arguments
from tfavmae.weights.rules import load_weights

FORWARD = "cavmae_*.npz"
NO_FORWARD = ("*_params.npz", "*_grads_*.npz", "*_adam*.npz", "*_feat_patchify.npz")


@each_file("av_mae", "pretrain_*.npz")
def test_av_mae(path):
    golden = load(path)
    config = json.loads(str(golden["config_json"]))
    batch = av_mae.batch(golden, path)
    model, table = av_mae.model(config, batch)
    load_weights(model, table, below(golden, "params/"))
    outputs = model(batch, masked=True)
    inpainting = config["model"]["use_inpainting"]
    av_mae.check_tensors(model, golden, outputs, batch, inpainting)
    av_mae.check_losses(model, golden, batch, config)
    av_mae.check_gradients(model, table, golden, batch)


@each_file("av_mae", "inputs.npz")
def test_av_mae_targets(path):
    golden = load(path)
    inputs = {
        "audio": golden["inputs/spectrogram"][..., 0],
        "video": golden["inputs/rgb"],
    }
    loss = dict.fromkeys(
        ("standardise_per_patch", "standardise_per_patch_channels"), False
    )
    config = json.loads(str(load(next(path.parent.glob("pretrain_*")))["config_json"]))
    model, _ = av_mae.model(config, inputs)
    kinds = {re.fullmatch(r"targets/(.+)/.+", k)[1] for k in golden if "targets" in k}
    for kind in kinds:
        options = loss if kind == "plain" else loss | {kind: True}
        model.target_normalization = scenic.target_normalization(options)
        outputs = model(inputs, masked=True)
        for theirs, ours in scenic.MODALITIES.items():
            if f"{ours}_target" in outputs:
                theirs = golden[f"targets/{kind}/{theirs}"]
                close(outputs[f"{ours}_target"], theirs, AV_MAE_TOLERANCE, kind)


@each_file("av_mae", "unimodal_*mae_*.npz")
def test_unimodal(path):
    golden = load(path)
    (strategy,) = (x for x in ("tube", "random") if x in path.stem)
    model, m = av_mae.unimodal_model(golden, strategy)
    inputs = golden["input"] if m == "video" else golden["input"][..., 0]
    batch = {m: inputs, f"{m}_noise": noise_of(av_mae.order(golden, "mask/"))}
    outputs = model(batch, masked=True)
    is_masked = np.asarray(outputs[f"{m}_is_masked"], "float32")
    np.testing.assert_array_equal(is_masked, golden["mask/binary"])
    np.testing.assert_array_equal(is_masked, golden["train/loss_mask"])
    close(outputs[f"{m}_prediction"], golden["train/logits"], AV_MAE_TOLERANCE)
    everything = model(batch, masked=False)[f"{m}_tokens"]
    close(everything, golden["eval"], AV_MAE_TOLERANCE)


@each_file("cav_mae", FORWARD, without=NO_FORWARD)
def test_cav_mae(path):
    golden = load(path)
    config, weights = cav_mae.weights(golden, path)
    orders, kept = cav_mae.orders(golden)
    model = cav_mae.model(config, weights, kept)
    batch = cav_mae.inputs(path, len(orders["audio"]), config["audio_length"])
    batch = cav_mae.with_noise(batch, orders)
    outputs = model(batch, masked=True)
    cav_mae.check_tensors(golden, outputs)
    cav_mae.check_contrast(golden, batch, outputs)
    cav_mae.check_losses(golden, "", model.compute_losses(batch, outputs))
    for normalize, kind in ((1, "patch"), (0, None)):
        if f"norm{normalize}/loss" in golden:
            model.target_normalization = kind
            losses = model.compute_losses(batch, model(batch, masked=True))
            cav_mae.check_losses(golden, f"norm{normalize}/", losses)
    cav_mae.check_structured_masking(golden, kept["audio"])
    cav_mae.check_features(model, golden, batch)


@each_file("cav_mae", "*_feat_patchify.npz")
def test_cav_mae_features_and_patches(path):
    golden = load(path)
    config, weights = cav_mae.weights(golden, path)
    model = cav_mae.model(config, weights)
    batch = cav_mae.inputs(path, len(golden["feat_a"]), config["audio_length"])
    cav_mae.check_features(model, golden, batch)
    audio = patchify_audio(batch["audio"][:1], (16, 16))
    close(audio, in_our_order(golden["target_a_sample0"], tokens=1, values=2), 0)
    close(
        patchify_video(batch["video"][:1], (1, 16, 16)), golden["target_v_sample0"], 0
    )
    sizes = arguments(config)
    grid = (sizes["audio"]["num_frames"] // 16, FREQUENCIES)
    for prefix, of_stack in (("", sizes), ("decoder_", sizes["decoder"])):
        width = of_stack["hidden_dim"]
        audio = sincos_2d(grid, width, first_axis=0)
        theirs = in_our_order(golden[f"init_{prefix}pos_embed_a"], tokens=1)
        close(audio, theirs[0], CAV_MAE_TOLERANCE)
        video = sincos_2d((14, 14), width, first_axis=1)
        close(video, golden[f"init_{prefix}pos_embed_v"][0], CAV_MAE_TOLERANCE)


@each_file("cav_mae", "*_grads_*.npz")
def test_cav_mae_gradients(path):
    forward, normalize = re.fullmatch(r"(.+)_grads_norm(\d)", path.stem).groups()
    masks = load(path.parent / f"{forward}.npz")
    config, weights = cav_mae.weights(masks, path)
    orders, kept = cav_mae.orders(masks)
    kind = "patch" if normalize == "1" else None
    model = cav_mae.model(config, weights, kept, target_normalization=kind)
    batch = cav_mae.inputs(path, len(orders["audio"]), config["audio_length"])
    ours = gradients_of(model, cav_mae.with_noise(batch, orders))
    theirs = PRETRAINING.convert(below(load(path), "grad/"))
    assert set(ours) == set(theirs)
    close_gradients({name: (ours[name], theirs[name]) for name in theirs})


@each_file("cav_mae", "*_adam*.npz")
def test_cav_mae_adam(path):
    golden = load(path)
    config, weights = cav_mae.weights(golden, path)
    steps = sorted({name.split("/")[0] for name in golden if name.startswith("step")})
    model = cav_mae.model(config, weights, cav_mae.orders(golden, f"{steps[0]}/")[1])
    optimizer = PathAdam(
        float(golden["lr"]),
        beta_1=0.95,
        decay=5e-7,
        decay_paths=[".*"],
        decoupled=False,
    )
    model.compile(optimizer=optimizer, run_eagerly=True)
    table = PRETRAINING
    for step in steps:
        orders, _ = cav_mae.orders(golden, f"{step}/")
        count, frames = len(orders["audio"]), config["audio_length"]
        batch = cav_mae.with_noise(cav_mae.inputs(path, count, frames), orders)
        model.reset_metrics()
        losses = model.train_on_batch(batch, return_dict=True)
        cav_mae.check_losses(golden, f"{step}/", losses)
        after = below(golden, f"{step}/param/")
        ours = {address(v): np.asarray(v) for v in model.weights}
        for name, theirs in table.convert(after).items():
            close(ours[name], theirs, CAV_MAE_TOLERANCE, f"{step} {name}")
        for name in after:
            if table.place(name).address is None:  # Theirs has it and never uses it.
                close(weights[name], after[name], 0, f"{step} {name}")


@each_file("cav_mae", "contrastive_only.npz")
def test_contrast(path):
    golden = load(path)
    audio, video = (tf.constant(golden[f"{m}_rep"]) for m in ("audio", "video"))
    outputs = {"audio_embedding": audio, "video_embedding": video}
    cav_mae.check_contrast(golden, {}, outputs)
    with tf.GradientTape() as tape:
        tape.watch([audio, video])
        loss = InterModalContrast(1.0, 0.05).terms({}, outputs)["contrast"].mean()
    ours = tape.gradient(loss, [audio, video])
    theirs = [golden[f"grad_{m}_unidir"] for m in ("audio", "video")]
    close_gradients({str(i): x for i, x in enumerate(zip(ours, theirs, strict=True))})


@each_file("cav_mae", "pos_embed_tables.npz")
def test_position_tables(path):
    golden = load(path)
    tables = (re.fullmatch(r"(audio|video)_(\d+)_(\d+)x(\d+)", name) for name in golden)
    for match in filter(None, tables):
        modality, (width, rows, columns) = match[1], map(int, match.groups()[1:])
        if modality == "audio":
            ours = sincos_2d((columns, rows), width, first_axis=0)
            ours = ours.reshape(columns, rows, width).swapaxes(0, 1).reshape(-1, width)
        else:
            ours = sincos_2d((rows, columns), width, first_axis=1)
        theirs = golden[match[0]]
        if len(theirs) < len(ours):
            ours = ours[golden[_rows_of(golden, modality, rows, columns)]]
        close(ours, theirs, CAV_MAE_TOLERANCE, match[0])


def _rows_of(golden, modality, rows, columns):
    """Name of the row numbers that a table of this grid was sampled at."""
    name = re.compile(rf"{modality}_\d+_{rows}x{columns}_rows")
    return next(x for x in golden if name.fullmatch(x))


def _sampled(table, name):
    """A 1-D table, or every n-th token and m-th dimension of it, as its name says."""
    every = re.search(r"every(\d+)th_token_every(\d+)(?:st|nd|rd|th)_dim", name)
    return table[:: int(every[1]), :: int(every[2])] if every else table


@each_file("av_mae", "numerics.npz", entries="(sinusoidal_1d|sincos)/.*")
def test_numerics_positions(path):
    golden = load(path)
    for name, theirs in below(golden, "sinusoidal_1d/").items():
        tokens, width = map(int, re.match(r"(\d+)x(\d+)", name).groups())
        ours = _sampled(sincos_1d(tokens, width), name)
        close(ours, theirs[0], AV_MAE_TOLERANCE, name)
    for name, theirs in below(golden, "sincos/").items():
        *grid, width = theirs.shape[1:]
        table = (
            sincos_3d(grid, width)
            if name.startswith("3d")
            else sincos_2d(grid, width, 1)
        )
        close(table.reshape(*grid, width), theirs[0], AV_MAE_TOLERANCE, name)


@each_file("av_mae", "numerics.npz", entries="lr/.*")
def test_numerics_schedules(path):
    golden = load(path)
    names = {name.split("/")[1] for name in golden if name.startswith("lr/")}
    for name in names:
        config = json.loads(str(golden[f"lr/{name}/config"]))
        peak, steps = config["base_learning_rate"], golden[f"lr/{name}/steps"]
        schedule = CosineSchedule(
            peak, config["steps_per_cycle"], config["warmup_steps"], cyclic=True
        )
        ours = [float(schedule(step)) for step in steps]
        close(ours, golden[f"lr/{name}/values"], 1e-6 * peak, name)
