"""Patches of spectrograms and video, and their embedding as tokens."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import KerasTensor, ops

from tfavmae.layers.masking import gather_tokens
from tfavmae.layers.positions import PositionEmbedding


def audio_grid(
    num_frames: int, num_mel_bins: int, patch_size: Sequence[int]
) -> tuple[int, int]:
    """Token counts `(time, frequency)`; a rest that fills no patch is dropped."""
    return num_frames // patch_size[0], num_mel_bins // patch_size[1]


def video_grid(
    num_frames: int, height: int, width: int, tubelet_size: Sequence[int]
) -> tuple[int, ...]:
    """Token counts `(time, rows, columns)`; a rest that fills no tubelet is dropped."""
    sizes = (num_frames, height, width)
    return tuple(n // p for n, p in zip(sizes, tubelet_size, strict=True))


def patchify_audio(spectrogram: KerasTensor, patch_size: Sequence[int]) -> KerasTensor:
    """`(batch, time, frequency)` -> `(batch, tokens, patch values)`.

    Tokens and the values within a patch are in the order time, frequency.
    """
    _, frames, bins = spectrogram.shape
    (t, f), (pt, pf) = audio_grid(frames, bins, patch_size), patch_size
    x = ops.reshape(spectrogram[:, : t * pt, : f * pf], (-1, t, pt, f, pf))
    return ops.reshape(ops.transpose(x, (0, 1, 3, 2, 4)), (-1, t * f, pt * pf))


def unpatchify_audio(
    patches: KerasTensor, grid: Sequence[int], patch_size: Sequence[int]
) -> KerasTensor:
    """Inverse of `patchify_audio`: `(batch, time, frequency)`."""
    (t, f), (pt, pf) = grid, patch_size
    x = ops.transpose(ops.reshape(patches, (-1, t, f, pt, pf)), (0, 1, 3, 2, 4))
    return ops.reshape(x, (-1, t * pt, f * pf))


def patchify_video(frames: KerasTensor, tubelet_size: Sequence[int]) -> KerasTensor:
    """`(batch, frames, height, width, 3)` -> `(batch, tokens, tubelet values)`.

    Tokens are in the order time, row, column; the values within a tubelet in the order
    time, row, column, channel.
    """
    _, num_frames, height, width, channels = frames.shape
    t, r, c = video_grid(num_frames, height, width, tubelet_size)
    pt, ph, pw = tubelet_size
    x = frames[:, : t * pt, : r * ph, : c * pw]
    # A row of pixels and its channels stay side by side: as one axis, they leave one
    # less to transpose.
    x = ops.reshape(x, (-1, t, pt, r, ph, c, pw * channels))
    x = ops.transpose(x, (0, 1, 3, 5, 2, 4, 6))
    return ops.reshape(x, (-1, t * r * c, pt * ph * pw * channels))


def unpatchify_video(
    patches: KerasTensor,
    grid: Sequence[int],
    tubelet_size: Sequence[int],
    channels: int = 3,
) -> KerasTensor:
    """Inverse of `patchify_video`: `(batch, frames, height, width, channels)`."""
    (t, r, c), (pt, ph, pw) = grid, tubelet_size
    x = ops.reshape(patches, (-1, t, r, c, pt, ph, pw * channels))
    x = ops.transpose(x, (0, 1, 4, 2, 5, 3, 6))
    return ops.reshape(x, (-1, t * pt, r * ph, c * pw, channels))


def standardize_patches(
    patches: KerasTensor,
    unbiased: bool = True,
    epsilon: float = 1e-6,
    channels: int = 1,
) -> tuple[KerasTensor, KerasTensor, KerasTensor]:
    """Patches with mean 0 and variance 1 each (MAE, section 3, `norm_pix_loss`).

    Args:
        patches: float32 `(batch, tokens, values)`.
        unbiased: divide the variance by n - 1 (MAE, CAV-MAE) or by n (AV-MAE).
        epsilon: added to the variance; 1e-6 in MAE's code.
        channels: more than 1 standardises each channel of a patch by itself.

    Returns:
        The standardised patches, and their mean and deviation: `(batch, tokens, 1)`, or
        `(batch, tokens, values)` where there are several channels.
    """
    tokens, values = patches.shape[1:]
    n = values // channels
    x = ops.reshape(patches, (-1, tokens, n, channels))
    mean = ops.mean(x, axis=2, keepdims=True)
    # By hand: `ops.var` divides by n only (Keras 3.15).
    variance = ops.mean(ops.square(x - mean), axis=2, keepdims=True)
    deviation = ops.sqrt(variance * (n / (n - 1) if unbiased else 1.0) + epsilon)
    x = (x - mean) / deviation
    if channels > 1:
        mean, deviation = (ops.tile(part, (1, 1, n, 1)) for part in (mean, deviation))
    return tuple(
        ops.reshape(part, (-1, tokens, part.shape[2] * channels))
        for part in (x, mean, deviation)
    )


@keras.saving.register_keras_serializable(package="tfavmae")
class Tokenizer(keras.layers.Layer):
    """Embeds patches as tokens: a dense layer, positions and a modality embedding.

    The dense layer equals the strided convolution of the papers' code, but masked
    patches are dropped before it rather than after it.

    Args:
        hidden_dim: width of the tokens.
        grid: token counts along each axis.
        positions: keyword arguments of `PositionEmbedding` except `grid`. With
            `class_token` a learned token, which starts at 0, precedes those of the
            patches (MBT); a class token without a position is the encoder's.
        modality_embedding: add a learned vector that tells the modalities apart
            (CAV-MAE).
        projection_initializer: initializer of the dense layer's kernel; AV-MAE's is
            `lecun_normal`.
        modality_stddev: deviation of the initial modality vector; AV-MAE starts at 0.

    Call arguments:
        patches: `(batch, tokens, values)`.
        indices: int `(batch, n)`, the patches to embed; `None`: all, in order.

    Output shape:
        `(batch, n, hidden_dim)`, or `(batch, 1 + n, hidden_dim)` with a class token.
    """

    def __init__(
        self,
        hidden_dim: int,
        grid: Sequence[int],
        positions: Mapping[str, Any] | None = None,
        modality_embedding: bool = False,
        projection_initializer: str = "glorot_uniform",
        modality_stddev: float = 0.02,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.hidden_dim = hidden_dim
        self.grid = tuple(grid)
        self.position_options = dict(positions or {})
        self.modality_embedding = modality_embedding
        self.modality_stddev = modality_stddev
        self.projection_initializer = projection_initializer
        self.has_class_token = self.position_options.get("class_token", False)

    @property
    def output_shape(self) -> tuple:
        """`(batch, tokens, hidden_dim)` of all patches, for `model.summary()`."""
        return (None, math.prod(self.grid) + self.has_class_token, self.hidden_dim)

    def build(self, input_shape: tuple) -> None:
        dtype = self.dtype_policy
        self.projection = keras.layers.Dense(
            self.hidden_dim,
            kernel_initializer=self.projection_initializer,
            dtype=dtype,
            name="projection",
        )
        self.projection.build(input_shape)
        # Sin-cos tables are frozen unless the options say otherwise (MAE).
        self.positions = PositionEmbedding(
            self.grid,
            **{"trainable": False, **self.position_options},
            dtype=dtype,
            name="positions",
        )
        self.positions.build((None, None, self.hidden_dim))
        if self.has_class_token:
            self.class_token = self.add_weight(
                name="class_token", shape=(self.hidden_dim,), initializer="zeros"
            )
        if self.modality_embedding:
            self.modality = self.add_weight(
                name="modality",
                shape=(self.hidden_dim,),
                initializer=keras.initializers.RandomNormal(
                    stddev=self.modality_stddev
                ),
            )

    def call(
        self, patches: KerasTensor, indices: KerasTensor | None = None
    ) -> KerasTensor:
        if indices is not None:
            patches = gather_tokens(patches, indices)
        tokens = self.projection(patches)
        if self.has_class_token:
            first = ops.cast(self.class_token, tokens.dtype)
            first = ops.broadcast_to(first, (ops.shape(tokens)[0], 1, self.hidden_dim))
            tokens = ops.concatenate([first, tokens], axis=1)
            if indices is not None:
                indices = ops.pad(indices + 1, ((0, 0), (1, 0)))
        tokens = self.positions(tokens, indices)
        if self.modality_embedding:
            tokens = tokens + ops.cast(self.modality, tokens.dtype)
        return tokens

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "hidden_dim": self.hidden_dim,
            "grid": self.grid,
            "positions": self.position_options,
            "modality_embedding": self.modality_embedding,
            "modality_stddev": self.modality_stddev,
            "projection_initializer": self.projection_initializer,
        }
