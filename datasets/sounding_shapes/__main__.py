"""Command that writes media files: python -m tfavmae_datasets.sounding_shapes."""

import argparse
import sys

import rich.progress

from tfavmae.errors import UserError
from tfavmae_datasets.sounding_shapes import config, generator


def main(arguments: list[str] | None = None) -> int:
    """Generates clips as the command line says; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m tfavmae_datasets.sounding_shapes",
        description="Generates SoundingShapes clips (mp4) and their labels.jsonl.",
        epilog="example: python -m tfavmae_datasets.sounding_shapes --config demo "
        "--out shapes --num_clips 200",
    )
    parser.add_argument("--config", default="demo", help="demo or standard")
    parser.add_argument("--out", required=True, help="folder; holds one per split")
    parser.add_argument("--split", default="train", help="default: train")
    parser.add_argument("--num_clips", type=int, default=100, help="default: 100")
    parser.add_argument("--seed", type=int, default=0, help="default: 0")
    parser.add_argument("--workers", type=int, help="default: one per core")
    options = parser.parse_args(arguments)
    try:
        settings = config.get(options.config)
        with rich.progress.Progress() as bar:
            task = bar.add_task(f"{options.split} clips")
            generator.generate(
                options.out,
                settings,
                options.split,
                num_clips=options.num_clips,
                seed=options.seed,
                num_workers=options.workers,
                progress=lambda done, total: bar.update(
                    task, completed=done, total=total
                ),
            )
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(
            "interrupted: finished clips are kept, the same command continues.",
            file=sys.stderr,
        )
        return 130
    ceilings = generator.ceilings(settings)
    print(f"{options.num_clips} clips in {options.out}/{options.split}")
    print(
        "best possible accuracy:",
        ", ".join(f"{k} {v:.1%}" for k, v in ceilings.items()),
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
