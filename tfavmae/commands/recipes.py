"""Where recipes are."""

import importlib.resources
import pathlib

from tfavmae.errors import UserError


def find(path) -> pathlib.Path:
    """A recipe file, or the one of that name that comes with the package.

    `configs/cav_mae/x.yaml` and `cav_mae/x.yaml` work in any folder, also where only a
    wheel was installed.
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


def load(args, overrides=()):
    """The recipe of `--config`, or that of the run in `--workdir`, with `--set`."""
    from tfavmae.config import experiment as config_lib

    if args.config is not None:
        path = find(args.config)
    elif args.workdir is None:
        raise UserError("give a recipe with --config, or a run with --workdir")
    else:
        path = pathlib.Path(args.workdir) / "config.yaml"
        if not path.is_file():
            raise UserError(f"{args.workdir} holds no run yet; give a --config as well")
    return config_lib.load(path, [*overrides, *args.set])
