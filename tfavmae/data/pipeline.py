"""From the TFRecords of a split to batches of int16 waveforms and uint8 frames.

The order of the clips and every random choice are functions of (seed, position), so
a stream can be started at any step, split over hosts and read with any number of
threads without changing a number in it. Only the JPEGs that a clip needs are decoded.
"""

import dataclasses

import numpy as np
import tensorflow as tf

from tfavmae.data import augment, clip_sampling, sampling, service
from tfavmae.data.index import RecordReader, naming_damage
from tfavmae.data.splits import MODALITIES, STORED_SAMPLE_RATE_HZ, Split, open_info

NO_AUGMENTATION = augment.Augmentation()

__all__ = ["ClipSpec", "ClipSplit", "naming_damage", "open_split"]


@dataclasses.dataclass(frozen=True)
class ClipSpec:
    """What to cut out of a stored clip.

    Args:
        clip_seconds: length of the audio window, and of the time in which the frames
            lie. A clip that is longer gives a random window in training and centred
            ones in evaluation, a shorter one is padded with zeros at the end
            (`audio_samples` tells how many samples are true).
        num_frames: frames per clip. A single frame is a random one of the window in
            training (CAV-MAE), the middle one in evaluation.
        frame_size: (height, width).
        shorter_side: of the picture that frames are cropped from; default: the least
            that covers `frame_size`. Frames stored at this size are not resized.
        frame_stride_seconds: time from frame to frame, the first at random (training)
            or so that they are centred; `None` spreads them over the window.
        labels: features to batch as labels.
        modalities: those to read; leaving out "video" decodes no JPEG.
        train: random windows and augmentation. `evaluation_batches` switches it off.
        augmentation: what may happen to a training clip.
        interpolation: of resizing frames, "bilinear" or "bicubic".
        sample_rate_hz: of the stored audio; nothing is resampled here.
    """

    clip_seconds: float
    num_frames: int = 1
    frame_size: tuple[int, int] = (224, 224)
    shorter_side: int | None = None
    frame_stride_seconds: float | None = None
    labels: tuple[str, ...] = ()
    modalities: tuple[str, ...] = MODALITIES
    train: bool = True
    augmentation: augment.Augmentation = NO_AUGMENTATION
    interpolation: str = "bilinear"
    sample_rate_hz: int = STORED_SAMPLE_RATE_HZ

    def __post_init__(self):
        stride = self.frame_stride_seconds
        self._check("clip_seconds", self.clip_seconds > 0, "positive")
        self._check("num_frames", self.num_frames >= 1, "at least 1")
        self._check("frame_size", min(self.frame_size) >= 1, "positive")
        self._check("frame_stride_seconds", stride is None or stride > 0, "positive")
        known = self.modalities and set(self.modalities) <= set(MODALITIES)
        self._check("modalities", known, f"some of {MODALITIES}")
        methods = ("bilinear", "bicubic")
        self._check("interpolation", self.interpolation in methods, f"one of {methods}")
        is_stored = self.sample_rate_hz == STORED_SAMPLE_RATE_HZ
        self._check("sample_rate_hz", is_stored, f"{STORED_SAMPLE_RATE_HZ}, as stored")

    def _check(self, name, condition, rule):
        if not condition:
            value = getattr(self, name)
            raise ValueError(f"`{name}` must be {rule}. Received: {name}={value}.")

    @property
    def num_samples(self):
        """Length of the batch's waveforms."""
        return round(self.clip_seconds * self.sample_rate_hz)


def open_split(dataset, split, data_dir=None):
    """Opens a split of a TFDS dataset in tfavmae's stored form.

    Args:
        dataset: "name", "name/config", either with ":version", or the path of a built
            dataset. The builder's code is not needed.
        split: its name, slices as in TFDS ("train[:90%]") included.
        data_dir: where to look for the name; default `TFDS_DATA_DIR` or
            `~/tensorflow_datasets`.

    Returns:
        A `ClipSplit`.
    """
    return ClipSplit(open_info(dataset, data_dir), split)


class ClipSplit(Split):
    """The clips of a split: what is known of them, and batches of them.

    ```python
    split = open_split("sounding_shapes/demo", "train", "data")
    spec = ClipSpec(clip_seconds=2.0, frame_size=(64, 64), labels=("label",))
    for batch in split.training_batches(spec, 32, seed=0, num_steps=100):
        ...
    ```

    A batch is a dict: `audio` int16 `(batch, samples)`, `audio_samples` int32
    `(batch,)`, `video` uint8 `(batch, frames, height, width, 3)`, `audio_present`,
    `video_present` and `sample_weight` float32 `(batch,)`, `example_index` int32
    `(batch,)` (the row in the split; -1 for padding), and the labels: int32
    `(batch,)` for a class, float32 `(batch, classes)` for a set of classes.
    """

    def training_batches(
        self,
        spec,
        batch_size,
        *,
        seed,
        start_step=0,
        num_steps=None,
        indices=None,
        keep=(),
        sampling_weights=None,
        replacement=True,
        draws_per_epoch=None,
        host_index=0,
        host_count=1,
        num_parallel_calls=tf.data.AUTOTUNE,
        services=(),
    ):
        """Shuffled batches without end, a pure function of `seed` and the step.

        Every clip comes once per epoch; epochs follow each other without a gap, so
        no clip is dropped and a batch may hold the end of one and the start of the
        next.

        Args:
            spec: `ClipSpec`.
            batch_size: of all hosts together.
            seed: of order, windows and augmentation.
            start_step: first step to give; costs nothing.
            num_steps: how many steps to give, `None` for no end.
            indices: rows to use, default all.
            keep: modalities that a clip must have to be used.
            sampling_weights: `(num_examples,)`; draws clips in proportion instead of
                in epochs, see `sampling.balanced_weights`.
            replacement: whether the same clip may be drawn twice in an epoch.
            draws_per_epoch: length of an epoch drawn without replacement, default
                the number of clips with a weight.
            host_index: this host; it gets rows `host_index * batch_size /
                host_count` on of every batch.
            host_count: number of hosts.
            num_parallel_calls: clips decoded at a time; changes nothing but speed.
            services: addresses of `tfavmae.data.service` whose workers make the
                batches; changes nothing but speed.

        Returns:
            `tf.data.Dataset` of batches of `batch_size / host_count` clips.
        """
        rows = self.rows(indices, keep)
        share = sampling.HostShare(batch_size, host_index, host_count)
        if sampling_weights is None:
            order = sampling.shuffled(share.positions(start_step), len(rows), seed)
        else:
            weights = np.asarray(sampling_weights)[rows]
            order = _weighted_order(
                weights, replacement, draws_per_epoch, share, start_step, seed
            )
        local = share.local_batch_size
        rows = tf.constant(rows)
        make_clip = self._clip_maker(spec)

        def clip(position, place):
            key = tf.stack([tf.constant(seed, tf.int64), position])
            return make_clip(rows[place], key, tf.constant(0, tf.int64), 1)

        def batches(order, num_steps):
            clips = order.map(clip, num_parallel_calls, deterministic=True)
            return _batches(clips, local, num_steps)

        count = tf.data.INFINITE_CARDINALITY if num_steps is None else num_steps
        if services:
            return service.spread(services, order, local, count, batches)
        if num_steps is not None:
            order = order.take(num_steps * local)
        return batches(order, count)

    def evaluation_batches(
        self,
        spec,
        batch_size,
        *,
        indices=None,
        keep=(),
        num_views=1,
        host_index=0,
        host_count=1,
        num_parallel_calls=tf.data.AUTOTUNE,
    ):
        """Every clip (every view of it) exactly once, in the order of the rows.

        The last batch is filled up with repeats of the first clip, with
        `sample_weight` 0 and `example_index` -1.

        Args:
            spec: `ClipSpec`; used with `train=False`.
            batch_size: of all hosts together.
            indices: rows to use, default all.
            keep: modalities that a clip must have to be used.
            num_views: windows (of a longer clip) and frames spread evenly over the
                clip, each a row of its own with the same `example_index`.
            host_index: as in `training_batches`.
            host_count: number of hosts.
            num_parallel_calls: clips decoded at a time.

        Returns:
            `tf.data.Dataset` of batches of `batch_size / host_count` rows.
        """
        rows = tf.constant(self.rows(indices, keep))
        share = sampling.HostShare(batch_size, host_index, host_count)
        total = len(rows) * num_views
        num_steps = -(-total // batch_size)
        make_clip = self._clip_maker(dataclasses.replace(spec, train=False))

        def clip(position):
            is_real = position < total
            item = tf.where(is_real, position, 0)
            row, view = rows[item // num_views], item % num_views
            out = make_clip(row, tf.zeros([2], tf.int64), view, num_views)
            index = tf.where(is_real, out["example_index"], -1)
            weight = tf.cast(is_real, tf.float32)
            return {**out, "example_index": index, "sample_weight": weight}

        local = share.local_batch_size
        positions = share.positions(0).take(num_steps * local)
        clips = positions.map(clip, num_parallel_calls, deterministic=True)
        return _batches(clips, local, num_steps)

    def _clip_maker(self, spec):
        """Returns `(row, key, view, num_views) -> clip`, run inside tf.data."""
        labels = {name: self.label_encoder(name) for name in spec.labels}
        reader, parse = RecordReader(self.index), self.parser(spec.labels)

        def make_clip(row, key, view, num_views):
            example = parse(reader.read(row))
            file, record = reader.place(row)
            keys = tf.random.split(key, 3)
            window = clip_sampling.choose(spec, example, keys[0], view, num_views)
            clip = {
                "example_index": tf.cast(row, tf.int32),
                "sample_weight": tf.constant(1.0),
            }
            for name, encode in labels.items():
                clip[name] = encode(example[name])
            if "audio" in spec.modalities:
                clip |= clip_sampling.cut_audio(spec, example["audio"], window, keys[1])
            if "video" in spec.modalities:
                frames = example["frames"]
                clip |= clip_sampling.cut_video(
                    spec, frames, window, keys[2], file, record
                )
            return clip

        return make_clip


def _weighted_order(weights, replacement, draws_per_epoch, share, start_step, seed):
    if replacement:
        return sampling.drawn(share.positions(start_step), weights, seed)
    if draws_per_epoch is None:
        draws_per_epoch = int(np.count_nonzero(weights))
    return sampling.drawn_without_replacement(
        weights, draws_per_epoch, share, start_step, seed
    )


def _batches(clips, batch_size, num_steps):
    batches = clips.batch(batch_size, drop_remainder=True)
    options = tf.data.Options()
    options.deterministic = True
    # Clips are written where they lie in the batch: one copy less.
    options.experimental_optimization.map_and_batch_fusion = True
    # Hosts share by position; tf.distribute must not split the files once more.
    policy = tf.data.experimental.AutoShardPolicy.OFF
    options.experimental_distribute.auto_shard_policy = policy
    cardinality = tf.data.experimental.assert_cardinality(num_steps)
    return batches.apply(cardinality).with_options(options).prefetch(2)
