"""Tokens of several modalities, of which a clip may lack one."""

from collections.abc import Mapping

from keras import KerasTensor, ops


def split_tokens(
    x: KerasTensor, like: Mapping[str, KerasTensor]
) -> dict[str, KerasTensor]:
    """Concatenated tokens `(batch, all tokens, ...)` by modality, in `like`'s order."""
    parts, start = {}, 0
    for modality, own in like.items():
        parts[modality] = x[:, start : start + own.shape[1]]
        start += own.shape[1]
    return parts


def absent_tokens(
    tokens: Mapping[str, KerasTensor], is_absent: Mapping[str, KerasTensor] | None
) -> KerasTensor | None:
    """bool `(batch, all tokens)`: concatenated tokens that nothing may attend to.

    Args:
        tokens: dict of modality to `(batch, tokens, hidden_dim)`.
        is_absent: dict of modality to bool `(batch,)`, or `None`.
    """
    if is_absent is None:
        return None
    columns = [
        ops.repeat(is_absent[m][:, None], x.shape[1], axis=1) for m, x in tokens.items()
    ]
    return ops.concatenate(columns, axis=1)


def mean_of_present(
    values: Mapping[str, KerasTensor], is_absent: Mapping[str, KerasTensor] | None
) -> KerasTensor:
    """Mean over the modalities that each clip has; 0 where it has none.

    Args:
        values: dict of modality to `(batch, ...)`.
        is_absent: dict of modality to bool `(batch,)`, or `None`.
    """
    if is_absent is None:
        return sum(values.values()) / len(values)
    total, count = 0.0, 0.0
    for m, x in values.items():
        present = ops.cast(ops.logical_not(_like(is_absent[m], x)), x.dtype)
        total, count = total + x * present, count + present
    # Padding of a batch has nothing at all, and must not become NaN.
    return total / ops.maximum(count, 1)


def where_present(
    x: KerasTensor, is_absent: KerasTensor | None, other: KerasTensor | float = 0.0
) -> KerasTensor:
    """`x` `(batch, ...)` of clips that have a modality, and `other` of those without.

    Args:
        x: `(batch, ...)`.
        is_absent: bool `(batch,)`, or `None` where all clips have it.
        other: of the shape of `x`, or a number.
    """
    # `where` and no product with 0, which would hand on a NaN of the absent part.
    return x if is_absent is None else ops.where(_like(is_absent, x), other, x)


def _like(flags: KerasTensor, x: KerasTensor) -> KerasTensor:
    return ops.reshape(flags, (-1, *[1] * (len(x.shape) - 1)))
