"""MAViL's equations (1) to (6) in plain NumPy, float64, one example at a time.

Written from the paper to be read beside it, not to be fast; it shares no code with
the library. `weights` is a dict of the library's weight addresses to arrays, `settings`
says what cannot be read from them.
"""

import dataclasses
import math

import numpy as np

EPSILON = 1e-6


@dataclasses.dataclass
class Settings:
    """A model's sizes; grids are token counts per axis, patch sizes values per axis."""

    num_heads: int
    num_layers: int
    num_fusion_layers: int
    decoder_num_heads: int
    decoder_num_layers: int
    audio_grid: tuple
    audio_patch: tuple
    video_grid: tuple
    video_patch: tuple
    fusion: str = "concat"
    mask_ratio: float = 0.8
    alpha: float = 0.1
    inter_temperature: float = 0.1
    beta: float = 0.01
    intra_temperature: float = 1.0


# --- Inputs ---------------------------------------------------------------------------


def audio_patches(spectrogram, settings):
    """One row per patch; patches go by time, then frequency."""
    (times, bands), (pt, pf) = settings.audio_grid, settings.audio_patch
    rows = []
    for t in range(times):
        for f in range(bands):
            patch = spectrogram[t * pt : (t + 1) * pt, f * pf : (f + 1) * pf]
            rows.append(patch.flatten())
    return np.array(rows)


def video_patches(frames, settings):
    """One row per tube; tubes go by time, row, column."""
    (times, rows, columns), (pt, ph, pw) = settings.video_grid, settings.video_patch
    tubes = []
    for t in range(times):
        for r in range(rows):
            for c in range(columns):
                tube = frames[
                    t * pt : (t + 1) * pt, r * ph : (r + 1) * ph, c * pw : (c + 1) * pw
                ]
                tubes.append(tube.flatten())
    return np.array(tubes)


def sinusoid(position, width):
    """MAE's code of a number: sines at `width / 2` frequencies, then cosines."""
    values = np.zeros(width)
    for k in range(width // 2):
        angle = position / 10000 ** (k / (width // 2))
        values[k] = math.sin(angle)
        values[width // 2 + k] = math.cos(angle)
    return values


def positions(modality, settings, width):
    """Fixed sinusoids: time and frequency; column and row, and in sum with it time."""
    codes = []
    if modality == "audio":
        times, bands = settings.audio_grid
        for t in range(times):
            for f in range(bands):
                codes.append([sinusoid(t, width // 2), sinusoid(f, width // 2)])
    else:
        times, rows, columns = settings.video_grid
        for t in range(times):
            for r in range(rows):
                for c in range(columns):
                    code = [sinusoid(c, width // 2), sinusoid(r, width // 2)]
                    codes.append([np.concatenate(code) + sinusoid(t, width)])
    return np.array([np.concatenate(code) for code in codes])


def visible_tokens(noise, settings):
    """Indices of the 20 % of the tokens with the least noise, those first."""
    count = int(len(noise) * (1 - settings.mask_ratio))
    return sorted(range(len(noise)), key=lambda i: noise[i])[:count]


# --- Transformer ----------------------------------------------------------------------


def dense(x, weights, name):
    return x @ weights[f"{name}/kernel"] + weights[f"{name}/bias"]


def layer_norm(x, weights, name):
    mean = x.mean(axis=-1, keepdims=True)
    variance = ((x - mean) ** 2).mean(axis=-1, keepdims=True)
    normal = (x - mean) / np.sqrt(variance + EPSILON)
    return normal * weights[f"{name}/gamma"] + weights[f"{name}/beta"]


def gelu(x):
    return 0.5 * x * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def softmax(x):
    exponentials = np.exp(x - x.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def attention(x, weights, name, num_heads):
    query, key, value = np.split(dense(x, weights, f"{name}/qkv"), 3, axis=-1)
    width = query.shape[1] // num_heads
    heads = []
    for h in range(num_heads):
        own = slice(h * width, (h + 1) * width)
        share = softmax(query[:, own] @ key[:, own].T / math.sqrt(width))
        heads.append(share @ value[:, own])
    return dense(np.concatenate(heads, axis=1), weights, f"{name}/projection")


def block(x, weights, name, num_heads):
    normal = layer_norm(x, weights, f"{name}/norm_1")
    x = x + attention(normal, weights, f"{name}/attention", num_heads)
    hidden = gelu(
        dense(layer_norm(x, weights, f"{name}/norm_2"), weights, f"{name}/mlp/expand")
    )
    return x + dense(hidden, weights, f"{name}/mlp/contract")


def transformer(x, weights, name, num_layers, num_heads):
    for i in range(num_layers):
        x = block(x, weights, f"{name}/block_{i}", num_heads)
    return x


# --- Encoders and decoders ------------------------------------------------------------


def unimodal_encoder(modality, patches, indices, weights, settings):
    """f_a or f_v of the tokens at `indices`, [CLS] first; before its last norm."""
    tokens = dense(patches, weights, f"{modality}_tokenizer/projection")
    tokens = tokens + positions(modality, settings, tokens.shape[1])
    own = weights[f"encoder/{modality}_class_token"]
    x = np.concatenate([own[None], tokens[indices]])
    name = f"encoder/{modality}"
    return transformer(x, weights, name, settings.num_layers, settings.num_heads)


def fusion_encoder(audio, video, weights, settings):
    """g_av: both modalities' tokens, [CLS] included, from both modalities' tokens."""
    fuse = vanilla_fusion if settings.fusion == "concat" else bottleneck_fusion
    audio, video = fuse(audio, video, weights, settings)
    norm = "encoder/joint_norm"
    return layer_norm(audio, weights, norm), layer_norm(video, weights, norm)


def vanilla_fusion(audio, video, weights, settings):
    x = transformer(
        np.concatenate([audio, video]),
        weights,
        "encoder/joint",
        settings.num_fusion_layers,
        settings.num_heads,
    )
    return x[: len(audio)], x[len(audio) :]


def bottleneck_fusion(audio, video, weights, settings):
    """Appendix B.2: the same layer for both, the mean of both bottlenecks."""
    b = weights["encoder/joint/bottleneck"]
    for i in range(settings.num_fusion_layers):
        name, heads = f"encoder/joint/both/block_{i}", settings.num_heads
        a_and_b = block(np.concatenate([audio, b]), weights, name, heads)
        v_and_b = block(np.concatenate([video, b]), weights, name, heads)
        audio, video = a_and_b[: len(audio)], v_and_b[: len(video)]
        b = (a_and_b[len(audio) :] + v_and_b[len(video) :]) / 2
    return audio, video


def decoder(modality, fused, indices, num_tokens, weights, settings):
    """f_a^-1 or f_v^-1: a prediction for each token, visible or not, in their order."""
    name = f"decoder/{modality}"
    mask_token = weights[f"{name}_mask_token"]
    sequence = np.stack([mask_token] * num_tokens)
    sequence[indices] = dense(fused[1:], weights, f"{name}_projection")
    x = sequence + positions(modality, settings, sequence.shape[1])
    x = transformer(
        x, weights, name, settings.decoder_num_layers, settings.decoder_num_heads
    )
    return dense(layer_norm(x, weights, f"{name}_norm"), weights, f"{name}_head")


# --- Equations ------------------------------------------------------------------------


def reconstruction(predictions, targets, visible):
    """One of the two sums of equations (1) and (5): mean over the masked tokens."""
    masked = [i for i in range(len(targets)) if i not in visible]
    return np.mean([np.mean((predictions[i] - targets[i]) ** 2) for i in masked])


def contrast(x, y, temperature):
    """Equation (2) of two lists of vectors."""

    def similarity(a, b):
        return a @ b / (np.linalg.norm(a) * np.linalg.norm(b))

    total = 0.0
    for i in range(len(x)):
        scores = [math.exp(similarity(x[i], other) / temperature) for other in y]
        total -= math.log(scores[i] / sum(scores))
    return total / len(x)


def losses(clips, weights, settings):
    """Equation (4), or (6) when the weights have a teacher.

    Args:
        clips: list of dicts with `audio` (spectrogram), `video` (frames) and the noise
            of two views: `audio_noise`, `video_noise`, `audio_noise_2`,
            `video_noise_2`.

    Returns:
        dict of the terms and `loss`, their weighted sum.
    """
    teacher = {
        name.removeprefix("teacher/"): value
        for name, value in weights.items()
        if name.startswith("teacher/")
    }
    parts = [one_clip(clip, weights, teacher, settings) for clip in clips]
    column = {name: [part[name] for part in parts] for name in parts[0]}
    a, v, tau = column["a_emb"], column["v_emb"], settings.inter_temperature
    a_2, v_2, tau_2 = column["a_emb_2"], column["v_emb_2"], settings.intra_temperature
    terms = {
        "audio": np.mean(column["audio"]),
        "video": np.mean(column["video"]),
        "contrast": (contrast(a, v, tau) + contrast(v, a, tau)) / 2,
        "intra_contrast_audio": contrast(a, a_2, tau_2),
        "intra_contrast_video": contrast(v, v_2, tau_2),
    }
    intra = (terms["intra_contrast_audio"] + terms["intra_contrast_video"]) / 2
    reconstructed = terms["audio"] + terms["video"]
    terms["loss"] = (
        reconstructed + settings.alpha * terms["contrast"] + settings.beta * intra
    )
    return terms


def one_clip(clip, weights, teacher, settings):
    """A clip's reconstruction losses and its embeddings from both views."""
    patches = {
        "audio": audio_patches(clip["audio"], settings),
        "video": video_patches(clip["video"], settings),
    }
    targets = teacher_outputs(patches, teacher, settings) if teacher else patches
    parts, encoded, visible = {}, {}, {}
    for view in ("", "_2"):
        for m in ("audio", "video"):
            indices = visible_tokens(clip[f"{m}_noise{view}"], settings)
            x = unimodal_encoder(m, patches[m], indices, weights, settings)
            own = layer_norm(x, weights, f"encoder/{m}_norm")
            parts[f"{m[0]}_emb{view}"] = own[1:].mean(axis=0)
            if view == "":
                encoded[m], visible[m] = x, indices
    fused = fusion_encoder(encoded["audio"], encoded["video"], weights, settings)
    for m, x in zip(("audio", "video"), fused, strict=True):
        n = len(patches[m])
        predictions = decoder(m, x, visible[m], n, weights, settings)
        parts[f"{m}_predictions"] = predictions
        parts[m] = reconstruction(predictions, targets[m], visible[m])
    return parts


def teacher_outputs(patches, weights, settings):
    """a^Teacher and v^Teacher: the complete view's fused tokens, without [CLS]."""
    everything = {m: list(range(len(x))) for m, x in patches.items()}
    audio, video = (
        unimodal_encoder(m, patches[m], everything[m], weights, settings)
        for m in ("audio", "video")
    )
    audio, video = fusion_encoder(audio, video, weights, settings)
    return {"audio": audio[1:], "video": video[1:]}
