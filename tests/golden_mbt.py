"""AV-MAE's classifiers against the authors' numbers: models from files."""

import re

import numpy as np
from golden_files import AV_MAE_TOLERANCE, below, close, load, same_loss

from tfavmae.models.av_mae import AVMAE
from tfavmae.models.presets import build_classifier
from tfavmae.models.transfer import Structure, address, find_origin
from tfavmae.objectives.classification import Classification
from tfavmae.training.optimizers import PathSGD
from tfavmae.training.schedules import CosineSchedule
from tfavmae.training.weight_groups import layer_factors
from tfavmae.weights import scenic, scenic_mbt
from tfavmae.weights.rules import load_weights

ATTENTION = "{}/encoderblock_{}/MultiHeadDotProductAttention_0/query/kernel"


def sizes_of(inputs):
    """Fields of the inputs' front ends, from arrays of our shapes."""
    fields = {}
    if "audio" in inputs:
        frames, bins = inputs["audio"].shape[1:]
        fields["audio"] = dict(num_frames=frames, num_mel_bins=bins)
    if "video" in inputs:
        frames, height, width = inputs["video"].shape[1:4]
        fields["video"] = dict(num_frames=frames, height=height, width=width)
    return fields


def mbt(config, inputs, num_classes, original):
    """The model of a config of theirs, for inputs of the given shapes."""
    arguments = scenic_mbt.mbt_arguments(config, original)
    for m, fields in sizes_of(inputs).items():
        arguments[m] |= fields
    return build_classifier(
        "av_mae", "base", classifier="mbt", num_classes=num_classes, **arguments
    )


def inputs_of(config, path):
    """The inputs beside a file that its config reads."""
    inputs = load(path.parent / "inputs.npz")
    arrays = {
        "audio": inputs["inputs/spectrogram"][..., 0],
        "video": inputs["inputs/rgb"],
    }
    wanted = {scenic.MODALITIES[m] for m in config["model"]["modality_fusion"]}
    return {m: x for m, x in arrays.items() if m in wanted}


def check_logits(model, golden, inputs):
    """Tokens and logits of evaluation; the outputs of training, which it returns."""
    evaluated, trained = model(inputs), model(inputs, training=True)
    close(evaluated["logits"], golden["eval/logits"], AV_MAE_TOLERANCE)
    for name, theirs in below(golden, "eval/tokens_").items():
        m = scenic.MODALITIES[name]
        tokens = np.asarray(evaluated[f"{m}_tokens"])
        if f"{m}_class_token" in evaluated:
            first = np.asarray(evaluated[f"{m}_class_token"])[:, None]
            tokens = np.concatenate([first, tokens], axis=1)
        close(tokens, theirs, AV_MAE_TOLERANCE, name)
    for name, theirs in below(golden, "train/logits_").items():
        ours = trained[f"{scenic.MODALITIES[name]}_logits"]
        close(ours, theirs, AV_MAE_TOLERANCE, name)
    return trained


def check_losses(golden, labels, outputs):
    """Both losses with their smoothing: the mean of those of the modalities.

    Each modality has labels of its own, as after mix-up of each by itself.
    """
    names = [re.fullmatch(r"train/(\w+)_loss_smoothing([\d.]+)", x) for x in golden]
    for match in filter(None, names):
        losses = []
        for theirs in below(golden, "train/logits_"):
            objective = Classification(
                label_smoothing=float(match[2]),
                modality=scenic.MODALITIES[theirs],
                activation=match[1],
                average_classes=False,
                per_modality=True,
            )
            batch = {"label": labels[f"label/{theirs}"]}
            terms = objective.terms(batch, outputs)
            losses.append(float(terms["classification"].mean()))
        same_loss(np.mean(losses), golden[match[0]], match[0])


def vivit(golden, stem):
    """The model of a file without a config, from its name and the shapes in it."""
    weights = below(golden, "params/")
    modality = "video" if golden["input"].ndim == 5 else "audio"
    inputs = golden["input"] if modality == "video" else golden["input"][..., 0]
    first = weights[ATTENTION.format("Transformer", 0)]
    layer = ATTENTION.format("Transformer", r"(\d+)")
    tubelet = weights["embedding/kernel"].shape[:-2]
    representation = weights.get("pre_logits/kernel")
    has_token = "cls" in weights
    positions = {"kind": "sincos_3d" if "3d" in stem else "sincos_1d"}
    if "posembed_input/pos_embedding" in weights:
        positions = {"kind": "learned", "trainable": True}
    patch = "tubelet_size" if modality == "video" else "patch_size"
    model = build_classifier(
        "av_mae",
        "base",
        modality,
        fusion="separate",
        hidden_dim=first.shape[0],
        num_heads=first.shape[1],
        mlp_dim=weights["Transformer/encoderblock_0/MlpBlock_0/Dense_0/kernel"].shape[
            1
        ],
        num_layers=sum(bool(re.fullmatch(layer, name)) for name in weights),
        num_classes=weights["output_projection/bias"].shape[0],
        positions=positions,
        modality_embedding=any("modality_token" in name for name in weights),
        class_token=has_token,
        # Theirs normalises tokens, or else what is pooled of them, or both.
        normalize_unimodal="Transformer/encoder_norm/scale" in weights,
        head={
            "tokens": "class_token" if has_token else "mean",
            "norm": "layer" if "encoder_norm/scale" in weights else "none",
            "representation_dim": None
            if representation is None
            else representation.shape[1],
        },
        **{modality: sizes_of({modality: inputs})[modality] | {patch: tubelet}},
    )
    names = {"modality": modality, "num_heads": first.shape[1]}
    table = scenic_mbt.vivit_table({**names, modality: {patch: tubelet}})
    load_weights(model, table, weights)
    return model, {modality: inputs}


# What their transfer leaves at random by mistake: it looks for `embedding_spec`.
FORGOTTEN = "embedding_spectrogram/"
NOT_RESTORED = "INIT (not restored)"


def check_transfer(case, recorded):
    """Which weight each weight of an MBT starts from, against their record.

    Args:
        case: "FUSION -> MODALITIES".
        recorded: dict of their leaf to the leaf that it was filled from; or the error
            that their code raises, as it looks for `embedding_spec`.
    """
    fusion, modalities = case.split(" -> ")
    order = modalities.split("+")
    names = sorted(scenic.MODALITIES[m] for m in order)
    sizes = dict(hidden_dim=12, num_heads=2, mlp_dim=8, num_layers=3)
    source = AVMAE(**sizes, fusion=fusion, num_fusion_layers=1)
    options = dict(classifier="mbt", num_classes=7, stream_fusion={"first_layer": 1})
    target = build_classifier("av_mae", "base", "_".join(names), **options, **sizes)
    given = Structure(map(address, source.weights))
    wanted = Structure(map(address, target.weights))
    roles = {m: m for m in given.modalities}
    found = {a: find_origin(a, wanted, given, roles) for a in wanted.addresses}
    if isinstance(recorded, str):
        assert recorded == "KeyError: 'embedding_spec'"
        fresh = {a for a, origin in found.items() if origin is None}
        assert fresh <= {"head/kernel", "head/bias", "encoder/joint/bottleneck"}
        return
    ours = scenic_mbt.mbt_table(names_only(order))
    theirs = scenic.av_mae_table(
        {
            **{"modality": "audio_video", "fusion": fusion, "num_heads": 1},
            "decoder": {"sharing": "shared", "num_heads": 1},
            "positions": {"kind": "sincos_1d"},
            "audio": {"patch_size": (16, 16)},
            "video": {"tubelet_size": (2, 16, 16)},
        }
    )
    for leaf, origin in recorded.items():
        place = ours.place(leaf)
        if place.address is None:
            assert origin == NOT_RESTORED, leaf
        elif leaf.startswith(FORGOTTEN):
            assert found[place.address] == place.address, leaf
        elif origin == NOT_RESTORED:
            assert found[place.address] is None, leaf
        else:
            there = theirs.place(origin)
            assert found[place.address] == there.address, leaf
            assert (place.part, place.parts) == (there.part, there.parts), leaf


def names_only(order):
    """A config of theirs whose table is asked for names alone."""
    sizes = {"num_heads": 1, "patches": {"size": (16, 16, 2)}}
    return {"model": {"modality_fusion": order, **sizes}}


def check_layer_decay(golden):
    """Layers by depth, and three steps of SGD whose rates fall with it."""
    groups = golden["group_id (0 = embedding .. num_layers+1 = head)"]
    config = golden["lr_config"]
    assert config["factors"] == "constant * cosine_decay * linear_warmup"
    decay, rule = golden["scale"].split(" ** ")
    assert rule == "(num_layers + 1 - id)"
    has_audio = any("spec" in leaf for leaf in groups)
    order = ["rgb", "spectrogram"] if has_audio else ["rgb"]
    table = scenic_mbt.mbt_table(names_only(order))
    layers = {re.search(r"encoderblock_(\d+)", leaf) for leaf in groups}
    num_layers = 1 + max(int(x[1]) for x in layers if x)
    model = build_classifier(
        "av_mae",
        "base",
        "audio_video" if has_audio else "video",
        classifier="mbt",
        num_classes=7,
        stream_fusion={"first_layer": 1},
        **dict(hidden_dim=12, num_heads=2, mlp_dim=8, num_layers=num_layers),
    )
    weights = {address(v): v for v in model.trainable_variables}
    for leaf, group in groups.items():
        assert model.layer_index(weights[table.place(leaf).address]) == group, leaf
    # In these models the authors' way to count layers counts the same.
    factors = layer_factors(model, float(decay))
    assert layer_factors(model, float(decay), "av_mae_authors") == factors
    optimizer = PathSGD(
        CosineSchedule(
            config["base_learning_rate"],
            config["steps_per_cycle"],
            config["warmup_steps"],
            cyclic=True,
        ),
        momentum=0.9,
        learning_rate_factors=factors,
    )
    optimizer.build(model.trainable_variables)
    displacements = golden["mean displacement after steps 0..3"]
    start = {a: np.array(v) for a, v in weights.items()}
    for step in range(len(next(iter(displacements.values())))):
        for leaf, means in displacements.items():
            name = table.place(leaf).address
            moved = np.mean(np.array(weights[name]) - start[name])
            np.testing.assert_allclose(moved, means[step], rtol=1e-4, atol=1e-7)
        value = golden["constant gradient"]
        gradients = [np.full(v.shape, value, "f") for v in model.trainable_variables]
        optimizer.apply(gradients)
