"""`tfavmae weights inspect`: what a file of weights is; nothing in it is run."""

import argparse
import collections
import json
from typing import Any

from tfavmae.commands.arguments import add_command
from tfavmae.errors import UserError, on_one_line

_SHOWN = 10  # tensors at the beginning, and at the end


def add_parser(commands: Any) -> None:
    """Adds `inspect` to the subcommands of `weights`."""
    parser = add_command(
        commands,
        "inspect",
        run,
        summary="show which model a file of weights is of; nothing in it is run",
        example="tfavmae weights inspect mae_pretrain_vit_base.pth",
        figures=True,
    )
    parser.add_argument(
        "file",
        metavar="FILE",
        help="of PyTorch, safetensors, Flax, Keras or NumPy, or a SavedModel's folder",
    )
    parser.add_argument("--all", action="store_true", help="list every tensor")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Runs the command; returns the contents."""
    # Not at the top: NumPy alone would take a third of what the help page may take.
    from tfavmae.weights.weight_file import open_weights

    file = open_weights(args.file)
    contents = summary(file) | {"model": guess(file)}
    _print(contents, args.all)
    return contents


def summary(file: Any) -> dict[str, Any]:
    """What a `WeightFile` holds, as plain values.

    Returns:
        A dict of `path`, `format`, `parameters` (their number), `dtypes` (dict of name
        to number of tensors), `tensors` (list of dicts of name, shape, dtype) and
        `metadata`.
    """
    tensors = file.tensors.values()
    return {
        "path": file.path,
        "format": file.format,
        "parameters": sum(tensor.size for tensor in tensors),
        "dtypes": dict(collections.Counter(tensor.dtype for tensor in tensors)),
        "tensors": [
            {"name": t.name, "shape": list(t.shape), "dtype": t.dtype} for t in tensors
        ],
        "metadata": file.metadata,
    }


def guess(file: Any) -> dict[str, Any]:
    """Which published model a `WeightFile` seems to be of, as plain values.

    Returns:
        A dict of `title`, `preset` (ours, that it fills), `notes` and `published`, a
        list of the files of its kind with their licences; or of `unknown`, the reason.
    """
    from tfavmae.weights.identify import identify
    from tfavmae.weights.published import of_family

    try:
        found = identify(file)
    except UserError as error:
        return {"unknown": str(error).removeprefix(f"{file.path}: ")}
    return {
        "title": found.title,
        "preset": f"{found.model['name']}_{found.model['size']}",
        "num_classes": found.num_classes,
        "notes": list(found.notes),
        "published": [
            {"file": x.file, "source": x.source, "licence": x.licence}
            for x in of_family(found.family)
        ],
    }


def _print_guess(model: dict[str, Any]) -> None:
    if "unknown" in model:
        print(f"model: {on_one_line(model['unknown'])}")
        return
    head = f", {model['num_classes']} classes" if model["num_classes"] else ""
    print(f"model: {model['title']}{head}; fills {model['preset']}")
    for note in model["notes"]:
        print(f"note: {note}")
    licences = {x["licence"] for x in model["published"]}
    print(f"licence of what is published of its kind: {'; '.join(sorted(licences))}")


def _print(contents: dict[str, Any], is_long: bool) -> None:
    from rich.console import Console
    from rich.table import Table

    tensors = contents["tensors"]
    dtypes = [f"{n} {dtype}" for dtype, n in contents["dtypes"].items()]
    print(f"{on_one_line(contents['path'])}: {contents['format']}")
    numbers = f"{len(tensors)} tensors, {contents['parameters']:,} parameters"
    print(f"{numbers} ({', '.join(dtypes) or 'none'})")
    _print_guess(contents["model"])
    left_out = 0 if is_long else max(0, len(tensors) - 2 * _SHOWN)
    table = Table("name", "shape", "dtype")
    for i, tensor in enumerate(tensors):
        if left_out and i == _SHOWN:
            table.add_row(f"... {left_out} more, see --all", "", "")
        if not left_out or not _SHOWN <= i < len(tensors) - _SHOWN:
            shape = " × ".join(map(str, tensor["shape"])) or "scalar"
            table.add_row(on_one_line(tensor["name"]), shape, tensor["dtype"])
    Console(markup=False).print(table)
    for key, value in contents["metadata"].items():
        text = on_one_line(json.dumps(value, ensure_ascii=False))
        print(
            f"{on_one_line(key)}: {text if is_long or len(text) < 200 else text[:200]}"
        )
