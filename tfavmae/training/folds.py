"""Cross-validation: one run for each fold of a data set, trained on all the others."""

import os
import pathlib
import re
from collections.abc import Iterable

from tfavmae.config import experiment as config_lib
from tfavmae.config.experiment import ExperimentConfig
from tfavmae.data.splits import open_info
from tfavmae.errors import UserError

_FOLD = re.compile(r"fold_(\d+)")


def fold_splits(splits: Iterable[str], where: str) -> list[str]:
    """The splits of a data set that are folds, named `fold_1`, `fold_2` ..., in order.

    Args:
        splits: names of all splits.
        where: the data set, for messages.

    Raises:
        UserError: there are fewer than two.
    """
    numbers = {name: _FOLD.fullmatch(name) for name in splits}
    folds = {name: int(match[1]) for name, match in numbers.items() if match}
    if len(folds) < 2:
        raise UserError(
            f"{where}: has no folds (splits fold_1, fold_2 ...); its splits are "
            f"{', '.join(numbers)}"
        )
    return sorted(folds, key=folds.__getitem__)


def fold_configs(
    config: ExperimentConfig, workdir: str | os.PathLike
) -> dict[pathlib.Path, ExperimentConfig]:
    """Each fold's work directory and config, in order.

    A fold is validated on, and all others are trained on; nothing else differs.

    Args:
        config: of any of the runs; its splits are replaced.
        workdir: directory of the folds' work directories, `fold_1`, `fold_2` ...

    Raises:
        UserError: the data set has no folds.
    """
    info = open_info(config.data.dataset, config.data.data_dir)
    folds = fold_splits(info.splits, info.full_name)
    configs = {}
    for fold in folds:
        values = config.as_dict()
        values["data"]["train_split"] = "+".join(x for x in folds if x != fold)
        values["data"]["validation_split"] = fold
        configs[pathlib.Path(workdir) / fold] = config_lib.from_dict(values)
    return configs
