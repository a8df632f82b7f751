"""Depths of weights, by which a learning rate may fall."""

import optional
import pytest
import small_models as small

from tfavmae.models.transfer import address


def depths(model):
    return {address(v): model.layer_index(v) for v in model.trainable_variables}


def expected(name, encoder_layers):
    """By BEiT's and MAE's convention, from a weight's address."""
    if "_tokenizer/" in name or name.endswith("class_token"):
        return 0
    for start, first in encoder_layers.items():
        if name.startswith(f"{start}/block_"):
            return first + int(name.removeprefix(f"{start}/block_").split("/")[0])
    return LAST


LAST = 3  # All models below have two layers on each way.


@pytest.mark.parametrize(
    "name, modality, options, stacks",
    [
        (
            "av_mae",
            "audio_video",
            {"num_fusion_layers": 1},
            {"encoder/audio": 1, "encoder/video": 1, "encoder/joint": 2},
        ),
        ("av_mae", "audio_video", {"fusion": "shared"}, {"encoder/shared": 1}),
        ("av_mae", "audio_video", {"fusion": "early"}, {"encoder/joint": 1}),
        (
            "cav_mae",
            "audio_video",
            {"positions": {"trainable": True}},
            {"encoder/audio": 1, "encoder/video": 1, "encoder/joint": 2},
        ),
        ("cav_mae", "audio", {}, {"encoder/audio": 1, "encoder/joint": 2}),
        (
            "mavil",
            "audio_video",
            {
                "num_layers": 1,
                "num_fusion_layers": 1,
                "bottleneck": {"share_blocks": False},
            },
            {
                "encoder/audio": 1,
                "encoder/video": 1,
                "encoder/joint/audio": 2,
                "encoder/joint/video": 2,
            },
        ),
    ],
)
def test_depth_of_every_weight(name, modality, options, stacks):
    found = depths(small.classifier(name, modality, **options))
    assert found == {a: expected(a, stacks) for a in found}
    assert set(found.values()) == {0, 1, 2, LAST}
    assert found["head/kernel"] == found["head_norm/gamma"] == LAST


def test_the_optimizer_takes_them():
    optional.need("official")
    from tfavmae.config import experiment as config_lib
    from tfavmae.training.optimizers import build_optimizer
    from tfavmae.training.plan import make_plan

    config = config_lib.from_dict(
        {"trainer": {"num_steps": 1}, "optimizer": {"layer_decay": 0.5}}
    )
    model = small.classifier()
    sections = config.trainer, config.optimizer
    plan = make_plan(*sections, batch_size=32, num_examples=64)
    optimizer = build_optimizer(config.optimizer, plan, model)
    factors = {path.split("/", 1)[1]: factor for path, factor, _ in optimizer.rules()}
    assert factors["head/kernel"] == 1.0
    assert factors["encoder/joint/block_0/mlp/expand/kernel"] == 0.5
    assert factors["encoder/video/block_0/mlp/expand/kernel"] == 0.25
    assert factors["audio_tokenizer/projection/kernel"] == 0.125
