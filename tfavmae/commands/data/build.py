"""`tfavmae data build`: decode media files into TFRecords."""

import argparse
import dataclasses
import pathlib
import tempfile
from typing import TYPE_CHECKING, Any

from tfavmae.commands import dry_run
from tfavmae.commands.arguments import (
    add_command,
    add_dry_run,
    add_set,
    refuse,
    seconds,
)
from tfavmae.commands.data import describe, location, published_data, settings
from tfavmae.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from tfavmae.building.estimate import Estimate

# Options that only some data sets read.
_OF_SOUNDING_SHAPES = ("seed",)
_OF_CLIP_FOLDER = ("videos", "labels", "clip_seconds")
_OF_PUBLISHED = ("manifest", "manual_dir")


def add_parser(commands: Any) -> None:
    """Adds `build` to the subcommands of `data`."""
    parser = add_command(
        commands,
        "build",
        run,
        summary="decode media files once, into TFRecords",
        example="tfavmae data build clip_folder --videos my_videos --data-dir data",
        figures=_figures,
    )
    parser.description = (
        "Decode media files once, into TFRecords.\n"
        "NAME: clip_folder, sounding_shapes/demo, vggsound, ... (see docs/data.md)"
    )
    location.add_location(parser, name_help=argparse.SUPPRESS)
    add_set(parser, "the data set")
    add = parser.add_argument
    add("--workers", type=int, metavar="N", help="processes; default: one per core")
    add("--overwrite", action="store_true", help="replace what was built before")
    add("--manifest", metavar="DIR", help="published sets: folder of `data audit`")
    add("--manual-dir", metavar="DIR", help="or folder with annotations/ and media/")
    add("--seed", type=int, metavar="N", help="sounding_shapes: which set of clips")
    add("--videos", metavar="DIR", help="clip_folder: media files, also in subfolders")
    add("--labels", metavar="CSV", help="clip_folder: table with columns file, label")
    add(
        "--clip-seconds", type=seconds, metavar="S", help="clip_folder: length of clips"
    )
    add(
        "--strict",
        action="store_true",
        help="a bad file is an error (not sounding_shapes)",
    )
    add_dry_run(parser)


def run(args: argparse.Namespace) -> Any:
    """Runs the command; returns the TFDS builder, or the estimate of a dry run."""
    name, data_dir = location.locate(args)
    family, _, selection = name.partition("/")
    makers = dict.fromkeys(published_data.NAMES, _published)
    makers |= {"sounding_shapes": _sounding_shapes, "clip_folder": _clip_folder}
    if family not in makers:
        raise UserError(
            f"no builder is named {name!r}; {did_you_mean(family, makers)} See "
            "docs/data.md"
        )
    builder = makers[family](args, name, selection, data_dir)
    if not args.dry_run:
        print(f"{builder.info.full_name} is in {builder.data_dir}")
    return builder


def _figures(result: Any) -> Any:
    """What `--json` prints: an estimate, or what is in the data set."""
    if not hasattr(result, "info"):
        return result
    info = result.info
    return {
        "name": info.full_name,
        "folder": str(result.data_dir),
        "bytes": int(info.dataset_size),
        "splits": {name: split.num_examples for name, split in info.splits.items()},
        "summary": dict(info.metadata.get("summary", {})),
    }


def _sounding_shapes(
    args: argparse.Namespace, name: str, selection: str, data_dir: str | None
) -> Any:
    from tfavmae_datasets.sounding_shapes import config
    from tfavmae_datasets.sounding_shapes import (
        sounding_shapes_dataset_builder as shapes,
    )

    refuse(args, (*_OF_CLIP_FOLDER, *_OF_PUBLISHED, "strict"), name)
    chosen = config.get(selection or "demo")
    changes = settings.read_settings(args.set, type(chosen))
    chosen = dataclasses.replace(chosen, **changes)
    config = shapes.builder_config(chosen, args.seed or 0)
    if args.dry_run:
        return dry_run.build_generated(config, data_dir, args.workers)
    builder = shapes.Builder(
        config=config,
        data_dir=data_dir,
        num_workers=args.workers,
    )
    builder.download_and_prepare(download_config=_download_config(args))
    return builder


def _clip_folder(
    args: argparse.Namespace, name: str, selection: str, data_dir: str | None
) -> Any:
    from tfavmae_datasets.clip_folder import ClipFolderConfig, build_clip_folder
    from tfavmae_datasets.clip_folder.clip_folder_dataset_builder import Builder

    refuse(args, (*_OF_SOUNDING_SHAPES, *_OF_PUBLISHED), name)
    if not args.videos:
        raise UserError("clip_folder needs the folder of media files: --videos DIR")
    given = {
        "name": selection or None,
        "labels": args.labels,
        "clip_seconds": args.clip_seconds,
        "strict": args.strict or None,
        "num_workers": args.workers,
    }
    options = {key: value for key, value in given.items() if value is not None}
    options |= settings.read_settings(args.set, ClipFolderConfig)
    if args.dry_run:
        chosen = ClipFolderConfig(videos=args.videos, **options)
        return _estimated(Builder, chosen, data_dir)
    builder = build_clip_folder(
        args.videos,
        data_dir or "~/tensorflow_datasets",
        **options,
        overwrite=args.overwrite,
    )
    print_summary(builder)
    return builder


def _published(
    args: argparse.Namespace, name: str, selection: str, data_dir: str | None
) -> Any:
    family = name.partition("/")[0]
    refuse(args, (*_OF_SOUNDING_SHAPES, *_OF_CLIP_FOLDER), name)
    kind = published_data.builder_of(family)
    config = _published_config(args, family, selection, kind.BUILDER_CONFIGS)
    if args.dry_run:
        if not config.manifest:
            raise UserError("--dry-run of a published data set needs --manifest DIR")
        return _estimated(kind, config, data_dir)
    builder = kind(config=config, data_dir=data_dir)
    builder.download_and_prepare(download_config=_download_config(args))
    published_data.print_counts(builder.info.metadata["manifest"]["splits"])
    print_summary(builder)
    return builder


def _estimated(kind: type, config: Any, data_dir: str | None) -> "Estimate":
    """Estimates a build, in a temporary folder: a builder makes its own."""
    with tempfile.TemporaryDirectory() as folder:
        return dry_run.build(kind(config=config, data_dir=folder), data_dir)


def _published_config(
    args: argparse.Namespace, family: str, selection: str, configs: list[Any]
) -> Any:
    """The `PublishedConfig` of the selection, with what the command line changes."""
    from tfavmae.building.published_builder import PublishedConfig

    source = published_data.source_of(family)
    published = {config.name: config for config in configs}
    selection = selection or next(iter(published))
    if selection not in published:
        near = did_you_mean(selection, published)
        raise UserError(f"{family} has no selection {selection!r}; {near}")
    of_source = [text for text in args.set if text.partition("=")[0] in source.OPTIONS]
    others = [text for text in args.set if text not in of_source]
    changes = settings.read_settings(others, PublishedConfig)
    given = {
        "manifest": args.manifest,
        "num_workers": args.workers,
        "strict": args.strict or None,
        "options": settings.read_options(of_source, source),
    }
    changes |= {k: value for k, value in given.items() if value not in (None, {})}
    has_folders = changes.get("annotations") and changes.get("media")
    if not (args.manual_dir or args.manifest or has_folders):
        raise UserError(
            f"{family} needs --manifest DIR, the folder of a `tfavmae data audit "
            f"{family}`, or --manual-dir DIR with annotations/ and media/ in it"
        )
    if args.manifest and args.manual_dir:
        raise UserError("--manifest and --manual-dir exclude each other; give one")
    return dataclasses.replace(published[selection], **changes)


def _download_config(args: argparse.Namespace) -> Any:
    import tensorflow_datasets as tfds

    mode = tfds.GenerateMode.REUSE_DATASET_IF_EXISTS
    if args.overwrite:
        mode = tfds.GenerateMode.REUSE_CACHE_IF_EXISTS
    manual_dir = args.manual_dir and str(pathlib.Path(args.manual_dir).expanduser())
    return tfds.download.DownloadConfig(download_mode=mode, manual_dir=manual_dir)


def print_summary(builder: Any) -> None:
    """Says what a build stored, what it left out, and what a user should know."""
    summary = builder.info.metadata.get("summary", {})
    describe.print_summary(builder.info.metadata)
    if summary.get("num_bad") or summary.get("num_skipped"):
        print(f"files left out, with reasons: {builder.bad_files_path}")
