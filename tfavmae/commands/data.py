"""`data build`, `describe`, `serve`: media files to TFRecords and on to training.

`data audit` and the builders of published data sets are in `published_data`.
"""

import argparse
import contextlib
import dataclasses
import difflib
import pathlib
import sys
import typing

from tfavmae.commands import published_data, recipes
from tfavmae.commands.arguments import add_command
from tfavmae.config import yaml_text
from tfavmae.errors import UserError

_NAMES = "sounding_shapes/demo, sounding_shapes/standard, clip_folder"
_ALL_NAMES = f"{_NAMES}, {', '.join(published_data.NAMES)}"


def add_parsers(commands):
    group = commands.add_parser("data", help="audit, build and describe data sets")
    commands = group.add_subparsers(metavar="COMMAND", required=True)
    published_data.add_audit(commands)
    _add_build(commands)
    parser = add_command(
        commands,
        "describe",
        describe,
        summary="show what a built data set holds",
        example="tfavmae data describe sounding_shapes/demo --data-dir data",
        positional=("[NAME]", "its name or folder; default: that of the recipe"),
    )
    _add_data_dir(parser)
    parser = add_command(
        commands,
        "serve",
        serve,
        summary="decode training clips for runs on other machines",
        example="tfavmae data serve --port 5050",
    )
    add = parser.add_argument
    add("--port", type=int, default=5050, metavar="N", help="default: 5050")
    add(
        "--host",
        metavar="NAME",
        help="what others call this machine; default: its name",
    )
    group = parser.add_mutually_exclusive_group()
    group.add_argument(
        "--workers",
        nargs="+",
        default=[],
        metavar="HOST:PORT",
        help="machines that join with --dispatcher and decode; default: this one",
    )
    group.add_argument(
        "--dispatcher", metavar="HOST:PORT", help="the one to join as a worker"
    )


def _add_build(commands):
    parser = add_command(
        commands,
        "build",
        build,
        summary="decode media files once, into TFRecords",
        example="tfavmae data build clip_folder --videos my_videos --data-dir data",
        positional=("[NAME]", argparse.SUPPRESS),
    )
    parser.description += (
        "\nNAME: clip_folder, sounding_shapes/demo, vggsound, ... (see docs/data.md)"
    )
    _add_data_dir(parser)
    add = parser.add_argument
    add("--workers", type=int, metavar="N", help="processes; default: one per core")
    add("--overwrite", action="store_true", help="replace what was built before")
    add("--manifest", metavar="DIR", help="published sets: folder of `data audit`")
    add("--manual-dir", metavar="DIR", help="or folder with annotations/ and media/")
    add("--seed", type=int, metavar="N", help="sounding_shapes: which set of clips")
    add("--videos", metavar="DIR", help="clip_folder: media files, also in subfolders")
    add("--labels", metavar="CSV", help="clip_folder: table with columns file, label")
    add("--clip-seconds", type=float, metavar="S", help="clip_folder: length of clips")
    add(
        "--strict",
        action="store_true",
        help="a bad file is an error (not sounding_shapes)",
    )


def _add_data_dir(parser):
    parser.add_argument(
        "--data-dir", metavar="DIR", help="where; default: ~/tensorflow_datasets"
    )


def build(args):
    name, data_dir = _dataset(args)
    family, _, selection = name.partition("/")
    makers = dict.fromkeys(published_data.NAMES, _published)
    makers |= {"sounding_shapes": _sounding_shapes, "clip_folder": _clip_folder}
    if family not in makers:
        near = difflib.get_close_matches(family, makers, n=1, cutoff=0.0)[0]
        raise UserError(
            f"no builder is named {name!r}; did you mean {near!r}? "
            f"There are {_ALL_NAMES}"
        )
    with _progress_on_terminals():
        builder = makers[family](args, selection, data_dir)
    print(f"{builder.info.full_name} is in {builder.data_dir}")
    return builder


@contextlib.contextmanager
def _progress_on_terminals():
    """TFDS's bars redraw themselves, which would make a mess of a log file."""
    import tensorflow_datasets as tfds

    if not sys.stderr.isatty():
        tfds.disable_progress_bar()
    try:
        yield
    finally:
        tfds.enable_progress_bar()


def serve(args):
    from tfavmae.data import service

    if args.dispatcher:
        server = service.Worker(args.dispatcher, args.port, args.host)
        whom = args.dispatcher
    else:
        server = service.Dispatcher(args.port, args.host, args.workers)
        if args.workers:
            names = ", ".join(args.workers)
            print(f"Waiting for `tfavmae data serve` on {names}", flush=True)
        server.wait_for_workers()
        whom = f"runs with --set data.services=[{server.address}]"
    print(f"Decoding for {whom}; Ctrl-C ends it", flush=True)
    server.serve_until_ended()


def describe(args):
    from tfavmae.commands import description

    description.show_dataset(*_dataset(args))


def _dataset(args):
    """Name and folder of the data set: given, or as the recipe says."""
    name, data_dir = args.name, args.data_dir
    if args.workdir and not data_dir:
        data_dir = str(pathlib.Path(args.workdir) / "data")
    if args.config:
        from tfavmae.config import experiment as config_lib

        data = config_lib.load(recipes.find(args.config)).data
        name, data_dir = name or data.dataset, data_dir or data.data_dir
    if not name:
        raise UserError(f"name a data set ({_NAMES}), or give a recipe with --config")
    return name, data_dir


def _sounding_shapes(args, name, data_dir):
    from tfavmae_datasets.sounding_shapes import config
    from tfavmae_datasets.sounding_shapes import (
        sounding_shapes_dataset_builder as shapes,
    )

    _refuse(args, "sounding_shapes", "videos", "labels", "clip_seconds", "strict")
    _refuse(args, "sounding_shapes", "manifest", "manual_dir")
    settings = config.get(name or "demo")
    settings = dataclasses.replace(settings, **_settings(args.set, type(settings)))
    builder = shapes.Builder(
        config=shapes.builder_config(settings, args.seed or 0),
        data_dir=data_dir,
        num_workers=args.workers,
    )
    builder.download_and_prepare(download_config=_download_config(args))
    return builder


def _download_config(args):
    import tensorflow_datasets as tfds

    mode = tfds.GenerateMode.REUSE_DATASET_IF_EXISTS
    if args.overwrite:
        mode = tfds.GenerateMode.REUSE_CACHE_IF_EXISTS
    manual_dir = args.manual_dir and str(pathlib.Path(args.manual_dir).expanduser())
    return tfds.download.DownloadConfig(download_mode=mode, manual_dir=manual_dir)


def _published(args, selection, data_dir):
    family = _dataset(args)[0].partition("/")[0]
    _refuse(args, family, "seed", "videos", "labels", "clip_seconds")
    config = published_data.config_of(family, selection, args, _settings)
    builder = published_data.builder_of(family)(config=config, data_dir=data_dir)
    builder.download_and_prepare(download_config=_download_config(args))
    published_data.print_counts(builder.info.metadata["manifest"]["splits"])
    _print_summary(builder)
    return builder


def _print_summary(builder):
    for key, value in builder.info.metadata.get("summary", {}).items():
        print(f"{key.replace('_', ' ')}: {value}")
    print(f"files left out, with reasons: {builder.bad_files_path}")


def _clip_folder(args, name, data_dir):
    from tfavmae_datasets.clip_folder import ClipFolderConfig, build_clip_folder

    _refuse(args, "clip_folder", "seed", "manifest", "manual_dir")
    if args.videos is None:
        raise UserError("clip_folder needs the folder of media files: --videos DIR")
    given = {
        "name": name or None,
        "labels": args.labels,
        "clip_seconds": args.clip_seconds,
        "strict": args.strict or None,
        "num_workers": args.workers,
    }
    options = {key: value for key, value in given.items() if value is not None}
    options |= _settings(args.set, ClipFolderConfig)
    data_dir = data_dir or "~/tensorflow_datasets"
    options["overwrite"] = args.overwrite
    builder = build_clip_folder(args.videos, data_dir, **options)
    _print_summary(builder)
    return builder


def _settings(overrides, kind) -> dict:
    """`--set key=value` as fields of a data set's settings, of the dataclass `kind`."""
    # Not `get_type_hints`: TFDS's own fields name types that can't be resolved here.
    types = {f.name: f.type for f in dataclasses.fields(kind)}
    types = {k: t for k, t in types.items() if not isinstance(t, str)}
    settings = {}
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals:
            raise UserError(f"--set {text}: write it as key=value")
        if key not in types:
            near = difflib.get_close_matches(key, types, n=1, cutoff=0.0)[0]
            raise UserError(f"--set {text}: no setting {key!r}; did you mean {near!r}?")
        settings[key] = _as_type(types[key], yaml_text.parse_yaml(value), text)
    return settings


def _as_type(annotation, value, text):
    kinds = typing.get_args(annotation) or (annotation,)
    if typing.get_origin(annotation) is tuple:
        kinds = (tuple,)
    if tuple in kinds and isinstance(value, list):
        return tuple(value)
    if float in kinds and type(value) is int:
        return float(value)
    if type(value) not in kinds:
        names = " or ".join("null" if k is type(None) else k.__name__ for k in kinds)
        raise UserError(f"--set {text}: the value must be {names}")
    return value


def _refuse(args, family, *names):
    """An option of the other family would be ignored, so it is an error."""
    for name in names:
        if getattr(args, name) not in (None, False):
            raise UserError(f"--{name.replace('_', '-')} does not apply to {family}")
