"""What a recipe that names a model alone says of audio and video."""

import pytest
import small_models as small

from tfavmae.config import experiment as config_lib
from tfavmae.models.presets import build_pretraining, papers


@pytest.mark.parametrize("name", papers())
def test_a_recipe_without_front_ends_means_the_papers(name):
    """Not CAV-MAE's, which are the defaults of the config's classes."""
    config = config_lib.from_dict(
        {"model": {"name": name}, "trainer": {"num_steps": 1}}
    )
    sizes = small.ENCODER | small.DECODER
    if name == "av_mae":
        sizes["num_fusion_layers"] = 1
    model = build_pretraining(name, "tiny", **sizes)
    given = {m: getattr(config.model, m).as_dict() for m in ("audio", "video")}
    again = build_pretraining(name, "tiny", **sizes, **given)
    assert again.inputs_by_modality == model.inputs_by_modality


def test_what_a_recipe_says_goes_before_the_papers():
    values = {"name": "av_mae", "video": {"num_frames": 8}, "audio": {"std": 2.0}}
    config = config_lib.from_dict({"model": values, "trainer": {"num_steps": 1}})
    assert (config.model.video.num_frames, config.model.audio.std) == (8, 2.0)
    assert config.model.video.tubelet_size == [2, 16, 16]
    assert config.model.audio.num_frames == 800
    assert papers()["av_mae"].INPUTS["video"]["num_frames"] == 16
