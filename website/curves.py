"""The pictures of training in the guides: a term of some runs over their steps.

python website/curves.py docs/devices.svg runs/pretrain runs/two
"""

import argparse
import pathlib

_LOOKS = (("#3b5bdb", "solid", 2.4), ("#e8590c", "dashed", 1.6))


def main() -> None:
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    from tfavmae.report.curves import series
    from tfavmae.training.workdir import Workdir, read_rows

    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("picture", type=pathlib.Path)
    parser.add_argument("runs", nargs="+", type=pathlib.Path)
    parser.add_argument("--term", default="loss")
    args = parser.parse_args()
    figure, axes = pyplot.subplots(figsize=(7, 3), layout="constrained")
    for run, (color, style, width) in zip(args.runs, _LOOKS, strict=False):
        steps, values = series(read_rows(Workdir(run).history_file), args.term)
        look = {"color": color, "linestyle": style, "linewidth": width}
        axes.plot(steps, values, label=str(run), **look)
    axes.set(xlabel="step", ylabel=args.term.replace("_", " "))
    axes.grid(axis="y", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(args.picture, metadata={"Date": None})
    print(args.picture)


if __name__ == "__main__":
    main()
