"""Every recipe, and every row of docs/papers.md, is a model that trains."""

import inspect
import json
import pathlib
import re

import keras
import numpy as np
import pytest
from small_recipes import LABELS, OF_PAPERS, RECIPES, ROOT, build, load, rows_of, shrunk

from tfavmae.config import experiment as config_lib
from tfavmae.layers.masking import TokenMasking
from tfavmae.models import presets
from tfavmae.training.optimizers import PathAdam

BATCH = 5  # as many as AVSiam has groups: XLA compiles no gradient of an empty one


# --- What docs/papers.md says ---


def rows_of_the_paper_tables():
    """Of every table row that names a recipe: its line, recipes, rows and overrides."""
    lines = (ROOT / "docs" / "papers.md").read_text().splitlines()
    for number, line in enumerate(lines, 1):
        spans = re.findall(r"`([^`]+)`", line)
        recipes = [s for s in spans if s.startswith("configs/")]
        if line.startswith("|") and recipes:
            overrides = [s for s in spans if re.match(r"[a-z_]+(\.[a-z_]+)*=", s)]
            rows = [s.removeprefix("--row ") for s in spans if s.startswith("--row ")]
            yield number, recipes, rows, overrides


ROWS = list(rows_of_the_paper_tables())


def test_the_document_names_files_that_exist_and_every_file():
    named = {recipe for _, recipes, *_ in ROWS for recipe in recipes}
    assert named <= set(RECIPES)
    assert set(OF_PAPERS) <= named
    assert len(ROWS) > 150


def test_every_row_of_a_matrix_is_a_row_of_the_document():
    named = {
        (recipe, row)
        for _, recipes, rows, _ in ROWS
        for recipe in recipes
        for row in rows
    }
    there = {(recipe, row) for recipe in OF_PAPERS for row in rows_of(recipe)}
    assert there <= named


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_row_of_a_matrix_changes_something(recipe):
    for row in rows_of(recipe):
        assert config_lib.difference(load(recipe, rows=[row]), load(recipe)), row


@pytest.mark.parametrize(
    "number, recipes, rows, overrides", ROWS, ids=lambda x: str(x)[:24]
)
def test_every_row_of_the_document_loads_and_names_known_options(
    number, recipes, rows, overrides
):
    for recipe in recipes:
        config = load(recipe, overrides, rows)
        if overrides or rows:
            changed = config_lib.difference(config, load(recipe))
            assert changed, "the overrides change nothing"
        if config.stage == "pretrain":
            options = config.model.options.as_dict()
            presets.pretraining_arguments(
                config.model.name, config.model.size, **options
            )


def test_options_of_classes_that_the_document_names_exist():
    text = (ROOT / "docs" / "papers.md").read_text()
    named = re.findall(r"`(\w+)\((\w+)=[\w()]+\)`", text)
    classes = keras.saving.get_custom_objects()
    assert len(named) >= 2
    for name, argument in named:
        parameters = inspect.signature(classes[f"tfavmae>{name}"]).parameters
        assert argument in parameters, f"{name} has no {argument}"


# --- One of each structure ---


def structure(config):
    """What the graph of the train step depends on, apart from sizes and numbers."""
    model = shrunk(config).model
    options = model.options.as_dict()
    for name in ("seed", "label_smoothing", "augmentation"):
        options.pop(name, None)
    for name in ("contrast", "intra_contrast", "inpainting"):
        if name in options:
            own = options[name] | {"weight": bool(options[name].get("weight", 1))}
            options[name] = {k: x for k, x in own.items() if k != "temperature"}
    for name in list(options):
        if name.endswith("_weight"):
            options[name] = bool(options[name])
    options["masking"] = {
        m: x.get("strategy", "random")
        for m, x in (options.get("masking") or {}).items()
        if x.get("strategy")
    }
    tubes = model.video.tubelet_size[0] > 1
    labels = len(config.data.labels)
    key = [config.stage, model.name, model.modality, tubes, labels, options]
    return json.dumps(key, sort_keys=True, default=list)


def distinct(cases):
    """The first of the `(recipe, rows, overrides)` of each structure."""
    found = {}
    for recipe, rows, overrides in cases:
        config = load(recipe, overrides, rows)
        found.setdefault(structure(config), (recipe, rows, overrides))
    return [
        pytest.param(*case, id=" ".join([case[0][8:], *case[1], *case[2]]))
        for case in found.values()
    ]


PLAIN = [(recipe, [], []) for recipe in RECIPES]
OF_FILES = distinct(PLAIN)
OF_ROWS = distinct(PLAIN + [(x, *row[2:]) for row in ROWS for x in row[1]])[
    len(OF_FILES) :
]


def augmentation(recipe):
    return load(recipe).model.options.as_dict().get("augmentation")


# The last recipe of each augmentation.
AUGMENTED = {str(augmentation(r)): r for r in RECIPES if augmentation(r)}

# One of each paper and a classifier; the others take half an hour and are slow tests.
COMPILED_BY_DEFAULT = (
    "configs/av_mae/pretrain_vggsound_combined.yaml",
    "configs/cav_mae/finetune_vggsound.yaml",
    "configs/cav_mae/pretrain_audioset.yaml",
    "configs/mavil/pretrain_audioset_stage2.yaml",
)


def batch_for(model, clips=BATCH):
    """Each clip repeats a patch of its own, so that what is hidden can be known."""
    rng = np.random.default_rng(0)
    labels = [x.label for x in model.objectives if hasattr(x, "label")]
    classes = np.arange(clips, dtype="int32") % LABELS.num_classes
    batch = dict.fromkeys(labels, classes)
    for m, spec in model.inputs_by_modality.items():
        if m == "audio":
            shape, patch = (spec.num_frames, spec.num_mel_bins), spec.patch_size
        else:
            shape = (spec.num_frames, spec.height, spec.width, 3)
            patch = (*spec.tubelet_size, 3)
        repeats = [1, *(n // p for n, p in zip(shape, patch, strict=True))]
        values = rng.normal(size=(clips, *patch))
        batch[m] = np.tile(values, repeats).astype("float32")
        tokens = int(np.prod(spec.grid))
        for suffix in ("", "_2"):
            batch[f"{m}_noise{suffix}"] = rng.random((clips, tokens)).astype("float32")
        batch[f"{m}_present"] = np.ones(clips, "float32")
    if hasattr(model, "text_encoder"):
        ids = rng.integers(5, 260, (clips, 8)).astype("int32")
        batch |= {"text_ids": ids, "text_mask": np.ones_like(ids)}
    return batch


def train(model, batch, steps, optimizer=None, jit=False):
    """Losses of `steps` compiled train steps; plain descent traces quickest."""
    import tensorflow as tf

    optimizer = optimizer or keras.optimizers.SGD(1e-3)
    model.compile(optimizer=optimizer)
    optimizer.build(model.trainable_variables)
    step = tf.function(model.train_step, jit_compile=jit)
    batch = {k: tf.constant(v) for k, v in batch.items()}
    losses = []
    for _ in range(steps):
        losses.append(float(step(batch)["loss"]))
        model.reset_metrics()
    return losses


@pytest.fixture
def precision():
    """Sets a policy and takes it back."""
    yield keras.config.set_dtype_policy
    keras.config.set_dtype_policy("float32")


# --- What holds for them ---


@pytest.mark.parametrize("recipe, rows, overrides", OF_FILES)
def test_each_structure_has_a_loss(recipe, rows, overrides):
    model = build(load(recipe, [*overrides, "trainer.precision=float32"], rows))
    batch = batch_for(model)
    losses = model.compute_losses(batch, model(batch, training=True))
    assert losses and all(np.isfinite(float(value)) for value in losses.values())


@pytest.mark.parametrize("recipe", COMPILED_BY_DEFAULT)
def test_each_kind_of_graph_compiles_under_xla_and_overfits(recipe, precision):
    compiles_and_overfits(recipe, (), (), precision)


@pytest.mark.slow
@pytest.mark.parametrize("recipe, rows, overrides", OF_FILES + OF_ROWS)
def test_each_structure_compiles_and_overfits(recipe, rows, overrides, precision):
    compiles_and_overfits(recipe, rows, overrides, precision)


def compiles_and_overfits(recipe, rows, overrides, precision):
    """In bfloat16, with the recipe's own weights of the terms, on one batch."""
    # Augmentation keeps a model from learning a batch by heart.
    overrides = [*overrides, "model.options.augmentation=null"]
    precision("mixed_bfloat16")
    # Weights that begin with a small loss leave little to learn: labels are smoothed.
    keras.utils.set_random_seed(0)
    model = build(load(recipe, [*overrides, "trainer.precision=mixed_bfloat16"], rows))
    assert model.compute_dtype == "bfloat16"
    losses = train(model, batch_for(model), 150, PathAdam(3e-3), jit=True)
    assert np.isfinite(losses).all()
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("recipe", AUGMENTED.values())
def test_each_augmentation_compiles_under_xla(recipe, precision):
    precision("mixed_bfloat16")
    model = build(load(recipe, ["trainer.precision=mixed_bfloat16"]))
    for name, value in augmentation(recipe).items():
        # `shrunk` makes the masks narrower.
        assert bool(getattr(model.augmentation, name)) == bool(value), name
    assert np.isfinite(train(model, batch_for(model), 1, jit=True)).all()


@pytest.mark.parametrize("recipe", OF_PAPERS)
def test_inputs_are_those_of_the_papers_model(recipe):
    """A recipe gives every field of a front end, so it could contradict its model."""
    config = load(recipe)
    tokens = {"av_mae": (400, 1568), "cav_mae": (512, 196), "mavil": (512, 784)}
    audio, video = (
        inputs(getattr(config.model, name).as_dict())
        for name, inputs in (("audio", audio_tokens), ("video", video_tokens))
    )
    of_paper = tokens[pathlib.Path(recipe).parent.name]
    assert (audio, video) == OTHER_TOKENS.get(recipe.removeprefix("configs/"), of_paper)


# 32 frames in AV-MAE's fine-tuning; 10 seconds of audio for 8, 5 or 1 for 10.
OTHER_TOKENS = {
    "av_mae/pretrain_audioset_large.yaml": (496, 1568),
    "av_mae/finetune_vggsound.yaml": (400, 3136),
    "av_mae/finetune_vggsound_own_encoder.yaml": (400, 3136),
    "av_mae/finetune_epic_kitchens.yaml": (400, 3136),
    "av_mae/probe_vggsound.yaml": (400, 3136),
    "av_mae/finetune_audioset.yaml": (496, 3136),
    "av_mae/finetune_ave.yaml": (496, 1960),
    "mavil/finetune_esc50.yaml": (256, 784),
    "mavil/finetune_speech_commands.yaml": (64, 784),
}


def audio_tokens(fields):
    from tfavmae.models.inputs import AudioInput

    return int(np.prod(AudioInput(**fields).grid))


def video_tokens(fields):
    from tfavmae.models.inputs import VideoInput

    return int(np.prod(VideoInput(**fields).grid))


@pytest.mark.parametrize(
    "recipe, rows",
    [
        ("configs/av_mae/probe_vggsound.yaml", []),
        ("configs/cav_mae/finetune_audioset_20k.yaml", ["linear_probe"]),
    ],
)
def test_nothing_but_the_head_of_a_linear_probe_learns(recipe, rows):
    config = load(recipe, rows=rows)
    paths = [v.path for v in build(config).trainable_variables]
    learning = [
        x for x in paths if not any(re.search(f, x) for f in config.trainer.freeze)
    ]
    assert learning and all(x.split("/")[1].startswith("head") for x in learning)
    assert len(learning) < len(paths) / 5


@pytest.mark.parametrize(
    "recipe, modality, grid, kept",
    [
        ("finetune_audioset_20k", "audio", (64, 8), (51, 6)),
        ("finetune_audioset_20k", "video", (4, 14, 14), (3, 156)),
        ("finetune_speech_commands", "audio", (8, 8), (6, 6)),
        ("finetune_esc50", "audio", (32, 8), (25, 6)),
    ],
)
def test_mavil_leaves_out_a_fifth_of_each_axis(recipe, modality, grid, kept):
    """Of 64 times 51 stay, as in the code around the weights: `int(0.8 * 64)`."""
    options = load(f"configs/mavil/{recipe}.yaml").model.options.as_dict()
    masking = TokenMasking(grid, **options["masking"][modality])
    noise = np.random.default_rng(0).random((1, masking.num_tokens))
    is_masked = np.array(masking.is_masked(masking(noise.astype("float32"))))
    plane = is_masked.reshape(grid[0], -1)
    times = plane[~plane.all(axis=1)]
    assert (len(times), np.count_nonzero(~times[0])) == kept
    assert not (times != times[0]).any()
