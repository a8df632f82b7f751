"""Names for the variables of Scenic's SavedModels, which have numbers instead.

`jax2tf` keeps nested parameters as a list in the order of their sorted names. For each
architecture that is released there is one list of names that fits the shapes.
"""

import re
from collections.abc import Iterator, Mapping, Sequence

from tfavmae.errors import UserError
from tfavmae.weights.identified import Shapes
from tfavmae.weights.scenic import MODALITIES
from tfavmae.weights.stored import StoredTensor

_NUMBERED = re.compile(r"_variables/(\d+)")
_MOST_LAYERS, _MOST_DECODER_LAYERS = 48, 12
# Of a block, each with the number of axes that it has.
_DENSE = {"kernel": 2, "bias": 1}
_SPLIT = {"kernel": 3, "bias": 2}
_NORM = {"scale": 1, "bias": 1}
_BLOCK = {
    **{f"LayerNorm_{i}": _NORM for i in range(2)},
    **{f"MlpBlock_0/Dense_{i}": _DENSE for i in range(2)},
    **{
        f"MultiHeadDotProductAttention_0/{x}": _SPLIT for x in ("query", "key", "value")
    },
    "MultiHeadDotProductAttention_0/out": {"kernel": 3, "bias": 1},
}
# Names and numbers of axes of an architecture.
Axes = dict[str, int]


def named(tensors: Mapping[str, StoredTensor]) -> Mapping[str, StoredTensor]:
    """Tensors by the names of their parameters, if they are numbered; else as they are.

    Raises:
        UserError: they are numbered, and fit no architecture that is known.
    """
    matches = {name: _NUMBERED.fullmatch(name) for name in tensors}
    if not tensors or not all(matches.values()):
        return tensors
    order = sorted(tensors, key=lambda name: int(matches[name][1]))  # type: ignore[index]
    shapes = [tensors[name].shape for name in order]
    for axes in _architectures(len(order)):
        names = sorted(axes, key=lambda name: name.split("/"))
        if _fit(names, axes, shapes):
            return {n: tensors[there] for n, there in zip(names, order, strict=True)}
    raise UserError(
        f"a SavedModel of {len(order)} numbered variables, which are those of none of "
        "AV-MAE's released models. Take its `checkpoint` file, which has names."
    )


def _architectures(count: int) -> Iterator[Axes]:
    """The architectures with this number of parameters."""
    of_block = len(_block("", 0))
    for modalities in (tuple(MODALITIES), *((m,) for m in MODALITIES)):
        for layers in range(1, _MOST_LAYERS + 1):
            axes = _fine_tuned(modalities, layers)
            if len(axes) == count:
                yield axes
        for joint in range(_MOST_LAYERS):
            left = count - len(_pretrained(modalities, joint, joint, 0))
            for decoder in range(1, _MOST_DECODER_LAYERS + 1):
                own, rest = divmod(left // of_block - decoder, len(modalities))
                if left % of_block == 0 and rest == 0 and 0 < own <= _MOST_LAYERS:
                    yield _pretrained(modalities, own + joint, joint, decoder)
    for decoder in range(1, _MOST_DECODER_LAYERS + 1):
        left = count - len(_unimodal(0, decoder))
        if left > 0 and left % of_block == 0:
            yield _unimodal(left // of_block, decoder)


def _block(name: str, index: int, suffix: str = "") -> Axes:
    return {
        f"{name}/encoderblock_{index}{suffix}/{layer}/{x}": n
        for layer, parts in _BLOCK.items()
        for x, n in parts.items()
    }


def _stack(name: str, layers: int, suffix: str = "") -> Axes:
    axes = {f"{name}/encoder_norm/{x}": n for x, n in _NORM.items()}
    for index in range(layers):
        axes |= _block(name, index, suffix)
    return axes


def _patches(name: str, modality: str) -> Axes:
    return {f"{name}/kernel": 5 if modality == "rgb" else 4, f"{name}/bias": 1}


def _decoding(suffix: str) -> Axes:
    axes = {f"mask_token{suffix}": 3}
    for name in ("decoder_projection", "output_projection"):
        axes |= {f"{name}{suffix}/{x}": n for x, n in _DENSE.items()}
    return axes


def _fine_tuned(modalities: Sequence[str], layers: int) -> Axes:
    head = "ProjectionHeadAndClassifier_0/output_projection"
    axes = {"bottleneck": 3, **{f"{head}/{x}": n for x, n in _DENSE.items()}}
    for i, m in enumerate(modalities):
        axes |= _patches("embedding" if m == "rgb" else f"embedding_{m}", m)
        axes |= _stack("Transformer", layers, "_spec" if i else "")
    return axes


def _pretrained(
    modalities: Sequence[str], layers: int, joint: int, decoder: int
) -> Axes:
    axes = _stack("Decoder", decoder)
    if joint:
        axes |= _stack("Transformer_concat", joint)
    for m in modalities:
        axes |= _patches(f"embedding_{m}", m) | _decoding(f"_{m}")
        axes |= _stack(f"Transformer_{m}", layers - joint)
    return axes


def _unimodal(layers: int, decoder: int) -> Axes:
    axes = _stack("Decoder", decoder) | _stack("Transformer", layers) | _decoding("")
    return axes | {"embedding/kernel": 0, "embedding/bias": 1}


def _fit(names: Sequence[str], axes: Axes, shapes: Sequence[tuple[int, ...]]) -> bool:
    """Whether shapes have the axes of the names, and stacks one width each."""
    by_name: Shapes = dict(zip(names, shapes, strict=True))
    for name, shape in by_name.items():
        if len(shape) != axes[name] and axes[name]:
            return False
        stack = name.split("/", 1)[0]
        width = by_name.get(f"{stack}/encoder_norm/bias")
        if width and "Norm" in name and shape != width:
            return False
    return True
