"""`--dry-run`: what a command would read, compute and write, and what is missing."""

import dataclasses
import math
import pathlib
import tempfile
import time
from typing import TYPE_CHECKING, Any

from tfavmae.errors import UserError

if TYPE_CHECKING:
    from tfavmae.building.estimate import Estimate
    from tfavmae.config.experiment import ExperimentConfig
    from tfavmae_datasets.sounding_shapes.sounding_shapes_dataset_builder import (
        ShapesConfig,
    )

# Of the rate of large products, what a training step reaches (docs/speed.md).
_SHARE_OF_PEAK = 0.8
# Clips that are generated to measure; the workers' start is a small part of that time.
_NUM_GENERATED = 64
_DATA_DIR = "~/tensorflow_datasets"  # that of TFDS


def build(builder: Any, data_dir: str | None) -> "Estimate":
    """Prints and returns an estimate of a build.

    Raises:
        UserError: its files are missing, or the disk is too small.
    """
    from tfavmae.building.estimate import estimate

    return _told(estimate(builder, data_dir or _DATA_DIR))


def build_generated(
    config: "ShapesConfig", data_dir: str | None, num_workers: int | None
) -> "Estimate":
    """Prints and returns an estimate of a build of SoundingShapes, from a few clips.

    Raises:
        UserError: the disk is too small.
    """
    from tfavmae.building.estimate import estimate
    from tfavmae_datasets.sounding_shapes import (
        sounding_shapes_dataset_builder as shapes,
    )

    wanted = config.settings
    total = wanted.num_train_clips + wanted.num_validation_clips + wanted.num_test_clips
    size = min(_NUM_GENERATED, total)
    few = dataclasses.replace(
        wanted,
        name="sample",
        num_train_clips=size,
        num_validation_clips=0,
        num_test_clips=0,
    )
    with tempfile.TemporaryDirectory() as folder:
        media = pathlib.Path(folder, "media")
        builder = shapes.Builder(
            config=shapes.builder_config(few, config.seed),
            data_dir=folder,
            media_dir=media,
            num_workers=num_workers,
        )
        started = time.monotonic()
        builder.generate_media(media, "train", size)
        seconds = time.monotonic() - started
        sample = estimate(builder, data_dir or _DATA_DIR)
        num_bytes = sum(file.stat().st_size for file in media.rglob("*.mp4"))
    gigabytes = sample.gigabytes * total / size
    return _told(
        dataclasses.replace(
            sample,
            num_clips=total,
            gigabytes=gigabytes,
            # The media files are kept; see the builder's `prepared_clips`.
            gigabytes_while_building=gigabytes + num_bytes * total / size / 1e9,
            hours=(sample.hours + seconds / 3600) * total / size,
        )
    )


def _told(found: "Estimate") -> "Estimate":
    """Prints an estimate; an error where the disk is too small for it."""
    print(*found.lines(), sep="\n")
    if found.gigabytes_while_building > found.gigabytes_free:
        raise UserError(
            f"the disk has {found.gigabytes_free:.3g} GB free, and the build needs "
            f"about {found.gigabytes_while_building:.3g} GB; choose another --data-dir"
        )
    return found


def train(config: "ExperimentConfig", workdir: str) -> dict[str, float]:
    """Prints and returns length, size and cost of a training.

    Raises:
        UserError: the data set or a source of weights is missing.
    """
    from tfavmae.models.flops import forward_flops, training_flops
    from tfavmae.training import factory
    from tfavmae.training.plan import make_plan

    missing, data = _missing_sources(config), None
    try:
        data = factory.TrainingData(config.data, config.model, seed=config.trainer.seed)
    except UserError as error:
        missing.append(str(error))
    if data is None and config.stage == "finetune":
        raise UserError("; ".join(missing))
    labels = data.labels() if data and config.stage == "finetune" else None
    model = factory.build_model(config, labels)
    weights = 4 * sum(math.prod(v.shape) for v in model.weights)  # bytes
    moments = 8 * sum(math.prod(v.shape) for v in model.trainable_weights)
    found = {"parameters": model.count_params()}
    print(f"model: {model.count_params():,} parameters")
    if data is not None:
        plan = make_plan(
            config.trainer,
            config.optimizer,
            batch_size=config.data.batch_size,
            num_examples=data.num_examples,
            draws_per_epoch=config.data.draws_per_epoch,
        )
        print(*plan.describe(config.optimizer), sep="\n")
        if config.stage == "pretrain":
            _, flops = training_flops(model)
        else:
            # A backward pass has two products for each of the forward pass.
            flops = 3 * forward_flops(model)
        total = flops * plan.batch_size * plan.num_steps
        share = f"{_SHARE_OF_PEAK:.0%} of the rate of its products"
        hours = total / (_SHARE_OF_PEAK * matmul_rate()) / 3600
        found |= {"steps": plan.num_steps, "clips": data.num_examples}
        found |= {"petaflops": total / 1e15, "hours": hours}
        print(
            f"time: about {hours:.2g} hours on this device, if the input "
            f"keeps up ({total / 1e15:.3g} PFLOP at {share})"
        )
    kept = config.trainer.keep_checkpoints
    size = (kept + 1) * (weights + moments) + weights  # one more while it is written
    print(f"disk: about {size / 1e9:.3g} GB in {workdir}, {kept} checkpoints")
    if missing:
        raise UserError(f"missing: {'; '.join(missing)}")
    return found | {"gigabytes": size / 1e9}


def _missing_sources(config: "ExperimentConfig") -> list[str]:
    from tfavmae.config.transfer import sources
    from tfavmae.models.preset_address import is_preset

    paths = [one.path for one in sources(config.initialize_from)]
    paths += config.teacher_from or []
    return [
        f"{path}, which the weights start from; see `tfavmae weights list`"
        for path in paths
        if not pathlib.Path(path).expanduser().exists() and not is_preset(path)
    ]


def matmul_rate(size: int = 2048) -> float:
    """FLOP/s of a square product in float32, the best of three."""
    import tensorflow as tf

    x = tf.random.uniform((size, size))
    times = []
    for _ in range(4):
        started = time.monotonic()
        tf.reduce_sum(x @ x).numpy()
        times.append(time.monotonic() - started)
    return 2 * size**3 / min(times[1:])
