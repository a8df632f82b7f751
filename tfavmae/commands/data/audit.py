"""`tfavmae data audit`: check the files of a published data set before a build."""

import argparse
import functools
from typing import TYPE_CHECKING, Any

from tfavmae.commands.arguments import add_command, add_set, seconds
from tfavmae.commands.data import published_data, settings

if TYPE_CHECKING:
    from tfavmae.building.manifest import Manifest


def add_parser(commands: Any) -> None:
    """Adds `audit` to the subcommands of `data`."""
    parser = add_command(
        commands,
        "audit",
        run,
        summary="check which clips of a published data set can be built",
        example="tfavmae data audit vggsound --annotations VGGSound/data \\\n"
        "    --media VGGSound/video --out vggsound_audit",
        figures=lambda manifest: manifest.facts | {"manifest": manifest.csv_path},
    )
    add = parser.add_argument
    add("name", metavar="NAME", help="see docs/data.md, for example vggsound/retrieval")
    add("--annotations", metavar="DIR", required=True, help="annotation files")
    add("--media", metavar="DIR", required=True, help="media files; never listed")
    add("--out", metavar="DIR", help="for manifest and page; default: beside the media")
    add_set(parser, "the data set")
    add(
        "--template",
        action="append",
        default=[],
        metavar="T",
        help="look for this file name first, e.g. '{id}.mp4'",
    )
    add("--quick", action="store_true", help="read headers only: no silence, no stills")
    add("--workers", type=int, metavar="N", help="processes; default: one per core")
    add(
        "--min-seconds",
        type=seconds,
        default=0.5,
        metavar="S",
        help="shorter clips are too short (default: 0.5)",
    )


def run(args: argparse.Namespace) -> "Manifest":
    """Runs the command."""
    from tfavmae.building import audit
    from tfavmae.building.progress import Progress

    family, _, selection = args.name.partition("/")
    kind = published_data.source_of(family)
    options = settings.read_options(args.set, kind)
    source = kind(selection or None, **options)
    with Progress() as progress:
        manifest = audit.audit(
            source,
            args.annotations,
            args.media,
            args.out or audit.default_folder(source, args.media),
            templates=args.template,
            thorough=not args.quick,
            min_seconds=args.min_seconds,
            num_workers=args.workers,
            progress=functools.partial(progress, f"auditing {source.full_name}"),
        )
    published_data.print_counts(manifest.splits)
    print(f"fingerprint: {manifest.fingerprint}")
    print(f"manifest: {manifest.csv_path}")
    print(f"to read: {manifest.folder / 'index.html'}")
    print(f"next: tfavmae data build {source.full_name} --manifest {manifest.folder}")
    return manifest
