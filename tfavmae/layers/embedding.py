"""Spectrograms and frames to patches, patches to tokens, and back."""

import keras
from keras import ops

from tfavmae.layers.masking import gather_tokens
from tfavmae.layers.positions import PositionEmbedding


def audio_grid(num_frames, num_mel_bins, patch_size):
    """Token counts `(time, frequency)`; frames that fill no patch are dropped."""
    return num_frames // patch_size[0], num_mel_bins // patch_size[1]


def video_grid(num_frames, height, width, tubelet_size):
    """Token counts `(time, rows, columns)`."""
    sizes = (num_frames, height, width)
    return tuple(n // p for n, p in zip(sizes, tubelet_size, strict=True))


def patchify_audio(spectrogram, patch_size):
    """`(batch, time, frequency)` -> `(batch, tokens, patch values)`.

    Tokens are time-major, values within a patch row by row in time, then frequency.
    """
    _, frames, bins = spectrogram.shape
    (t, f), (pt, pf) = audio_grid(frames, bins, patch_size), patch_size
    x = ops.reshape(spectrogram[:, : t * pt, : f * pf], (-1, t, pt, f, pf))
    return ops.reshape(ops.transpose(x, (0, 1, 3, 2, 4)), (-1, t * f, pt * pf))


def unpatchify_audio(patches, grid, patch_size):
    """Inverse of `patchify_audio`: `(batch, time, frequency)`."""
    (t, f), (pt, pf) = grid, patch_size
    x = ops.transpose(ops.reshape(patches, (-1, t, f, pt, pf)), (0, 1, 3, 2, 4))
    return ops.reshape(x, (-1, t * pt, f * pf))


def patchify_video(frames, tubelet_size):
    """`(batch, frames, height, width, 3)` -> `(batch, tokens, tubelet values)`.

    Tokens go by time, row, column; values by time, row, column, channel.
    """
    _, num_frames, height, width, channels = frames.shape
    t, r, c = video_grid(num_frames, height, width, tubelet_size)
    pt, ph, pw = tubelet_size
    x = frames[:, : t * pt, : r * ph, : c * pw]
    x = ops.reshape(x, (-1, t, pt, r, ph, c, pw * channels))
    x = ops.transpose(x, (0, 1, 3, 5, 2, 4, 6))
    return ops.reshape(x, (-1, t * r * c, pt * ph * pw * channels))


def unpatchify_video(patches, grid, tubelet_size, channels=3):
    """Inverse of `patchify_video`: `(batch, frames, height, width, channels)`."""
    (t, r, c), (pt, ph, pw) = grid, tubelet_size
    x = ops.reshape(patches, (-1, t, r, c, pt, ph, pw * channels))
    x = ops.transpose(x, (0, 1, 4, 2, 5, 3, 6))
    return ops.reshape(x, (-1, t * pt, r * ph, c * pw, channels))


def standardize_patches(patches, unbiased=True, epsilon=1e-6, channels=1):
    """Patches with mean 0 and variance 1 each (MAE, "normalised pixels").

    Args:
        patches: float32 `(batch, tokens, values)`.
        unbiased: divide by n - 1 (MAE, CAV-MAE) or by n (AV-MAE).
        channels: more than 1 standardises each channel of a patch by itself.

    Returns:
        The standardised patches, and the mean and deviation `(batch, tokens, 1)`, or
        `(batch, tokens, values)` where there are several channels.
    """
    tokens, values = patches.shape[1:]
    n = values // channels
    x = ops.reshape(patches, (-1, tokens, n, channels))
    mean = ops.mean(x, axis=2, keepdims=True)
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
    """Patches to tokens: a product, positions, and the modality's own vector.

    A strided convolution over the input is the same product; starting from patches lets
    masked ones be left out before it.

    Args:
        hidden_dim: width of the tokens.
        grid: token counts along each axis.
        positions: keyword arguments of `PositionEmbedding` but `grid`.
        modality_embedding: add a learned vector that names the modality (CAV-MAE).
        projection_initializer: of the product's kernel; AV-MAE's is `lecun_normal`.

    Call arguments:
        patches: `(batch, tokens, values)`.
        indices: int `(batch, n)`, the patches to embed; `None`: all, in order.

    Output shape: `(batch, n, hidden_dim)`.
    """

    def __init__(
        self,
        hidden_dim,
        grid,
        positions=None,
        modality_embedding=False,
        projection_initializer="glorot_uniform",
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.hidden_dim = hidden_dim
        self.grid = tuple(grid)
        self.position_options = dict(positions or {})
        self.modality_embedding = modality_embedding
        self.projection_initializer = projection_initializer

    def build(self, input_shape):
        dtype = self.dtype_policy
        self.projection = keras.layers.Dense(
            self.hidden_dim,
            kernel_initializer=self.projection_initializer,
            dtype=dtype,
            name="projection",
        )
        self.projection.build(input_shape)
        self.positions = PositionEmbedding(
            self.grid,
            **{"trainable": False, **self.position_options},
            dtype=dtype,
            name="positions",
        )
        self.positions.build((None, None, self.hidden_dim))
        if self.modality_embedding:
            self.modality = self.add_weight(
                name="modality",
                shape=(self.hidden_dim,),
                initializer=keras.initializers.RandomNormal(stddev=0.02),
            )

    def call(self, patches, indices=None):
        if indices is not None:
            patches = gather_tokens(patches, indices)
        tokens = self.positions(self.projection(patches), indices)
        if self.modality_embedding:
            tokens = tokens + ops.cast(self.modality, tokens.dtype)
        return tokens

    def get_config(self):
        return {
            **super().get_config(),
            "hidden_dim": self.hidden_dim,
            "grid": self.grid,
            "positions": self.position_options,
            "modality_embedding": self.modality_embedding,
            "projection_initializer": self.projection_initializer,
        }
