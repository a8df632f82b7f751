"""`tfavmae presets`: the models that there are, their cost and published figures."""

import argparse
from typing import TYPE_CHECKING, Any

from tfavmae.commands.arguments import add_command

if TYPE_CHECKING:
    from tfavmae.models.preset_table import PresetFacts


def add_parser(commands: Any) -> None:
    """Adds `presets` to the subcommands."""
    parser = add_command(
        commands,
        "presets",
        run,
        summary="list the models that there are, with cost and published figures",
        example="tfavmae presets cav_mae",
        figures=True,
    )
    parser.add_argument(
        "names", metavar="NAME", nargs="*", help="of a paper or a preset; default: all"
    )


def run(args: argparse.Namespace) -> "list[PresetFacts]":
    """Runs the command; returns the rows."""
    from tfavmae.models import preset_table

    names = preset_table.select(args.names)
    width = max(map(len, names))
    print(f"{'preset':{width}}  parameters  GFLOP per clip")
    found = []
    for one in preset_table.facts(names):
        found.append(one)
        # Row by row: they take a second or two each.
        gigaflops = f"{one.flops / 1e9:,.1f}"
        size = f"{one.parameters / 1e6:,.1f} M"
        print(f"{one.name:{width}}  {size:>10}  {gigaflops:>14}", flush=True)
        if one.figures:
            print(f"    {one.figures}\n    ({one.source})", flush=True)
    print(
        "GFLOP: forward pass over all tokens. Figures: mAP on AudioSet, accuracy "
        "elsewhere, in %, as\npublished; not measured here. Sizes have no weights: "
        "see docs/presets.md for those that do."
    )
    return found
