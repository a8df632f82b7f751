"""MBT in NumPy with Scenic's names of weights, written from the papers' code's text.

`weights` draws what a config needs, `forward` computes logits from them: for the
variants that no recorded file here covers.
"""

import numpy as np
import scipy.special

WIDTH, HEADS, MLP, CLASSES = 12, 2, 20, 5
GRIDS = {"rgb": (2, 2, 3), "spectrogram": (5, 2)}
PATCHES = {"rgb": (2, 16, 16, 3), "spectrogram": (16, 16, 1)}
CONFIG = {
    "modality_fusion": ["rgb", "spectrogram"],
    "use_bottleneck": True,
    "test_with_bottlenecks": True,
    "share_encoder": False,
    "n_bottlenecks": 4,
    "fusion_layer": 1,
    "patches": {"size": [16, 16, 2]},
    "attention_config": {"type": "spacetime"},
    "representation_size": None,
    "classifier": "gap",
    "hidden_size": WIDTH,
    "num_heads": HEADS,
    "mlp_dim": MLP,
    "num_layers": 3,
    "temporal_encoding_config": {"method": "3d_conv"},
    "use_modality_tokens": False,
}


def block_name(config, layer, modality, original):
    """Of the block that a modality's tokens run through in a layer."""
    plain = "rgb" if original else config["modality_fusion"][0]
    name = f"Transformer/encoderblock_{layer}"
    if config["share_encoder"] or modality == plain:
        return name
    short = modality if original else {"spectrogram": "spec"}.get(modality, modality)
    return f"{name}_{short}"


def weights(config, original=False, seed=0):
    """Dict of Scenic's names to float32 arrays."""
    rng = np.random.default_rng(seed)
    found = {}

    def add(name, *shape, scale=0.3, mean=0.0):
        found[name] = (mean + scale * rng.normal(size=shape)).astype("float32")

    def norm(name):
        add(f"{name}/scale", WIDTH, mean=1.0)
        add(f"{name}/bias", WIDTH)

    order, has_token = config["modality_fusion"], config["classifier"] == "token"
    for m in order:
        suffix = "" if m == "rgb" else f"_{m}"
        add(f"embedding{suffix}/kernel", *PATCHES[m], WIDTH, scale=0.05)
        add(f"embedding{suffix}/bias", WIDTH)
        if config["use_modality_tokens"]:
            add(f"Encoder_modality_token_{m}", 1, 1, WIDTH)
        if has_token:
            add("cls" + ("" if m == "rgb" or len(order) == 1 else m), 1, 1, WIDTH)
        if original:
            tokens = int(np.prod(GRIDS[m])) + has_token
            name = f"Transformer/posembed_input{suffix}/pos_embedding"
            add(name, 1, tokens, WIDTH)
        for layer in range(config["num_layers"]):
            block = block_name(config, layer, m, original)
            attention = f"{block}/MultiHeadDotProductAttention_0"
            for part in ("query", "key", "value"):
                add(f"{attention}/{part}/kernel", WIDTH, HEADS, WIDTH // HEADS)
                add(f"{attention}/{part}/bias", HEADS, WIDTH // HEADS)
            add(f"{attention}/out/kernel", HEADS, WIDTH // HEADS, WIDTH)
            add(f"{attention}/out/bias", WIDTH)
            for i, (rows, columns) in enumerate(((WIDTH, MLP), (MLP, WIDTH))):
                add(f"{block}/MlpBlock_0/Dense_{i}/kernel", rows, columns)
                add(f"{block}/MlpBlock_0/Dense_{i}/bias", columns)
                norm(f"{block}/LayerNorm_{i}")
    if config["use_bottleneck"]:
        add("bottleneck", 1, config["n_bottlenecks"] + has_token, WIDTH)
    norm("Transformer/encoder_norm")
    head = "" if original else "ProjectionHeadAndClassifier_0/"
    width = config["representation_size"]
    if width:
        add(f"{head}pre_logits/kernel", WIDTH, width)
        add(f"{head}pre_logits/bias", width)
    add(f"{head}output_projection/kernel", width or WIDTH, CLASSES)
    add(f"{head}output_projection/bias", CLASSES)
    return found


def layer_norm(w, name, x):
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
    return x * w[f"{name}/scale"] + w[f"{name}/bias"]


def block(w, name, x):
    attention = f"{name}/MultiHeadDotProductAttention_0"
    y = layer_norm(w, f"{name}/LayerNorm_0", x)
    query, key, value = (
        np.einsum("btd,dhk->bhtk", y, w[f"{attention}/{part}/kernel"])
        + w[f"{attention}/{part}/bias"][:, None]
        for part in ("query", "key", "value")
    )
    scores = query @ key.swapaxes(-1, -2) / np.sqrt(query.shape[-1])
    y = np.einsum(
        "bhtk,hkd->btd",
        scipy.special.softmax(scores, axis=-1) @ value,
        w[f"{attention}/out/kernel"],
    )
    x = x + y + w[f"{attention}/out/bias"]
    y = layer_norm(w, f"{name}/LayerNorm_1", x)
    mlp = f"{name}/MlpBlock_0/Dense"
    y = y @ w[f"{mlp}_0/kernel"] + w[f"{mlp}_0/bias"]
    y = y / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (y + 0.044715 * y**3)))
    return x + y @ w[f"{mlp}_1/kernel"] + w[f"{mlp}_1/bias"]


def tokens_of(w, config, inputs, original):
    """Dict of modality to tokens, with positions."""
    order, tokens = config["modality_fusion"], {}
    for m in order:
        suffix = "" if m == "rgb" else f"_{m}"
        kernel, x = w[f"embedding{suffix}/kernel"], inputs[m]
        for axis, size in enumerate(PATCHES[m][:-1]):
            axis = 1 + 2 * axis
            split = (*x.shape[:axis], -1, size, *x.shape[axis + 1 :])
            x = x.reshape(split)
        axes = {"rgb": "btzrycxv,zyxvd->btrcd", "spectrogram": "brycxv,yxvd->brcd"}
        x = np.einsum(axes[m], x, kernel) + w[f"embedding{suffix}/bias"]
        x = x.reshape(len(x), -1, WIDTH)
        if config["classifier"] == "token":
            token = w["cls" + ("" if m == "rgb" or len(order) == 1 else m)]
            x = np.concatenate([np.tile(token, (len(x), 1, 1)), x], axis=1)
        if config["use_modality_tokens"]:
            x = x + w[f"Encoder_modality_token_{m}"]
        if original:
            x = x + w[f"Transformer/posembed_input{suffix}/pos_embedding"]
        else:
            x = x + tokens_positions(x.shape[1])
        tokens[m] = x
    return tokens


def encode(w, config, x, original, training):
    order, joined = config["modality_fusion"], None
    bottleneck = w.get("bottleneck")
    if bottleneck is not None:
        bottleneck = np.tile(bottleneck, (len(x[order[0]]), 1, 1))
    fuses = training or config["test_with_bottlenecks"] or not config["use_bottleneck"]
    for layer in range(config["num_layers"]):
        names = {m: block_name(config, layer, m, original) for m in order}
        if layer < config["fusion_layer"] or len(order) == 1 or not fuses:
            x = {m: block(w, names[m], x[m]) for m in order}
        elif config["use_bottleneck"]:
            out = {
                m: block(w, names[m], np.concatenate([x[m], bottleneck], axis=1))
                for m in order
            }
            x = {m: out[m][:, : x[m].shape[1]] for m in order}
            bottleneck = np.mean([out[m][:, x[m].shape[1] :] for m in order], axis=0)
        elif config["share_encoder"]:
            if joined is None:
                joined = np.concatenate([x[m] for m in order], axis=1)
            joined = block(w, names[order[0]], joined)
        else:
            other = {m: next(n for n in order if n != m) for m in order}
            x = {
                m: block(w, names[m], np.concatenate([x[other[m]], x[m]], axis=1))[
                    :, -x[m].shape[1] :
                ]
                for m in order
            }
    if joined is None:
        joined = np.concatenate([x[m] for m in order], axis=1)
    return layer_norm(w, "Transformer/encoder_norm", joined)


def forward(w, config, inputs, original=False, training=False):
    """Dict of modality to logits; their mean is the answer.

    Args:
        inputs: dict of `rgb` `(batch, 4, 32, 48, 3)` and `spectrogram`
            `(batch, 80, 32, 1)`.
    """
    w = {name: x.astype("float64") for name, x in w.items()}
    x = tokens_of(w, config, inputs, original)
    lengths = {m: x[m].shape[1] for m in config["modality_fusion"]}
    x = encode(w, config, x, original, training)
    head = "" if original else "ProjectionHeadAndClassifier_0/"
    logits, start = {}, 0
    for m, length in lengths.items():
        own = x[:, start : start + length]
        start += length
        pool = {"gap": np.mean, "gmp": np.max, "gsp": np.sum}
        kind = config["classifier"]
        pooled = own[:, 0] if kind == "token" else pool[kind](own, axis=1)
        if config["representation_size"]:
            name = f"{head}pre_logits"
            pooled = np.tanh(pooled @ w[f"{name}/kernel"] + w[f"{name}/bias"])
        name = f"{head}output_projection"
        logits[m] = pooled @ w[f"{name}/kernel"] + w[f"{name}/bias"]
    return logits


def vivit_weights(modality, has_token, seed=0):
    """Of a classifier of one modality; no mean is normalised twice."""
    config = CONFIG | {"modality_fusion": [modality], "use_bottleneck": False}
    found = {}
    for name, x in weights(config, seed=seed).items():
        name = name.removeprefix("ProjectionHeadAndClassifier_0/")
        name = name.replace("embedding_spectrogram", "embedding")
        if not has_token:
            name = name.replace("Transformer/encoder_norm", "encoder_norm")
        found[name] = x
    if has_token:
        found["cls"] = found["embedding/bias"][None, None] + 0.2
    return found


def vivit(w, modality, inputs, has_3d_positions):
    """Logits; a class token has no position here, and a mean is normalised."""
    w = {name: x.astype("float64") for name, x in w.items()}
    config = CONFIG | {"modality_fusion": [modality]}
    suffix = "" if modality == "rgb" else f"_{modality}"
    named = {name.replace("embedding/", f"embedding{suffix}/"): w[name] for name in w}
    x = tokens_of(named, config, {modality: inputs}, original=False)[modality]
    if has_3d_positions:
        x = x - tokens_positions(x.shape[1]) + positions_3d(GRIDS[modality])
    if "cls" in w:
        x = np.concatenate([np.tile(w["cls"], (len(x), 1, 1)), x], axis=1)
    for layer in range(config["num_layers"]):
        x = block(w, f"Transformer/encoderblock_{layer}", x)
    if "cls" in w:
        x = layer_norm(w, "Transformer/encoder_norm", x)[:, 0]
    else:
        x = layer_norm(w, "encoder_norm", x.mean(axis=1))
    return x @ w["output_projection/kernel"] + w["output_projection/bias"]


def tokens_positions(count):
    """1-D table over the flattened index, sine and cosine in turn."""
    rates = np.exp(-np.log(1e4) * np.arange(0, WIDTH, 2) / WIDTH)
    angles = np.arange(count)[:, None] * rates
    return np.stack([np.sin(angles), np.cos(angles)], axis=-1).reshape(count, WIDTH)


def positions_3d(grid):
    """A third of the width for time, column and row; there, sines before cosines."""
    rates = np.exp(-np.log(1e4) * np.arange(0, WIDTH // 3, 2) / (WIDTH // 3))
    time, row, column = np.indices(grid)
    angles = [axis.ravel()[:, None] * rates for axis in (time, column, row)]
    return np.concatenate([f(x) for x in angles for f in (np.sin, np.cos)], axis=1)
