"""AV-MAE against the authors' numbers: models from files, and what is compared."""

import re

import numpy as np
import pytest
from golden_files import (
    AV_MAE_TOLERANCE,
    below,
    close,
    gradients_of,
    load,
    noise_of,
    same_loss,
)

from tfavmae.models.av_mae import AVMAE
from tfavmae.models.masked_autoencoder import TARGET_NORMALIZATIONS
from tfavmae.models.transfer import address
from tfavmae.objectives.inpainting import Inpainting
from tfavmae.objectives.reconstruction import Reconstruction
from tfavmae.weights import scenic
from tfavmae.weights.rules import load_weights


def model(config, inputs):
    """The model of a config of theirs, for inputs of the given shapes."""
    arguments = scenic.av_mae_arguments(config)
    if "audio" in inputs:
        frames, bins = inputs["audio"].shape[1:]
        arguments["audio"] |= {"num_frames": frames, "num_mel_bins": bins}
    if "video" in inputs:
        frames, height, width = inputs["video"].shape[1:4]
        arguments["video"] |= dict(num_frames=frames, height=height, width=width)
    # Their code runs what the paper rules out: inpainting with separate encoders.
    return AVMAE(**arguments, allow_uncoupled=True), scenic.av_mae_table(arguments)


def order(golden, prefix):
    """Tokens in recorded order, those that stay first."""
    indices = [golden[f"{prefix}{x}_indices"] for x in ("unmasked", "masked")]
    return np.concatenate(indices, axis=1)


def batch(golden, path):
    """Inputs from the file beside it, and recorded masks as noise."""
    inputs = load(path.parent / "inputs.npz")
    arrays = {
        "audio": inputs["inputs/spectrogram"][..., 0],
        "video": inputs["inputs/rgb"],
    }
    batch = {}
    for theirs, ours in scenic.MODALITIES.items():
        if f"mask/{theirs}/binary" in golden:
            batch[ours] = arrays[ours]
            batch[f"{ours}_noise"] = noise_of(order(golden, f"mask/{theirs}/"))
    return batch


def check_tensors(model, golden, outputs, batch, inpainting):
    decoded = "inpainting_decoded" if inpainting else "decoded"
    logits = "inpainting" if inpainting else "prediction"
    everything = model(batch, masked=False)
    patches = model.patchify(outputs)
    for theirs, ours in scenic.MODALITIES.items():
        if ours not in batch:
            continue
        is_masked = np.asarray(outputs[f"{ours}_is_masked"])
        np.testing.assert_array_equal(is_masked, golden[f"mask/{theirs}/binary"] == 1)
        if inpainting:
            predicted = outputs[f"{ours}_masked_inpainting"].shape[1]
            is_masked = np.arange(is_masked.shape[1]) >= is_masked.shape[1] - predicted
            is_masked = np.tile(is_masked, (len(batch[ours]), 1))
        tokens = outputs[f"{ours}_tokens"]
        found = {
            "embedding": getattr(model, f"{ours}_tokenizer").projection(patches[ours]),
            "encoder_output": tokens,
            "decoder_projection": model.decoder.project(ours, tokens),
            "pre_logits": outputs[f"{ours}_{decoded}"],
            "logits": outputs[f"{ours}_{logits}"],
            "loss_mask": is_masked.astype("float32"),
        }
        for name, x in found.items():
            recorded = golden[f"train/{name}_{theirs}"].reshape(x.shape)
            close(x, recorded, AV_MAE_TOLERANCE, name)
        close(everything[f"{ours}_tokens"], golden[f"eval/encoded_{theirs}"], 1e-5)


def variant(name, loss, batch):
    """A variant's settings: of the loss, of the targets, and the batch."""
    weights = re.fullmatch(r"weights_rgb(\d+)_spec(\d+)", name)
    kept = re.fullmatch(r"batch_mask_([01]+)", name)
    options = {
        "modality_weights": scenic.by_modality(loss["modality_weight"]),
        "include_visible": loss["loss_unmasked_tokens"],
        "average_values": loss["normalise_by_output_dimension"],
    }
    if name == "loss_unmasked_tokens":
        options["include_visible"] = True
    elif name == "not_normalised_by_dim":
        options["average_values"] = False
    elif weights:
        options["modality_weights"] = dict(video=int(weights[1]), audio=int(weights[2]))
    elif kept:
        batch = batch | {"sample_weight": np.array([float(x) for x in kept[1]], "f")}
    elif name.startswith("standardise_per_patch"):
        loss = loss | {name: True}
    elif name != "default":
        pytest.fail(f"unknown variant of the loss: {name}")
    return options, scenic.target_normalization(loss), batch


def check_losses(model, golden, batch, config):
    loss, inpainting = config["masked_feature_loss"], config["model"]["use_inpainting"]
    objective = Inpainting if inpainting else Reconstruction
    prefix = "inpainting" if inpainting else "reconstruction"
    losses = model.compute_losses(batch, model(batch, masked=True))
    same_loss(losses["loss"], golden["loss"])
    for m, value in below(golden, "loss_per_modality/").items():
        same_loss(losses[f"{prefix}_{scenic.MODALITIES[m]}"], value, m)
    objectives, normalization = model.objectives, model.target_normalization
    # With the model's own objectives: the logits of all modalities, also of those that
    # a variant of the loss leaves out.
    outputs = {}
    for model.target_normalization in TARGET_NORMALIZATIONS:
        outputs[model.target_normalization] = model(batch, masked=True)
    for name, value in below(golden, "loss/").items():
        options, kind, rows = variant(name, loss, batch)
        model.objectives = [objective(**options)]
        same_loss(model.compute_losses(rows, outputs[kind])["loss"], value, name)
    model.objectives, model.target_normalization = objectives, normalization


def check_gradients(model, table, golden, batch):
    """Norms of gradients, and products with the parameters, leaf by leaf of theirs."""
    gradients = gradients_of(model, batch)
    values = {address(v): np.asarray(v) for v in model.trainable_variables}
    norms = below(golden, "grad_l2/")
    largest = max(norms.values())
    assert {table.place(leaf).address for leaf in norms} == set(values)
    for leaf, norm in norms.items():
        rule = table.place(leaf)
        # What the loss does not depend on has a gradient of 0 there and none here.
        value = values[rule.address]
        gradient = gradients.get(rule.address, np.zeros_like(value))
        value, gradient = (
            np.split(x, rule.parts, axis=-1)[rule.part] for x in (value, gradient)
        )
        ours = np.linalg.norm(gradient)
        close(ours, norm, 1e-4 * largest + 1e-7, leaf)
        bound = 1e-4 * norm * np.linalg.norm(value) + 1e-7
        close(np.sum(gradient * value), golden[f"grad_dot_param/{leaf}"], bound, leaf)


def unimodal_model(golden, strategy):
    """The model of a file without a config, from the shapes in it."""
    shape, weights = golden["input"].shape, below(golden, "params/")
    modality = "video" if len(shape) == 5 else "audio"
    tubelet = weights["embedding/kernel"].shape[:-2]
    query = r"{}/encoderblock_(\d+)/MultiHeadDotProductAttention_0/query/kernel"
    sizes = {}
    for stack in ("Transformer", "Decoder"):
        first = weights[query.format(stack).replace(r"(\d+)", "0")]
        mlp = weights[f"{stack}/encoderblock_0/MlpBlock_0/Dense_0/kernel"]
        layers = sum(bool(re.fullmatch(query.format(stack), name)) for name in weights)
        values = (first.shape[0], first.shape[1], mlp.shape[1], layers)
        names = ("hidden_dim", "num_heads", "mlp_dim", "num_layers")
        sizes[stack] = dict(zip(names, values, strict=True))
    ratio = golden["mask/binary"].mean() + 1e-6
    front_end = {
        "video": dict(num_frames=shape[1], height=shape[2], width=shape[-2]),
        "audio": dict(num_frames=shape[1], num_mel_bins=shape[2]),
    }[modality]
    front_end["tubelet_size" if modality == "video" else "patch_size"] = tubelet
    masking = {modality: {"strategy": strategy, "ratio": ratio}}
    arguments = {
        **sizes["Transformer"],
        "decoder": sizes["Decoder"],
        "fusion": "separate",
        "modality": modality,
        "masking": masking,
        modality: front_end,
    }
    model = AVMAE(**arguments)
    load_weights(model, scenic.unimodal_table(arguments), weights)
    return model, modality
