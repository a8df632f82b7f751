"""The weights that a model starts from: planned and checked, then assigned.

The models of the three papers start from transformers of one modality, from their own
pretraining, or from two runs. One rule serves all (`models.transfer.find_origin`); what
the papers do differently is the `Starting` of each.
"""

import collections
import dataclasses
import functools
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np

from tfavmae.errors import UserError
from tfavmae.layers.positions import PositionEmbedding
from tfavmae.models.inputs import AudioInput, VideoInput
from tfavmae.models.paper_model import Starting
from tfavmae.models.transfer import (
    APART,
    Structure,
    address,
    block_of,
    find_origin,
    modality_of,
)
from tfavmae.weights.patches import Patch, fitted_head, fitted_kernel
from tfavmae.weights.position_tables import resized_table

_POSITIONS = re.compile(r"(\w+_tokenizer/|decoder/\w+_)positions/(table|time_table)")

# A file in half precision rounds sines to 5e-4.
_FORMULA = 1e-3


@dataclasses.dataclass(frozen=True)
class Source:
    """A model whose weights others start from.

    Attributes:
        title: what to call it: the path that the user gave.
        arrays: dict of address to weight.
        inputs: dict of modality to its input.
        modality: the only one to take; `None`: all.
        labels: what it tells apart, if it is a classifier whose classes are known.
    """

    title: str
    arrays: Mapping[str, np.ndarray]
    inputs: Mapping[str, AudioInput | VideoInput]
    modality: str | None = None
    labels: Any = None

    @functools.cached_property
    def structure(self) -> Structure:
        """What the addresses say of the model."""
        return Structure(self.arrays, self.modality and [self.modality])

    @classmethod
    def of_model(
        cls, title: str, model: keras.Model, modality: str | None = None
    ) -> "Source":
        """The source that a model is.

        Args:
            title, modality: see above.
            model: any Keras model.
        """
        arrays = {
            address(v): np.asarray(keras.ops.convert_to_numpy(v)) for v in model.weights
        }
        return cls(title, arrays, getattr(model, "inputs_by_modality", {}), modality)


class Origin(NamedTuple):
    """Where a weight starts from.

    Attributes:
        address: of the weight.
        source: title of the source; `None` for a weight that starts afresh.
        there: address in the source.
        how: `as is`, or what is done to the source's; why it starts afresh.
        value: what to assign; `None` for a weight that starts afresh.
    """

    address: str
    source: str | None
    there: str | None
    how: str
    value: np.ndarray | None


@dataclasses.dataclass(frozen=True)
class Options:
    """How weights are taken over.

    Attributes:
        starting: what the paper does.
        positions: for tables of another grid: `interpolate`, `trim` (see
            `resized_table`), or `fresh` for the model's own. A sin-cos table is
            computed for the new grid in either case.
        fresh: regular expressions of weights that start afresh.
    """

    starting: Starting = dataclasses.field(default_factory=Starting)
    positions: str = "interpolate"
    fresh: tuple[str, ...] = ()


def make_plan(
    model: keras.Model,
    sources: Sequence[Source],
    options: Options | None = None,
    below: str = "",
) -> list[Origin]:
    """Where every weight of a model starts from.

    The first source that has a weight gives it. A modality that no source has may
    borrow the weights of a source's only modality, see `Starting`.

    Args:
        model: a built model. `new_weights` are addresses below which its weights start
            afresh in any case, `expected_new` regular expressions of those that may.
        sources: in the order of preference.
        options: how.
        below: the address of the model in a larger one, `teacher/`.

    Raises:
        UserError: a weight is in no source and nothing says that it may be, or has
            another shape there.
    """
    planner = _Planner(model, sources, options or Options(), below)
    plan = [planner.origin(a, v) for a, v in planner.wanted.items()]
    missing = [a for a, origin in zip(planner.wanted, plan, strict=True) if not origin]
    found = [origin for origin in plan if origin is not None]
    titles = ", ".join(x.title for x in sources)
    if not any(x.source for x in found):
        raise UserError(
            f"{titles}: none of its weights belongs to this model; give weights of a "
            "model of the same size."
        )
    if missing:
        parts = _parts(missing, [x.address for x in found if x.source])
        counts = ", ".join(f"{part} ({n})" for part, n in parts.most_common())
        fresh = ", ".join(f"^{part}" for part in parts)
        raise UserError(
            f"{titles}: {len(missing)} weights of the model are not there and would "
            f"stay at random: {counts}; such as {missing[0]}. Add a source that has "
            f"them, or name them: transfer.fresh=[{fresh}]."
        )
    return found


def apply_plan(model: keras.Model, plan: Sequence[Origin]) -> None:
    """Assigns what a plan says."""
    variables = {address(v): v for v in model.weights}
    for origin in plan:
        if origin.value is not None:
            variables[origin.address].assign(origin.value)


def group_of(address: str) -> str:
    """The part of a model that a weight belongs to: what its address begins with.

    Blocks of a stack, its norms and its tokens are one part; a prediction head is one.

    >>> group_of("encoder/joint/audio/block_3/mlp/expand/kernel")
    'encoder/joint/audio'
    >>> group_of("decoder/video_mask_token"), group_of("head/kernel")
    ('decoder/video', 'head')
    """
    prefix = "teacher/" if address.startswith("teacher/") else ""
    own = address.removeprefix(prefix)
    if block := block_of(own):
        return prefix + block[0]
    parts = own.split("/")
    group = "/".join(parts[: 2 if parts[0] in ("encoder", "decoder") else 1])
    if not group.endswith("_head"):
        group = re.sub(r"^(\w+/[a-z]+)_\w+", r"\1", group)
    return prefix + group


def _parts(missing: Sequence[str], had: Sequence[str]) -> collections.Counter:
    """How many weights are missing, by group, or by part where a source has none."""
    parts: collections.Counter = collections.Counter()
    for a in missing:
        part = a.split("/")[0]
        is_whole = not any(f"{part}/" in x for x in had)
        parts[part if is_whole else group_of(a)] += 1
    return parts


class _Planner:
    """The one model that is planned for; see `make_plan`."""

    def __init__(
        self, model: Any, sources: Sequence[Source], options: Options, below: str
    ) -> None:
        self.sources, self.options, self.below = sources, options, below
        self.part = getattr(model, below.rstrip("/")) if below else model
        of_model = {address(v): v for v in model.weights}
        self.wanted = {
            a.removeprefix(below): v
            for a, v in of_model.items()
            if a.startswith(below) and not a.removeprefix(below).startswith(APART)
        }
        self.structure = Structure(self.wanted)
        had = {m for x in sources for m in x.structure.modalities}
        self.absent = set(self.structure.modalities) - had
        borrows = options.starting.absent_modality == "borrow"
        borrowing = self.absent if borrows else set()
        self.roles = [
            {
                m: role
                for m in self.structure.modalities
                if (role := _role(m, x, m in borrowing))
            }
            for x in sources
        ]

    def origin(self, ours: str, variable: Any) -> Origin | None:
        """The origin of a weight, `None` if nothing says what it should be."""
        reason = self._reason_to_start_afresh(ours)
        if reason:
            return Origin(self.below + ours, None, None, reason, None)
        streams = getattr(self.part, "streams_from", None)
        repeats = self.options.starting.layers == "last"
        for source, roles in zip(self.sources, self.roles, strict=True):
            there = find_origin(
                ours, self.structure, source.structure, roles, streams, repeats
            )
            if there is None:
                continue
            array = source.arrays[there]
            value, how = self._fitted(ours, array, source, there)
            if value is None:
                return Origin(self.below + ours, None, None, how, None)
            if value.shape != tuple(variable.shape):
                layer = ours.rpartition("/")[0] or ours
                raise UserError(
                    f"{source.title}: its weight {there} has shape {array.shape}, and "
                    f"{ours} of the model has shape {tuple(variable.shape)}; make their"
                    f" settings agree, or start it afresh: transfer.fresh=[^{layer}]."
                )
            return Origin(self.below + ours, source.title, there, how, value)
        if self._computed_table(ours):
            return Origin(self.below + ours, None, None, "computed", None)
        from_scratch = self.options.starting.absent_modality == "scratch"
        if from_scratch and modality_of(ours) in self.absent:
            return Origin(
                self.below + ours, None, None, "no source has the modality", None
            )
        expected = getattr(self.part, "expected_new", ())
        if any(re.fullmatch(x, ours) for x in expected):
            return Origin(self.below + ours, None, None, "new in this model", None)
        return None

    def _reason_to_start_afresh(self, ours: str) -> str | None:
        if any(re.search(x, ours) for x in self.options.fresh):
            return "transfer.fresh"
        if ours.startswith(tuple(getattr(self.part, "new_weights", ()))):
            return "new_weights of the model"
        if self.options.positions == "fresh" and _POSITIONS.fullmatch(ours):
            return "transfer.positions=fresh"
        if self.options.starting.computes_positions and self._computed_table(ours):
            return "computed"
        return None

    def _positions(self, ours: str) -> PositionEmbedding:
        """The layer that has a table."""
        modality = modality_of(ours)
        if ours.startswith("decoder/"):
            return getattr(self.part.decoder, f"{modality}_positions")
        return getattr(self.part, f"{modality}_tokenizer").positions

    def _computed_table(self, ours: str) -> bool:
        """Whether a weight is a frozen sin-cos table."""
        match = _POSITIONS.fullmatch(ours)
        if match is None or match[2] != "table":
            return False
        layer = self._positions(ours)
        return layer.kind != "learned" and not layer.trains_table

    def _fitted(
        self, ours: str, array: np.ndarray, source: Source, there: str
    ) -> tuple[np.ndarray | None, str]:
        """The source's weight in the shape of ours, and what was done to it."""
        modality, other = modality_of(ours), modality_of(there)
        if modality and other:
            how = "as is" if modality == other else f"from {other}"
        else:
            how = "as is" if ours == there else f"from {there.split('/')[1]}"
        if modality is None or other is None or other not in source.inputs:
            return array, how
        if _POSITIONS.fullmatch(ours) and _POSITIONS.fullmatch(there):
            return self._fitted_table(ours, array, source, other)
        is_head = re.fullmatch(r"decoder/\w+_head/(kernel|bias)", ours)
        if not is_head and not ours.endswith("_tokenizer/projection/kernel"):
            return array, how
        starting = self.options.starting
        patch = Patch.of(source.inputs[other])
        wanted = Patch.of(self.part.inputs_by_modality[modality])
        if array.shape[0 if not is_head else -1] != math.prod(patch.shape):
            # A student's head predicts features, whatever the patch.
            return array, how
        crosses = modality == "audio" and other == "video"
        if is_head and crosses and starting.audio_head == "fresh":
            return None, "transfer.audio_head=fresh"
        fit = fitted_head if is_head else fitted_kernel
        value, done = fit(array, patch, wanted, starting)
        return value, ", ".join([*([how] if how != "as is" else []), *done]) or how

    def _fitted_table(
        self, ours: str, table: np.ndarray, source: Source, other: str
    ) -> tuple[np.ndarray | None, str]:
        """A table of positions for our grid, and what was done to it."""
        modality, layer = modality_of(ours), self._positions(ours)
        there, here = tuple(source.inputs[other].grid), layer.grid
        trims = self.options.positions == "trim"
        how = "trimmed" if trims else "interpolated"
        if ours.endswith("time_table"):
            value = resized_table(table, there[:1], here[:1], trims)
            return value, "as is" if there[:1] == here[:1] else how
        # The row of a class token comes first, where there is one.
        first = len(table) - math.prod(there)
        if (modality, there, first) == (other, here, int(layer.class_token)):
            return table, "as is"
        table = table[first:]
        if modality != other:
            if layer.kind != "learned":
                return None, "computed"
            table, there = _turned(table, there, here, self.options.starting)
        elif layer.kind != "learned" and _is_formula(table, layer, there):
            return None, "computed"
        value = resized_table(table, there, here, trims)
        return np.pad(value, ((int(layer.class_token), 0), (0, 0))), how


def _role(modality: str, source: Source, borrows: bool) -> str | None:
    """The modality of a source whose weights one of the target's takes."""
    own = source.structure.modalities
    if modality in own:
        return modality
    return own[0] if len(own) == 1 and borrows else None


def _is_formula(
    table: np.ndarray, layer: PositionEmbedding, grid: tuple[int, ...]
) -> bool:
    """Whether a table is what a layer would compute for a grid."""
    config = {**layer.get_config(), "grid": grid, "class_token": False}
    own = PositionEmbedding.from_config(config).fixed_table(table.shape[-1])
    return own.shape == table.shape and np.allclose(own, table, atol=_FORMULA)


def _turned(
    table: np.ndarray, there: tuple[int, ...], here: tuple[int, ...], starting: Starting
) -> tuple[np.ndarray, tuple[int, ...]]:
    """A table of images as one of spectrograms, or the other way, and its grid."""
    grid = table.reshape(*there, -1)
    grid = grid.mean(axis=0) if len(there) == 3 else grid
    if starting.rows == "frequency":
        grid = np.swapaxes(grid, 0, 1)
    axes = grid.shape[:2] if len(here) == 2 else (1, *grid.shape[:2])
    return grid.reshape(-1, grid.shape[-1]), axes
