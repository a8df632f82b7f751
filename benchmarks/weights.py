"""Seconds and memory of reading a file of weights, each in a process of its own.

    python benchmarks/weights.py

writes files of the formats as large as image MAE's ViT-B with decoder, and one of
`--gigabytes`, and reads every tensor of them, all of which stay in memory.
"""

import argparse
import json
import pathlib
import resource
import subprocess
import sys
import tempfile
import time

# For a package that is not installed.
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import numpy as np

from tfavmae.weights.npz_file import write_npz
from tfavmae.weights.safetensors_file import write_safetensors
from tfavmae.weights.torch_writer import write_torch
from tfavmae.weights.weight_file import open_weights

WRITERS = {
    "torch zip": write_torch,
    "safetensors": write_safetensors,
    "npz": write_npz,
}
VIT_BASE_BYTES = 4 * 111_907_840
_LAYER_BYTES = 4 * 768 * 3072


def write(form: str, path: pathlib.Path, size: int) -> None:
    """Writes a file of some `size` bytes in kernels as of ViT-B's largest layers."""
    kernel = np.random.default_rng(0).normal(size=(768, 3072)).astype("float32")
    count = round(size / _LAYER_BYTES)
    WRITERS[form](path, {f"blocks.{i}.mlp.fc1.weight": kernel for i in range(count)})


def read(path: str) -> dict[str, float]:
    """Seconds of reading all tensors and what they added to the process's peak."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begin = time.perf_counter()
    kept = [tensor.read() for tensor in open_weights(path).tensors.values()]
    seconds = time.perf_counter() - begin
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    scale = 1 if sys.platform == "darwin" else 1024
    assert sum(array.nbytes for array in kept) > 0
    return {"seconds": seconds, "bytes": (peak - before) * scale}


def measure(form: str, size: int, folder: pathlib.Path) -> dict[str, float]:
    """Writes a file and reads it in another process."""
    path = folder / "weights"
    write(form, path, size)
    command = [sys.executable, __file__, "--read", str(path)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found = json.loads(done.stdout)
    return {**found, "of_file": found["bytes"] / path.stat().st_size}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--gigabytes", type=float, default=2.5, metavar="N", help="of the large file")
    add("--folder", metavar="DIR", help="where the files are written for a while")
    add("--read", metavar="FILE", help="only read this file, and print JSON")
    args = parser.parse_args()
    if args.read:
        print(json.dumps(read(args.read)))
        return
    sizes = {"ViT-B": VIT_BASE_BYTES, "large": round(args.gigabytes * 1e9)}
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        for name, size in sizes.items():
            for form in WRITERS:
                found = measure(form, size, pathlib.Path(folder))
                print(
                    f"{name:6} {size / 1e9:5.2f} GB {form:12} "
                    f"{found['seconds']:6.2f} s  memory {found['of_file']:.2f} of it"
                )


if __name__ == "__main__":
    main()
