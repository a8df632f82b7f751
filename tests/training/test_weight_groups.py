"""Which weights learn, and how fast."""

import pathlib

import keras
import numpy as np
import pytest
import small_models as small

from tfavmae.config import experiment as config_lib
from tfavmae.errors import UserError
from tfavmae.models.transfer import address
from tfavmae.training import experiment, factory
from tfavmae.training.optimizers import build_optimizer
from tfavmae.training.plan import make_plan
from tfavmae.training.weight_groups import freeze, layer_factors


def factors(model, **options):
    """Learning-rate factor of each weight, by address."""
    values = {"trainer": {"num_steps": 1}, "optimizer": options}
    config = config_lib.from_dict(values)
    sections = config.trainer, config.optimizer
    plan = make_plan(*sections, batch_size=32, num_examples=64)
    rules = build_optimizer(config.optimizer, plan, model).rules()
    return {path.split("/", 1)[1]: factor for path, factor, _ in rules}


def test_the_head_is_all_that_fine_tuning_adds():
    head = {"tokens": "attention", "num_heads": 2, "representation_dim": 4}
    found = factors(small.classifier(head=head), head_learning_rate_factor=50.0)
    layers = {a.split("/")[0] for a, factor in found.items() if factor == 50.0}
    assert layers == {"pooler", "head_norm", "head_representation", "head"}
    assert {f for a, f in found.items() if a.split("/")[0] not in layers} == {1.0}


@pytest.mark.parametrize(
    ("model", "halved"),
    [
        (
            lambda: small.classifier("mavil", num_layers=1),
            {"video_tokenizer", "encoder/video", "encoder/video_norm"}
            | {"encoder/video_class_token"},
        ),
        (
            small.classifier,
            {"video_tokenizer", "encoder/video", "encoder/video_norm"}
            | {f"encoder/joint/block_0/norm_{i}_video" for i in (1, 2)},
        ),
        (small.mbt, {"video_tokenizer", "encoder/joint/video"}),
    ],
)
def test_a_modality_is_what_serves_it_alone(model, halved):
    found = factors(model(), video_learning_rate_factor=0.5)
    is_halved = {a: any(f"{a}/".startswith(f"{x}/") for x in halved) for a in found}
    assert found == {a: 0.5 if is_halved[a] else 1.0 for a in found}
    assert all(any(f"{a}/".startswith(f"{x}/") for a in found) for x in halved)


def by_address(model, *arguments):
    found = layer_factors(model, *arguments).items()
    return {pattern.removeprefix("(^|/)").rstrip("$"): f for pattern, f in found}


def test_the_authors_count_of_fusion_layers():
    """AV-MAE's is right for 12 layers, of which 2 fuse, and wrong for others."""
    sizes = {"num_layers": 12, "num_fusion_layers": 2, "hidden_dim": 4, "mlp_dim": 4}
    model = small.classifier("av_mae", **sizes)
    assert by_address(model, 0.5, "av_mae_authors") == by_address(model, 0.5)
    model = small.classifier("av_mae", **sizes | {"num_layers": 14})
    true, theirs = by_address(model, 0.5), by_address(model, 0.5, "av_mae_authors")
    different = {a: (true[a], theirs[a]) for a in true if true[a] != theirs[a]}
    assert set(different) == {a for a in true if a.startswith("encoder/joint/block_")}
    # Numbers 13 and 14 of 15, and theirs 11 and 12.
    assert different["encoder/joint/block_0/mlp/expand/kernel"] == (0.5**2, 0.5**4)
    assert different["encoder/joint/block_1/mlp/expand/kernel"] == (0.5, 0.5**3)
    with pytest.raises(UserError, match=r"av_mae_authors counts 11 layers.* has 3"):
        layer_factors(small.classifier("av_mae"), 0.5, "av_mae_authors")


def test_mavils_authors_number_fusion_layers_from_the_bottom():
    model = small.classifier("mavil", num_layers=3, num_fusion_layers=2)
    found = by_address(model, 0.75, "mavil_authors")
    for i in range(3):
        kernel = f"encoder/video/block_{i}/mlp/expand/kernel"
        assert found[kernel] == pytest.approx(0.75 ** (3 - i))
    for i in range(2):
        kernel = f"encoder/joint/block_{i}/mlp/expand/kernel"
        assert found[kernel] == pytest.approx(0.75 ** (3 - i))
    assert found["head/kernel"] == 1.0
    assert found["video_tokenizer/projection/kernel"] == pytest.approx(0.75**4)


def test_layers_count_from_the_top_also_where_that_is_frozen():
    model = small.classifier()
    before = by_address(model, 0.5)
    freeze(model, ["(^|/)head", "/joint"])
    assert by_address(model, 0.5) == {
        a: f for a, f in before.items() if not a.startswith(("head", "encoder/joint"))
    }


def test_a_pattern_that_freezes_nothing_or_everything():
    with pytest.raises(UserError, match=r"trainer\.freeze: 'neck/' matches none of"):
        freeze(small.classifier(), ["encoder/", "neck/"])
    with pytest.raises(UserError, match=r"trainer\.freeze leaves no weight"):
        freeze(small.classifier(), [""])


FROZEN = ["^[^/]+/encoder/", "_tokenizer/"]


@pytest.fixture
def frozen_config(small_config):
    return small_config("finetune", **{"trainer.freeze": FROZEN})


def is_head(name):
    return name.startswith("head")


def test_frozen_weights_stay_and_have_no_state(
    frozen_config, run_and_die, tmp_path, assert_same_weights
):
    run = experiment.run(frozen_config, tmp_path / "run", progress=False)
    names = {address(v) for v in run.model.trainable_variables}
    assert names == {"head_norm/gamma", "head_norm/beta", "head/kernel", "head/bias"}
    # Two moments each, and the count of steps.
    assert len(run.model.optimizer.variables) == 2 * 4 + 1
    keras.utils.set_random_seed(frozen_config.trainer.seed)
    fresh = factory.build_model(frozen_config, run.labels)
    before = {address(v): np.array(v) for v in fresh.weights}
    for v in run.model.weights:
        same = np.array_equal(np.array(v), before[address(v)])
        assert same == (not is_head(address(v)) and address(v) != "training_step")
    run_and_die(frozen_config, tmp_path / "died", 5)
    resumed = experiment.run(frozen_config, tmp_path / "died", progress=False)
    assert_same_weights(resumed.model, run.model)


TRAIN_ON_JAX = """
import sys
sys.path.append(sys.argv[1])
import keras
import numpy as np
import small_models as small
from tfavmae.models.transfer import address
from tfavmae.training.optimizers import PathAdam
from tfavmae.training.weight_groups import freeze
assert keras.backend.backend() == "jax"
model = small.classifier()
freeze(model, ["^[^/]+/encoder/", "_tokenizer/"])
before = {address(v): np.array(v) for v in model.weights}
model.compile(PathAdam(0.1, decay=0.5))
model.fit(small.batch_for(model), batch_size=4, epochs=2, verbose=0)
moved = {address(v) for v in model.weights if (np.array(v) != before[address(v)]).any()}
assert moved == {
    "training_step", "head_norm/gamma", "head_norm/beta", "head/kernel", "head/bias"
}, moved
assert len(model.optimizer._means) == 4
"""


def test_frozen_weights_stay_on_jax(fresh_python):
    environment = {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
    tests = pathlib.Path(small.__file__).parent
    fresh_python(TRAIN_ON_JAX, tests, environment=environment)
