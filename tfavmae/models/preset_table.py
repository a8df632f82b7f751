"""What our presets cost and what their papers report, without memory for weights."""

import dataclasses
from collections.abc import Iterable, Iterator

from tfavmae.errors import UserError
from tfavmae.models.flops import forward_flops
from tfavmae.models.presets import build_preset, paper, preset_names, unknown_preset
from tfavmae.private_hooks import shapes_only


@dataclasses.dataclass(frozen=True)
class PresetFacts:
    """A preset in numbers.

    Attributes:
        name: of the preset, for `from_preset`.
        model: name of the class.
        parameters: of the pretraining model, its decoder included.
        flops: of one clip's forward pass with all tokens.
        figures, source: see `Published`; `None` for a size that the paper lacks.
    """

    name: str
    model: str
    parameters: int
    flops: int
    figures: str | None
    source: str | None


def select(names: Iterable[str]) -> list[str]:
    """Names of presets, by their names or those of papers; all if none is given.

    Raises:
        UserError: a name is unknown.
    """
    known, names = preset_names(), list(names)
    for name in names:
        if name not in known and name not in {x for x, _ in known.values()}:
            raise UserError(unknown_preset(name))
    return [k for k, (x, _) in known.items() if not names or k in names or x in names]


def facts(names: Iterable[str]) -> Iterator[PresetFacts]:
    """Facts of presets, one after the other, in a second or two each.

    Args:
        names: of presets.
    """
    for preset in names:
        name, size = preset_names()[preset]
        kind = paper(name)
        with shapes_only():
            model = build_preset(kind, preset)
        published = kind.PUBLISHED.get(size)
        yield PresetFacts(
            name=preset,
            model=kind.__name__,
            parameters=model.count_params(),
            flops=forward_flops(model, masked=False),
            figures=published and published.figures,
            source=published and published.source,
        )
