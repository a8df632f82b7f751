"""Recipe files: finding and loading them."""

import importlib.resources
import os
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tfavmae.errors import UserError

if TYPE_CHECKING:
    from tfavmae.config.experiment import ExperimentConfig


def find(path: str | os.PathLike) -> pathlib.Path:
    """A recipe file, or the one of that name that comes with the package.

    `configs/cav_mae/x.yaml` and `cav_mae/x.yaml` work in any folder, also where only a
    wheel was installed.

    Raises:
        UserError: there is no such file.
    """
    path = pathlib.Path(path)
    if path.is_file():
        return path
    shipped = pathlib.Path(str(importlib.resources.files("tfavmae_configs")))
    inside = path.relative_to("configs") if path.parts[:1] == ("configs",) else path
    if not path.is_absolute() and (shipped / inside).is_file():
        return shipped / inside
    names = sorted(str(p.relative_to(shipped)) for p in shipped.rglob("*.yaml"))
    raise UserError(f"{path}: no such recipe; there are {', '.join(names)}")


def load(
    config: str | None,
    workdir: str | None,
    overrides: Sequence[str] = (),
    rows: Sequence[str] = (),
) -> "ExperimentConfig":
    """The recipe of `--config`, or else that of what `--workdir` names.

    Args:
        config: a recipe.
        workdir: folder of a run, address of a preset, or a file of weights.
        overrides: changes, `"section.key=value"`; later ones win.
        rows: of the recipe's matrix; later ones win.

    Raises:
        UserError: there is no recipe, or a key or value in it is wrong.
    """
    from tfavmae.config import experiment as config_lib

    if config is not None:
        return config_lib.load(find(config), overrides, rows)
    if rows:
        raise UserError("--row names a row of a recipe; give that with --config")
    if workdir is None:
        raise UserError("give a recipe with --config, or a run with --workdir")
    path = pathlib.Path(workdir) / "config.yaml"
    if path.is_file():
        return config_lib.load(path, overrides)

    from tfavmae.models.preset_address import is_preset
    from tfavmae.training import runs
    from tfavmae.training.foreign import is_weights

    if is_preset(workdir) or is_weights(workdir):
        return runs.read_config(workdir, overrides)
    raise UserError(f"{workdir} holds no run yet; give a --config as well")
