"""Seconds of a JAX program by kind of kernel, from a profile."""

import collections
import pathlib
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator
from typing import Any

# The first pattern that is found in the name of a kernel, or of its HLO operation.
# Names of cuBLAS, cuDNN, Triton and XLA (JAX 0.10); on a CPU those of HLO operations.
KINDS = {
    "attention": r"sdpa|fmha|flash|fused_attention|cudnn_generated",
    "communication": r"nccl|all[-_]?reduce|all[-_]?gather|reduce[-_]scatter|all[-_]to",
    "matrix products": r"gemm|cutlass|cublas|nvjet|xmma|matmul|\bdot|_dot|ynn_fusion",
    "copies": r"memcpy|copy|transpose|concatenate|memset|broadcast",
    "gather and sort": r"gather|scatter|sort|dynamic[-_](update[-_])?slice|argsort",
    "reductions": r"reduce",
    "elementwise": r"fusion|loop_|wrapped_|multiply|add|convert|select",
}


def kind_of(name: str) -> str:
    """The kind of a kernel by its name; `other` for one that no pattern knows."""
    lower = name.lower()
    found = (kind for kind, pattern in KINDS.items() if re.search(pattern, lower))
    return next(found, "other")


def profile(work: Callable[[], Any]) -> dict[str, Any]:
    """Runs `work`, which waits for the device, and sums its kernels by kind.

    Returns:
        `kinds`: dict of kind to milliseconds; `largest`: the 15 kernels with the most
        time as `[name, milliseconds, calls]`. Kernels that run at the same time count
        in full each.
    """
    import jax

    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            work()
        (path,) = pathlib.Path(folder).rglob("*.xplane.pb")
        return summary(_events(jax.profiler.ProfileData.from_file(str(path))))


def summary(events: Iterable[tuple[str, float]]) -> dict[str, Any]:
    """`kinds` and `largest` of `profile`, from names and nanoseconds of kernels."""
    nanoseconds: dict[str, float] = collections.defaultdict(float)
    calls: dict[str, int] = collections.Counter()
    for name, duration in events:
        # XLA numbers the operations of a program: `loop_add_fusion.12`.
        name = re.sub(r"[._]\d+$", "", name)
        nanoseconds[name] += duration
        calls[name] += 1
    kinds: dict[str, float] = collections.defaultdict(float)
    for name, duration in nanoseconds.items():
        kinds[kind_of(name)] += duration / 1e6
    by_time = sorted(nanoseconds, key=lambda name: -nanoseconds[name])
    return {
        "kinds": dict(sorted(kinds.items(), key=lambda item: -item[1])),
        "largest": [[n, nanoseconds[n] / 1e6, calls[n]] for n in by_time[:15]],
    }


def _events(data: Any) -> Iterator[tuple[str, float]]:
    """Names and nanoseconds of the kernels on the devices, or of the CPU's HLO ops."""
    devices = [x for x in data.planes if re.match(r"/device:(GPU|TPU)", x.name)]
    if devices:
        for plane in devices:
            for line in plane.lines:
                # Streams of kernels; others sum them up in other ways.
                if re.match(r"Stream|XLA Ops", line.name):
                    yield from ((e.name, e.duration_ns) for e in line.events)
        return
    for plane in data.planes:
        for line in plane.lines:
            for event in line.events:
                if "hlo_op" in dict(event.stats):
                    yield event.name, event.duration_ns
