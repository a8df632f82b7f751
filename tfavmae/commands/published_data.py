"""`data audit`, and what `data build` does for published data sets."""

import dataclasses
import importlib
import sys

from tfavmae.commands.arguments import add_command
from tfavmae.config import yaml_text
from tfavmae.errors import UserError

NAMES = (
    "audiocaps",
    "audioset",
    "ave",
    "clotho",
    "epic_kitchens_100",
    "esc50",
    "howto100m",
    "kinetics_sounds",
    "msr_vtt",
    "speech_commands",
    "vggsound",
    "youcook2",
)


def add_audit(commands):
    parser = add_command(
        commands,
        "audit",
        audit,
        summary="say what of a published data set is there, before building it",
        example="tfavmae data audit vggsound --annotations VGGSound/data \\\n"
        "    --media VGGSound/video --out vggsound_audit",
        positional=("NAME", "one of those in docs/data.md, e.g. vggsound/retrieval"),
    )
    add = parser.add_argument
    add("--annotations", metavar="DIR", required=True, help="annotation files")
    add("--media", metavar="DIR", required=True, help="media files; never listed")
    add("--out", metavar="DIR", help="for manifest and page; default: beside the media")
    add(
        "--template",
        action="append",
        default=[],
        metavar="T",
        help="look for this file name first, e.g. '{id}.mp4'",
    )
    add("--quick", action="store_true", help="read headers only: no silence, no stills")
    add("--workers", type=int, metavar="N", help="processes; default: one per core")
    add("--min-seconds", type=float, default=0.5, metavar="S", help="shorter is bad")


def audit(args):
    from tfavmae.building import audit as audit_lib

    if args.config or args.workdir:
        raise UserError("data audit takes no --config and no --workdir")
    family, _, selection = args.name.partition("/")
    kind = source_of(family)
    source = kind(selection or None, **_options(args.set, kind))
    folder = args.out or audit_lib.default_folder(source, args.media)
    with _Bar(f"Auditing {source.full_name}") as progress:
        manifest = audit_lib.audit(
            source,
            args.annotations,
            args.media,
            folder,
            templates=args.template,
            thorough=not args.quick,
            min_seconds=args.min_seconds,
            num_workers=args.workers,
            progress=progress,
        )
    _print(manifest)
    return manifest


def print_counts(splits):
    """What a manifest says of each split."""
    from tfavmae.building.manifest import FLAGS, STATUSES

    for split, counts in splits.items():
        found = [name for name in STATUSES + FLAGS if counts[name]]
        words = ", ".join(f"{counts[name]:,} {name}" for name in found)
        print(f"{split}: {counts['annotated']:,} clips: {words}")


def _print(manifest):
    print_counts(manifest.splits)
    print(f"fingerprint: {manifest.fingerprint}")
    print(f"manifest: {manifest.csv_path}")
    print(f"to read: {manifest.folder / 'index.html'}")
    name = f"{manifest.facts['dataset']}/{manifest.facts['selection']}"
    print(f"next: tfavmae data build {name} --manifest {manifest.folder}")


class _Bar:
    """A progress bar on terminals; otherwise a line every ten percent."""

    def __init__(self, title):
        self.title, self.is_terminal, self.said = title, sys.stderr.isatty(), 0

    def __enter__(self):
        from rich.console import Console
        from rich.progress import Progress

        self.bar = Progress(console=Console(stderr=True), disable=not self.is_terminal)
        self.bar.start()
        self.task = self.bar.add_task(self.title)
        return self

    def __call__(self, done, total):
        self.bar.update(self.task, completed=done, total=total)
        tenth = 10 * done // total
        if not self.is_terminal and tenth > self.said:
            self.said = tenth
            print(f"{self.title}: {done}/{total}", file=sys.stderr, flush=True)

    def __exit__(self, *_):
        self.bar.stop()


def source_of(family):
    """The `Source` of a published data set; does not import TensorFlow."""
    if family not in NAMES:
        raise UserError(
            f"no published data set is named {family!r}; there are {', '.join(NAMES)}"
        )
    return importlib.import_module(f"tfavmae_datasets.{family}").Source


def builder_of(family):
    """Its TFDS builder class."""
    module = f"tfavmae_datasets.{family}.{family}_dataset_builder"
    return importlib.import_module(module).Builder


def config_of(family, selection, args, read_settings):
    """The builder's configuration as the command line says.

    Args:
        read_settings: turns `--set` into fields of a dataclass.
    """
    from tfavmae.building.published_builder import PublishedConfig

    source = source_of(family)
    published = {c.name: c for c in builder_of(family).BUILDER_CONFIGS}
    selection = selection or next(iter(published))
    if selection not in published:
        names = ", ".join(published)
        raise UserError(f"{family} has no {selection!r}; there are: {names}")
    of_source = [text for text in args.set if text.partition("=")[0] in source.OPTIONS]
    others = [text for text in args.set if text not in of_source]
    options = read_settings(others, PublishedConfig)
    given = {
        "manifest": args.manifest,
        "num_workers": args.workers,
        "strict": args.strict or None,
        "options": _options(of_source, source),
    }
    options |= {key: value for key, value in given.items() if value}
    _check_media(family, args, options)
    return dataclasses.replace(published[selection], **options)


def _check_media(family, args, options):
    has_folders = options.get("annotations") and options.get("media")
    if not (args.manual_dir or args.manifest or has_folders):
        raise UserError(
            f"{family} needs --manifest DIR, the folder of a `tfavmae data audit "
            f"{family}`, or --manual-dir DIR with annotations/ and media/ in it"
        )
    if args.manifest and args.manual_dir:
        raise UserError("--manifest and --manual-dir exclude each other; give one")


def _options(overrides, source) -> dict:
    """`--set key=value` as options of a source."""
    options = {}
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals or key not in source.OPTIONS:
            known = ", ".join(source.OPTIONS) or "none"
            raise UserError(f"--set {text}: {source.NAME} has the options {known}")
        options[key] = yaml_text.parse_yaml(value)
    return options
