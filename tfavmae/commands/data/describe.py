"""`tfavmae data describe`: the contents of a built data set."""

import argparse
from collections.abc import Mapping
from typing import Any

from tfavmae.commands.arguments import add_command
from tfavmae.commands.data import location

# Of a build's summary, what its keys alone would not say.
_WORDS = {"clip_seconds": "seconds of clips", "seconds": "seconds of building"}


def add_parser(commands: Any) -> None:
    """Adds `describe` to the subcommands of `data`."""
    parser = add_command(
        commands,
        "describe",
        run,
        summary="show the contents of a built data set",
        example="tfavmae data describe sounding_shapes/demo --data-dir data",
        figures=True,
    )
    name_help = "its name or folder; default: that of the recipe"
    location.add_location(parser, name_help)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Runs the command; returns the counts and names that it prints."""
    from rich.console import Console
    from rich.table import Table

    from tfavmae.data.pipeline import open_split
    from tfavmae.data.splits import open_info

    info = open_info(*location.locate(args))
    table = Table("split", "clips", "without sound", "without picture", "fingerprint")
    splits, classes = {}, {}
    for split_name in sorted(info.splits):
        split = open_split(str(info.data_dir), split_name)
        missing = [int((~split.present(m)).sum()) for m in ("audio", "video")]
        splits[split_name] = {
            "clips": split.num_examples,
            "without_audio": missing[0],
            "without_video": missing[1],
            "fingerprint": split.fingerprint,
        }
        cells = (split.num_examples, *missing, split.fingerprint[:12])
        table.add_row(split_name, *[str(cell) for cell in cells])
    print(f"{info.full_name} in {info.data_dir} ({info.dataset_size})")
    Console(markup=False).print(table)
    # Labels and metadata are those of the data set: any split has them.
    for label in split.label_features:
        if names := split.label_names(label):
            classes[label] = list(names)
            print(f"{label}: {len(names)} classes: {', '.join(names)}")
    for modality, accuracy in split.metadata.get("ceilings", {}).items():
        given = modality.replace("_", " and ")
        print(f"best possible accuracy from {given}: {accuracy:.1%}")
    print_summary(split.metadata)
    return {
        "name": info.full_name,
        "folder": str(info.data_dir),
        "bytes": int(info.dataset_size),
        "splits": splits,
        "classes": classes,
        "ceilings": dict(split.metadata.get("ceilings", {})),
        "summary": dict(split.metadata.get("summary", {})),
    }


def print_summary(metadata: Mapping[str, Any]) -> None:
    """Prints the counts of a build and what it has to say about them."""
    for key, value in metadata.get("summary", {}).items():
        number = f"{value:.1f}" if isinstance(value, float) else value
        print(f"{_WORDS.get(key, key.replace('_', ' '))}: {number}")
    for remark in metadata.get("remarks", []):
        print(f"note: {remark}")
