"""Where a model has the weights of another, by the depth of their layers."""

import pytest

from tfavmae.models.transfer import Structure, find_origin, modality_of

BOTH = ("audio", "video")
ROLES = {m: m for m in BOTH}


def model(stacks, extra=(), modalities=BOTH):
    """Addresses of a model, from the number of blocks of each stack."""
    names = [
        f"{stack}/block_{i}/mlp/kernel" for stack, n in stacks.items() for i in range(n)
    ]
    tokens = [f"{m}_tokenizer/projection/kernel" for m in modalities]
    return Structure([*names, *tokens, *extra])


SEPARATE = model({"encoder/audio": 3, "encoder/video": 3})
SHARED = model({"encoder/shared": 3}, ["encoder/shared_norm/gamma"])
EARLY = model({"encoder/joint": 3}, ["encoder/joint_norm/gamma"])
MID = model({"encoder/audio": 2, "encoder/video": 2, "encoder/joint": 1})
STREAMS = model(
    {"encoder/joint/audio": 3, "encoder/joint/video": 3}, ["encoder/joint_norm/gamma"]
)
IMAGES = model(
    {"encoder/video": 3, "decoder/video": 2},
    ["encoder/video_norm/gamma", "decoder/video_mask_token"],
    modalities=["video"],
)


@pytest.mark.parametrize(
    ("source", "origins"),
    [
        (SEPARATE, ["audio/block_0", "audio/block_1", "audio/block_2"]),
        (SHARED, ["shared/block_0", "shared/block_1", "shared/block_2"]),
        (EARLY, ["joint/block_0", "joint/block_1", "joint/block_2"]),
        (MID, ["audio/block_0", "audio/block_1", "joint/block_0"]),
        (STREAMS, [f"joint/audio/block_{i}" for i in range(3)]),
    ],
)
def test_a_stream_follows_its_modality_through_the_source(source, origins):
    for i, origin in enumerate(origins):
        wanted = f"encoder/joint/audio/block_{i}/mlp/kernel"
        there = find_origin(wanted, STREAMS, source, ROLES)
        assert there == f"encoder/{origin}/mlp/kernel"
    assert source.blocks("audio") == [f"encoder/{x}" for x in origins]


def test_a_shared_weight_has_one_origin_or_none():
    wanted = "encoder/shared/block_1/mlp/kernel"
    assert find_origin(wanted, SHARED, SEPARATE, ROLES) is None
    alone = Structure(SEPARATE.addresses, ["video"])
    there = find_origin(wanted, SHARED, alone, {"audio": "video", "video": "video"})
    assert there == "encoder/video/block_1/mlp/kernel"
    # Of mid-fusion, the joint layer is one for both.
    last = wanted.replace("block_1", "block_2")
    there = find_origin(last, SHARED, MID, ROLES)
    assert there == "encoder/joint/block_0/mlp/kernel"


def test_a_norm_that_ends_both_streams_needs_a_source_for_both():
    norm = "encoder/joint_norm/gamma"
    both = {"audio": "video", "video": "video"}
    assert find_origin(norm, STREAMS, SHARED, ROLES) == "encoder/shared_norm/gamma"
    assert find_origin(norm, STREAMS, IMAGES, both) == "encoder/video_norm/gamma"
    assert find_origin(norm, STREAMS, IMAGES, {"video": "video"}) is None


def test_layers_after_the_last_and_decoders():
    target = model({"encoder/video": 3, "encoder/joint": 2, "decoder/both": 2})
    roles = {"video": "video"}
    wanted = "encoder/joint/block_1/mlp/kernel"
    assert find_origin(wanted, target, IMAGES, roles) is None
    there = find_origin(wanted, target, IMAGES, roles, repeats_last=True)
    assert there == "encoder/video/block_2/mlp/kernel"
    there = find_origin("decoder/both/block_1/mlp/kernel", target, IMAGES, roles)
    assert there == "decoder/video/block_1/mlp/kernel"
    there = find_origin("decoder/both_mask_token", target, IMAGES, roles)
    assert there == "decoder/video_mask_token"


@pytest.mark.parametrize(
    ("address", "modality"),
    [
        ("audio_tokenizer/positions/table", "audio"),
        ("encoder/video_class_token", "video"),
        ("encoder/joint/audio/block_0/mlp/kernel", "audio"),
        ("encoder/joint/block_0/norm_1_audio/gamma", None),
        ("decoder/both_norm/gamma", None),
        ("head/kernel", None),
    ],
)
def test_whose_a_weight_is(address, modality):
    assert modality_of(address) == modality
