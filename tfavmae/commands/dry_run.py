"""`--dry-run`: what a command would read, compute and write, and what is missing."""

import math
import pathlib
import time
from typing import TYPE_CHECKING, Any

from tfavmae.errors import UserError

if TYPE_CHECKING:
    from tfavmae.config.experiment import ExperimentConfig

# Of the rate of large products, what a training step reaches (docs/speed.md).
_SHARE_OF_PEAK = 0.8


def build(builder: Any, data_dir: str | None) -> None:
    """Prints an estimate of a build.

    Raises:
        UserError: its files are missing, or the disk is too small.
    """
    from tfavmae.building.estimate import estimate

    found = estimate(builder, data_dir or "~/tensorflow_datasets")
    print(*found.lines(), sep="\n")
    if found.gigabytes_while_building > found.gigabytes_free:
        raise UserError(
            f"the disk has {found.gigabytes_free:.3g} GB free, and the build needs "
            f"about {found.gigabytes_while_building:.3g} GB; choose another --data-dir"
        )


def train(config: "ExperimentConfig", workdir: str) -> None:
    """Prints length, size and cost of a training.

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
        seconds = total / (_SHARE_OF_PEAK * matmul_rate())
        print(
            f"time: about {seconds / 3600:.2g} hours on this device, if the input "
            f"keeps up ({total / 1e15:.3g} PFLOP at {share})"
        )
    kept = config.trainer.keep_checkpoints
    size = (kept + 1) * (weights + moments) + weights  # one more while it is written
    print(f"disk: about {size / 1e9:.3g} GB in {workdir}, {kept} checkpoints")
    if missing:
        raise UserError(f"missing: {'; '.join(missing)}")


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
