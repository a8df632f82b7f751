"""What a file of weights is found to be, and how it becomes a model of ours."""

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from tfavmae.errors import UserError
from tfavmae.models import presets
from tfavmae.weights.rules import Tensors, WeightTable, load_weights

Shapes = Mapping[str, tuple[int, ...]]
# A `model` section of a config, or what somebody sets in one.
Section = Mapping[str, Any]

# Heads by the width of an encoder, which no tensor shows.
ENCODER_HEADS = {192: 3, 384: 6, 768: 12, 1024: 16, 1280: 16}
# Classes of AudioSet, of which a clip may have several.
_MULTI_LABEL_CLASSES = 527
_INPUTS = ("audio", "video")


@dataclasses.dataclass(frozen=True)
class Identified:
    """Weights under their authors' names, with the model of ours that they fill.

    Attributes:
        family: key of `identify.FAMILIES`.
        title: for people: architecture, authors and size.
        model: `name`, `size`, `modality`, `audio`, `video` and `options`, as the
            section `model` of a config has them.
        table: from their names to our addresses.
        tensors: dict of their names to arrays, or to tensors of a file.
        num_classes: of the head; 0 for a model of pretraining.
        label_order: `vggsound/stat`, for example: data set and variant whose builder
            has the head's classes in this order; empty where it is not known.
        notes: sentences on what no tensor shows and was assumed, and on what differs.
    """

    family: str
    title: str
    model: dict[str, Any]
    table: WeightTable
    tensors: Tensors = dataclasses.field(default_factory=dict, repr=False)
    num_classes: int = 0
    label_order: str = ""
    notes: tuple[str, ...] = ()

    @property
    def multi_label(self) -> bool:
        """Whether a clip may have several of the classes, as in AudioSet."""
        return self.num_classes == _MULTI_LABEL_CLASSES

    def arrays(self) -> dict[str, np.ndarray]:
        """All weights by our addresses, without a model.

        Raises:
            UserError: a tensor has no rule, or the file is damaged.
        """
        return self.table.convert(self.tensors)

    def build(self, seed: int = 0) -> keras.Model:
        """Our model, with the weights in it.

        Args:
            seed: of the weights that the file does not have.

        Raises:
            UserError: a tensor is missing, of no use, or of another shape.
        """
        model = self.untrained(seed)
        load_weights(model, self.table, self.tensors)
        return model

    def untrained(self, seed: int = 0) -> keras.Model:
        """Our model as it begins; `seed` is of its weights.

        Raises:
            UserError: what was found, or the user said, makes no model.
        """
        section = self.model
        options = {
            **{m: section[m] for m in _INPUTS},
            "seed": seed,
            **section["options"],
        }
        try:
            if self.num_classes:
                return presets.build_classifier(
                    section["name"],
                    section["size"],
                    section["modality"],
                    num_classes=self.num_classes,
                    multi_label=self.multi_label,
                    **options,
                )
            if section["modality"] != "audio_video":
                options["modality"] = section["modality"]
            return presets.build_pretraining(
                section["name"], section["size"], **options
            )
        except ValueError as error:
            raise UserError(
                f"the weights seem to be {self.title}, which cannot be built: {error}"
            ) from error


def section(name: str, arguments: Mapping[str, Any], given: Section) -> dict[str, Any]:
    """The section `model` of a config for the arguments of a preset's model.

    Args:
        name: of the preset.
        arguments: of its model or classifier.
        given: what the user sets, which counts more.
    """
    options = dict(arguments)
    inputs = {m: dict(options.pop(m, {})) for m in _INPUTS}
    modality = options.pop("modality", "audio_video")
    size = "base"
    for own, sizes in presets.paper(name).SIZES.items():
        encoder = {k: x for k, x in sizes.items() if k != "decoder"}
        if all(options.get(k) == x for k, x in encoder.items()):
            size = own
            options = {k: x for k, x in options.items() if x != sizes.get(k)}
            break
    made = {"name": name, "size": size, "modality": modality, "options": options}
    return _merged(made | inputs, given)


def _merged(made: Mapping[str, Any], given: Section) -> dict[str, Any]:
    """A nested dict with what is given in another, which counts more."""
    merged = dict(made)
    for key, value in given.items():
        if isinstance(value, Mapping) and isinstance(merged.get(key), Mapping):
            value = _merged(merged[key], value)
        merged[key] = value
    return merged


def count_layers(shapes: Shapes, pattern: str) -> int:
    """The number of different first groups of a pattern among the names."""
    return len({m[1] for name in shapes if (m := re.match(pattern, name))})


def stack_sizes(
    shapes: Shapes, blocks: str, heads: Mapping[int, int], given: Section
) -> dict[str, int]:
    """`hidden_dim`, `num_heads`, `mlp_dim`, `num_layers` of a stack of timm's blocks.

    Args:
        shapes: of the tensors.
        blocks: name of the stack.
        heads: dict of width to the number of heads that published stacks have.
        given: what the user sets: `num_heads` counts more.

    Raises:
        UserError: no stack of this width is known, and the user does not say its heads.
    """
    mlp_dim, width = shapes[f"{blocks}.0.mlp.fc1.weight"]
    num_heads = given.get("num_heads") or heads.get(width)
    if num_heads is None:
        raise not_shown(
            f"{blocks} is {width} wide, as none that is published, and no tensor shows "
            "how many heads it has",
            "model.options.num_heads=N (and decoder.num_heads)",
        )
    return {
        "hidden_dim": width,
        "num_heads": num_heads,
        "mlp_dim": mlp_dim,
        "num_layers": count_layers(shapes, rf"{re.escape(blocks)}\.(\d+)\."),
    }


def not_shown(what: str, setting: str) -> UserError:
    """The error for what no tensor shows and nobody says.

    Args:
        what: is not known, as the beginning of a sentence.
        setting: that says it.
    """
    return UserError(
        f"{what}: say --set {setting}, or the same below `model` where the file is one "
        "of initialize_from: {from: FILE, model: {...}}."
    )


def encoder_sizes(shapes: Shapes, blocks: str, given: Section) -> dict[str, int]:
    """`stack_sizes` of an encoder, with the user's section `model`."""
    return stack_sizes(shapes, blocks, ENCODER_HEADS, given.get("options", {}))


def decoder_sizes(
    shapes: Shapes, blocks: str, heads: Mapping[int, int], given: Section
) -> dict[str, int]:
    """`stack_sizes` of a decoder, with the user's section `model`."""
    own = given.get("options", {}).get("decoder", {})
    return stack_sizes(shapes, blocks, heads, own)


def side(num_patches: int) -> int:
    """Rows, and columns, of a square of patches.

    Raises:
        UserError: they make no square.
    """
    rows = math.isqrt(num_patches)
    if rows * rows != num_patches:
        raise UserError(
            f"{num_patches} positions of an image make no square: the file is of a "
            "model that tfavmae does not know."
        )
    return rows


def size_name(width: int) -> str:
    """A ViT's size for people."""
    names = {192: "Tiny", 384: "Small", 768: "Base", 1024: "Large", 1280: "Huge"}
    return f"ViT-{names[width]}" if width in names else f"a ViT {width} wide"
