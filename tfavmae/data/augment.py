"""Augmentation of a clip's audio and frames, each a pure function of input and seed.

Seeds are the pairs of integers that `tf.random.stateless_*` takes. All frames of a clip
share one draw: a crop or a colour shift that differed between frames would add motion
that is not in the video.
"""

import dataclasses
import math

import tensorflow as tf

from tfavmae.data import rand_augment, resizing


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """Random changes to a training clip; all of them are off by default.

    Args:
        crop_scale: least and greatest share of the frame's area that a random crop
            keeps (the multi-scale crop of MAViL); `None` for the centre crop.
        crop_aspect: least and greatest width / height of the crop, relative to that
            of the requested frames.
        random_crop: a crop of fixed scale at a random place (AV-MAE: 224 pixels of
            frames whose `ClipSpec.shorter_side` is 256).
        scale_jitter: least and greatest scale of the frames before `random_crop`,
            drawn for height and width separately (fine-tuning of AV-MAE: 0.9 to 1.33).
        flip_probability: probability of mirroring all frames left to right.
        brightness: greatest shift, as a share of full scale.
        contrast: greatest deviation of the contrast factor from 1.
        saturation: greatest deviation of the saturation factor from 1.
        hue: greatest shift on the colour circle, in [0, 0.5].
        colour_probability: probability of applying these four.
        grey_probability: probability of taking the colour out of all frames (0.1 in
            the code of AV-MAE's fine-tuning).
        rand_augment_layers: operations of RandAugment on the frames, 0 for none.
        rand_augment_magnitude: strength of these operations, 0 to 10.
        roll_probability: probability of rolling the audio by a uniform time. This
            shifts audio against video.
        gain_db: greatest change of the level, up or down, in dB.
        noise_snr_db: least and greatest signal-to-noise ratio, in dB, of added white
            noise; `None` for no noise.

    Raises:
        ValueError: a value is out of its range, or options exclude each other.
    """

    crop_scale: tuple[float, float] | None = None
    crop_aspect: tuple[float, float] = (3 / 4, 4 / 3)
    random_crop: bool = False
    scale_jitter: tuple[float, float] | None = None
    flip_probability: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    colour_probability: float = 0.8
    grey_probability: float = 0.0
    rand_augment_layers: int = 0
    rand_augment_magnitude: float = 10.0
    roll_probability: float = 0.0
    gain_db: float = 0.0
    noise_snr_db: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        shares = ("flip", "colour", "grey", "roll")
        shares = [f"{name}_probability" for name in shares]
        for name in (*shares, "brightness", "contrast", "saturation"):
            self._check(name, 0 <= getattr(self, name) <= 1, "in [0, 1]")
        self._check("hue", 0 <= self.hue <= 0.5, "in [0, 0.5]")
        self._check("rand_augment_layers", self.rand_augment_layers >= 0, "0 or more")
        strength = self.rand_augment_magnitude
        self._check("rand_augment_magnitude", 0 <= strength <= 10, "in [0, 10]")
        self._check("gain_db", self.gain_db >= 0, "0 or more")
        low, high = self.crop_scale or (1.0, 1.0)
        self._check("crop_scale", 0 < low <= high <= 1, "0 < least <= greatest <= 1")
        low, high = self.crop_aspect
        self._check("crop_aspect", 0 < low <= high, "0 < least <= greatest")
        low, high = self.scale_jitter or (1.0, 1.0)
        self._check("scale_jitter", 0 < low <= high, "0 < least <= greatest")
        needs_crop = self.scale_jitter is None or self.random_crop
        self._check("scale_jitter", needs_crop, "used together with random_crop")
        only_one = self.crop_scale is None or not self.random_crop
        self._check("random_crop", only_one, "off if crop_scale is set")
        low, high = self.noise_snr_db or (0.0, 0.0)
        self._check("noise_snr_db", low <= high, "least <= greatest")

    def _check(self, name, is_met, rule):
        if not is_met:
            value = getattr(self, name)
            raise ValueError(f"`{name}` must be {rule}; received {name}={value!r}.")

    @property
    def changes_colour(self) -> bool:
        """Whether one of the four colour options is on."""
        return bool(self.brightness or self.contrast or self.saturation or self.hue)


def uniform(
    seed: tf.Tensor, low: float = 0.0, high: float = 1.0, shape: tuple[int, ...] = ()
) -> tf.Tensor:
    """Uniform float32 draws in [low, high), a function of the seed alone."""
    return tf.random.stateless_uniform(shape, seed, low, high)


# --- Video ---


def random_box(
    seed: tf.Tensor,
    height: tf.Tensor,
    width: tf.Tensor,
    aspect: float,
    crop_scale: tuple[float, float],
    crop_aspect: tuple[float, float],
) -> tf.Tensor:
    """A random box: area uniform in `crop_scale`, aspect log-uniform, place uniform.

    Args:
        seed: int `(2,)`.
        height, width: of the stored frames, in pixels.
        aspect: width / height of the requested frames.
        crop_scale, crop_aspect: see `Augmentation`.

    Returns:
        int32 `(4,)`: top, left, height and width in pixels. A side that would be longer
        than the frame is cut to it.
    """
    u = uniform(seed, shape=(4,))
    h, w = tf.cast(height, tf.float32), tf.cast(width, tf.float32)
    area = h * w * (crop_scale[0] + u[0] * (crop_scale[1] - crop_scale[0]))
    low, high = math.log(crop_aspect[0]), math.log(crop_aspect[1])
    ratio = aspect * tf.exp(low + u[1] * (high - low))
    box_height = tf.minimum(tf.sqrt(area / ratio), h)
    box_width = tf.minimum(tf.sqrt(area * ratio), w)
    box_height = tf.maximum(tf.round(box_height), 1.0)
    box_width = tf.maximum(tf.round(box_width), 1.0)
    # float32 rounds u * (n + 1) up to n + 1 for the largest u: hence the minimum.
    top = tf.minimum(tf.floor(u[2] * (h - box_height + 1.0)), h - box_height)
    left = tf.minimum(tf.floor(u[3] * (w - box_width + 1.0)), w - box_width)
    return tf.cast(tf.stack([top, left, box_height, box_width]), tf.int32)


def random_window(
    seed: tf.Tensor,
    height: tf.Tensor,
    width: tf.Tensor,
    frame_size: tuple[int, int],
    shorter_side: int | None,
    jitter: tuple[float, float] | None,
) -> resizing.Crop:
    """A crop at a random place of the resized frames (AV-MAE, section 4.1).

    Args:
        seed: int `(2,)`.
        height, width: of the stored frames, in pixels.
        frame_size, shorter_side: see `resizing.centre`.
        jitter: least and greatest further scale, drawn for height and width separately;
            `None` for none.

    Returns:
        `(box, scale, shift)` as of `resizing.centre`.
    """
    u = tf.cast(uniform(seed, shape=(4,)), tf.float64)
    size, resized = resizing.resized(height, width, frame_size, shorter_side)
    wanted = tf.constant(frame_size, tf.float64)
    if jitter is not None:
        resized = resized * (jitter[0] + u[2:] * (jitter[1] - jitter[0]))
        resized = tf.maximum(tf.round(resized), wanted)
    free = resized - wanted
    offset = tf.minimum(tf.floor(u[:2] * (free + 1.0)), free)
    return resizing.window(size, resized / size, offset, frame_size)


def flip(frames: tf.Tensor, seed: tf.Tensor, probability: float) -> tf.Tensor:
    """Mirrors all frames `(frames, height, width, 3)` left to right, or none."""
    return tf.where(uniform(seed) < probability, frames[:, :, ::-1], frames)


def jitter_colour(
    frames: tf.Tensor, seed: tf.Tensor, options: Augmentation
) -> tf.Tensor:
    """Shifts brightness, contrast, saturation and hue, the same for all frames.

    Args:
        frames: uint8 `(frames, height, width, 3)`.
        seed: int `(2,)`.
        options: the greatest shifts, and the probability of applying them.

    Returns:
        uint8 of the same shape.
    """
    u = uniform(seed, -1.0, 1.0, (5,))

    def shifted() -> tf.Tensor:
        x = tf.image.convert_image_dtype(frames, tf.float32)
        x = tf.clip_by_value(x + u[0] * options.brightness, 0.0, 1.0)
        # Not `tf.image.adjust_contrast`, which takes the mean of each frame: the clip
        # would flicker.
        mean = tf.reduce_mean(x, axis=[0, 1, 2])
        factor = 1.0 + u[1] * options.contrast
        x = tf.clip_by_value(mean + (x - mean) * factor, 0.0, 1.0)
        grey = tf.image.rgb_to_grayscale(x)
        factor = 1.0 + u[2] * options.saturation
        x = tf.clip_by_value(grey + (x - grey) * factor, 0.0, 1.0)
        if options.hue:
            x = tf.image.adjust_hue(x, u[3] * options.hue)
        return tf.image.convert_image_dtype(x, tf.uint8, saturate=True)

    is_applied = (u[4] + 1.0) / 2.0 < options.colour_probability
    return tf.cond(is_applied, shifted, lambda: frames)


def grey(frames: tf.Tensor, seed: tf.Tensor, probability: float) -> tf.Tensor:
    """Takes the colour out of all frames `(frames, height, width, 3)`, or of none."""
    without = tf.tile(tf.image.rgb_to_grayscale(frames), [1, 1, 1, 3])
    return tf.where(uniform(seed) < probability, without, frames)


def video(frames: tf.Tensor, seed: tf.Tensor, options: Augmentation) -> tf.Tensor:
    """Applies all changes of `options` to frames that are cropped already.

    Args:
        frames: uint8 `(frames, height, width, 3)`.
        seed: int `(2,)`.
        options: the changes; the crop is part of decoding, see `jpeg`.

    Returns:
        uint8 of the same shape.
    """
    seeds = tf.random.split(seed, 2)
    if options.flip_probability:
        frames = flip(frames, seeds[0], options.flip_probability)
    if options.changes_colour:
        frames = jitter_colour(frames, seeds[1], options)
    if options.grey_probability:
        key = tf.random.experimental.stateless_fold_in(seed, 3)
        frames = grey(frames, key, options.grey_probability)
    if options.rand_augment_layers:
        key = tf.random.experimental.stateless_fold_in(seed, 2)
        layers, magnitude = options.rand_augment_layers, options.rand_augment_magnitude
        frames = rand_augment.distort(frames, key, layers, magnitude)
    return frames


# --- Audio ---


def roll(samples: tf.Tensor, seed: tf.Tensor, probability: float) -> tf.Tensor:
    """Rolls the samples `(samples,)` by a uniform shift; the end reappears in front."""
    u = uniform(seed, shape=(2,))
    length = tf.cast(tf.shape(samples)[0], tf.float32)
    shift = tf.where(u[0] < probability, tf.cast(u[1] * length, tf.int32), 0)
    return tf.roll(samples, shift, axis=0)


def change_gain(samples: tf.Tensor, seed: tf.Tensor, gain_db: float) -> tf.Tensor:
    """Multiplies float samples by a gain that is uniform in +-`gain_db` dB."""
    return samples * 10.0 ** (uniform(seed, -gain_db, gain_db) / 20.0)


def add_noise(
    samples: tf.Tensor, seed: tf.Tensor, snr_db: tuple[float, float]
) -> tf.Tensor:
    """Adds white Gaussian noise at a signal-to-noise ratio that is uniform in `snr_db`.

    Args:
        samples: float32 `(samples,)`. Their mean power is the signal's, so silence
            stays silent.
        seed: int `(2,)`.
        snr_db: least and greatest ratio, in dB.

    Returns:
        float32 of the same shape.
    """
    seeds = tf.random.split(seed, 2)
    ratio_db = uniform(seeds[0], snr_db[0], snr_db[1])
    # An empty clip has no mean power: 0 / 0 must be 0.
    power = tf.math.divide_no_nan(
        tf.reduce_sum(samples**2), tf.cast(tf.size(samples), tf.float32)
    )
    noise = tf.random.stateless_normal(tf.shape(samples), seeds[1])
    return samples + noise * tf.sqrt(power * 10.0 ** (-ratio_db / 10.0))


def audio(samples: tf.Tensor, seed: tf.Tensor, options: Augmentation) -> tf.Tensor:
    """Applies all audio changes of `options` to the true samples, before any padding.

    Args:
        samples: int16 `(samples,)`.
        seed: int `(2,)`.
        options: the changes.

    Returns:
        int16 of the same shape, clipped to its range.
    """
    seeds = tf.random.split(seed, 3)
    if options.roll_probability:
        samples = roll(samples, seeds[0], options.roll_probability)
    if not options.gain_db and options.noise_snr_db is None:
        return samples
    x = tf.cast(samples, tf.float32)
    if options.gain_db:
        x = change_gain(x, seeds[1], options.gain_db)
    if options.noise_snr_db is not None:
        x = add_noise(x, seeds[2], options.noise_snr_db)
    return tf.saturate_cast(tf.round(x), tf.int16)
