"""Transfer of weights between models by address.

Where layers lie elsewhere in the source, they are found by depth: a block of one model
starts from the block of the other that as many blocks precede on a modality's way
through the encoder. That is what the papers do, whichever encoders meet: AV-MAE's into
the streams of MBT (section 4.1), the last of MAE's layers into CAV-MAE's joint one.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import keras

from tfavmae.models.options import MODALITIES

_BLOCK = re.compile(r"((encoder|decoder)/(?:joint/)?\w+)/block_(\d+)/(.+)")
_OWN = re.compile(r"((?:encoder/|decoder/)?)(audio|video)_(.+)")
_COMMON = re.compile(r"(encoder|decoder)/(?:shared|joint|both)_(.+)")
# A teacher is filled by itself, and no source counts a run's steps.
APART = ("training_step", "teacher/")


class TransferReport(NamedTuple):
    """What `copy_matching_weights` did; lists of weight addresses."""

    copied: list[str]
    missing_in_source: list[str]
    unused_in_source: list[str]


def address(variable: keras.Variable) -> str:
    """Path of a variable below its model: `encoder/audio/block_3/mlp/expand/kernel`."""
    return variable.path.split("/", 1)[1]


class Structure:
    """A model as its addresses tell it.

    Args:
        addresses: of its weights.
        modalities: those to count; `None` counts all that the addresses name.

    Attributes:
        addresses: of the weights, without those of other modalities.
        modalities: those that the model reads.
    """

    def __init__(
        self, addresses: Iterable[str], modalities: Iterable[str] | None = None
    ) -> None:
        known = set(addresses)
        read = [m for m in MODALITIES if f"{m}_tokenizer/projection/kernel" in known]
        self.modalities = tuple(
            m for m in read if modalities is None or m in modalities
        )
        left = set(read) - set(self.modalities)
        self.addresses = {a for a in known if modality_of(a) not in left}
        blocks = {x[:2] for x in map(block_of, self.addresses) if x is not None}
        stacks = [stack for stack, _ in blocks]
        self.num_blocks = {stack: stacks.count(stack) for stack in stacks}

    def stacks(self, modality: str) -> list[str]:
        """The encoder's stacks that a modality's tokens pass, in order."""
        choices = [
            (f"encoder/{modality}", "encoder/shared"),
            (f"encoder/joint/{modality}", "encoder/joint/both", "encoder/joint"),
        ]
        found = [[x for x in names if x in self.num_blocks] for names in choices]
        return [names[0] for names in found if names]

    def blocks(self, modality: str) -> list[str]:
        """Addresses of the encoder's blocks on a modality's way, in order."""
        return [
            f"{stack}/block_{i}"
            for stack in self.stacks(modality)
            for i in range(self.num_blocks[stack])
        ]

    def depth(self, stack: str, modality: str) -> int:
        """How many blocks precede a stack of the encoder on a modality's way."""
        way = self.stacks(modality)
        before = way[: way.index(stack)] if stack in way else []
        return sum(self.num_blocks[x] for x in before)


def block_of(address: str) -> tuple[str, int, str] | None:
    """The stack, the number of the block and the rest of an address, if it has them.

    >>> block_of("encoder/audio/block_3/mlp/expand/kernel")
    ('encoder/audio', 3, 'mlp/expand/kernel')
    """
    match = _BLOCK.fullmatch(address)
    return match and (match[1], int(match[3]), match[4])


def modality_of(address: str) -> str | None:
    """The only modality whose tokens a weight sees, or `None`."""
    block, own = _BLOCK.fullmatch(address), _OWN.fullmatch(address)
    if block:
        last = block[1].rsplit("/", 1)[-1]
        return last if last in MODALITIES else None
    return own and own[2]


def find_origin(
    address: str,
    target: Structure,
    source: Structure,
    roles: Mapping[str, str],
    streams: Mapping[str, str] | None = None,
    repeats_last: bool = False,
) -> str | None:
    """Where a source has a weight of a target.

    A weight that both modalities of the target share must have one origin: where the
    source has a weight for each, neither is it. A norm that ends the streams of several
    modalities needs a source for all of them, as in AV-MAE's code, which leaves it out
    where the encoders are separate.

    Args:
        address: of the target's weight.
        target, source: the models.
        roles: dict of the target's modality to that of the source which it takes.
        streams: likewise, for the encoder's blocks alone, over `roles`.
        repeats_last: layers after the source's last start from its last.
    """
    if block_of(address):
        roles = {**roles, **(streams or {})}
        return _origin_of_block(address, target, source, roles, repeats_last)
    own, common = _OWN.fullmatch(address), _COMMON.fullmatch(address)
    if own:
        part, modality, rest = own.groups()
        if modality not in roles:
            return None
        names = [f"{part}{roles[modality]}_{rest}"]
        names += [f"{part}{x}_{rest}" for x in ("shared", "joint", "both") if part]
        if rest == "tokenizer/class_token":
            names.append(f"encoder/{roles[modality]}_class_token")
        return next((x for x in names if x in source.addresses), None)
    if common and address not in source.addresses:
        part, rest = common.groups()
        names = [f"{part}/{x}_{rest}" for x in ("shared", "joint", "both")]
        whole = part == "decoder" or set(target.modalities) <= set(roles)
        apart = {f"{part}/{m}_{rest}" for m in source.modalities} if whole else set()
        apart &= source.addresses
        names += apart if len(apart) == 1 else ()
        return next((x for x in names if x in source.addresses), None)
    return address if address in source.addresses else None


def _origin_of_block(
    address: str,
    target: Structure,
    source: Structure,
    roles: Mapping[str, str],
    repeats_last: bool,
) -> str | None:
    stack, index, rest = block_of(address) or ("", 0, "")
    owner = modality_of(address)
    ways = {roles[owner]} if owner in roles else set(roles.values())
    if owner is not None and owner not in roles:
        return None
    if stack.startswith("decoder/"):
        stacks = {f"decoder/{m}" for m in ways} & source.num_blocks.keys()
        if "decoder/both" in source.num_blocks:
            stacks = {"decoder/both"}
        found = {f"{x}/block_{index}" for x in stacks}
    else:
        passing = [owner] if owner else target.modalities
        depth = index + max((target.depth(stack, m) for m in passing), default=0)
        blocks = [source.blocks(m) for m in ways]
        found = {x[depth] for x in blocks if depth < len(x)}
        if not found and repeats_last:
            found = {x[-1] for x in blocks if x}
    if len(found) != 1:
        return None
    (block,) = found
    names = [f"{block}/{x}" for x in _in_other_words(rest, roles)]
    return next((x for x in names if x in source.addresses), None)


def _in_other_words(rest: str, roles: Mapping[str, str]) -> Iterator[str]:
    """What the source may call a part of a block: streams' norms start from the plain.

    >>> list(_in_other_words("norm_1_audio/gamma", {"audio": "video"}))
    ['norm_1_video/gamma', 'norm_1/gamma']
    """
    match = re.fullmatch(r"(norm_\d)_(audio|video)/(\w+)", rest)
    if match is None:
        yield rest
        return
    norm, modality, name = match.groups()
    yield f"{norm}_{roles.get(modality, modality)}/{name}"
    yield f"{norm}/{name}"


def copy_matching_weights(
    source: keras.Model, target: keras.Model, into: str = ""
) -> TransferReport:
    """Copies the weights that two models have in common, of equal shapes.

    Layers that lie elsewhere are found by depth, see `find_origin`. Weights below one
    of the target's `new_weights` stay as they are.

    Args:
        source, target: models.
        into: only the target's weights below this address, e.g. `teacher/`.

    Raises:
        ValueError: a weight's shape in the source is another; names both shapes.
    """
    given = {address(v): v for v in source.weights}
    wanted = {address(v): v for v in target.weights if address(v).startswith(into)}
    wanted = {a.removeprefix(into): v for a, v in wanted.items()}
    there, here = Structure(given), Structure(wanted)
    roles = {m: m for m in there.modalities}
    streams = getattr(target, "streams_from", None)
    new = ("training_step", *getattr(target, "new_weights", ()))
    origins = {
        a: find_origin(a, here, there, roles, streams)
        for a in wanted
        if not a.startswith(new)
    }
    copied = {a: origin for a, origin in origins.items() if origin is not None}
    for a, origin in copied.items():
        if given[origin].shape != wanted[a].shape:
            raise ValueError(
                f"Weight {a} has shape {tuple(given[origin].shape)} in the checkpoint "
                f"and {tuple(wanted[a].shape)} in the model; make their settings agree."
            )
        wanted[a].assign(given[origin])
    used = {*copied.values(), "training_step"}
    return TransferReport(
        list(copied),
        [a for a in wanted if a not in copied and a != "training_step"],
        [a for a in given if a not in used],
    )
