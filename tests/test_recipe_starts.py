"""What a recipe starts from fits: runs of other recipes, and published files.

All at a size for tests, with as many layers for all models: the plan of a start follows
from structures and not from sizes.
"""

import functools
import re

import keras
import numpy as np
import published_files
import pytest
from small_recipes import OF_PAPERS, build, load, rows_of, shrunk, workdir

from tfavmae.config.transfer import SourceConfig, sources
from tfavmae.errors import UserError
from tfavmae.models.transfer import address
from tfavmae.training import warm_start
from tfavmae.weights import published
from tfavmae.weights.starting import Source
from tfavmae.weights.torch_writer import write_torch

DEPTH = 3
# What the files are that the recipes name, 24 wide; an image of 2 x 2 patches.
IMAGE_MAE = published_files.mae(24, 32, DEPTH, 4)
FILES = {
    "mae_pretrain_vit_base_full.pth": published_files.mae(
        24, 32, DEPTH, 4, decoder=(24, 32, 1)
    ),
    "mae_pretrain_vit_base.pth": IMAGE_MAE,
    "mae_pretrain_vit_large.pth": IMAGE_MAE,
    "mae_finetuned_vit_base.pth": {
        **{k: x for k, x in IMAGE_MAE.items() if not k.startswith("norm.")},
        "fc_norm.weight": (24,),
        "fc_norm.bias": (24,),
        "head.weight": (5, 24),
        "head.bias": (5,),
    },
}
VIT = published_files.vit_npz(24, 2, 32, DEPTH, 4, 5)
# Runs that are not of a recipe's own command: its name, and rows of its matrix.
RUNS = {
    "av_mae": {
        "runs/pretrain_audioset_base": ("pretrain_audioset_large", ["base"]),
        "runs/pretrain_audioset_base_separate": (
            "pretrain_audioset_large",
            ["base_separate"],
        ),
        "runs/pretrain_vggsound_early_separate_decoder": (
            "pretrain_vggsound_early",
            ["separate_decoder"],
        ),
        "runs/pretrain_vggsound_shared_separate_decoder": (
            "pretrain_vggsound_shared",
            ["separate_decoder"],
        ),
    },
    "cav_mae": {
        f"runs/pretrain_kinetics_sounds_{row}": ("pretrain_kinetics_sounds", [row])
        for row in ("av_mae", "cav")
    },
    "mavil": {},
}


# Options that change neither which weights there are nor where they start from.
WITHOUT_WEIGHTS = (
    *("masking", "augmentation", "label_smoothing", "loss", "drop_path"),
    *("contrast", "intra_contrast", "target_normalization", "stream"),
)


def starts(kind):
    """`(recipe, rows)` that start from runs, or from files; one of each structure."""
    cases = [(x, rows) for x in OF_PAPERS for rows in [[], *([r] for r in rows_of(x))]]
    found = {}
    for recipe, rows in cases:
        config = load(recipe, rows=rows)
        named = sources(config.initialize_from)
        if not named or named[0].path.startswith("runs/") != (kind == "runs"):
            continue
        model = shrunk(config, DEPTH).model.as_dict()
        options = {
            k: x for k, x in model["options"].items() if k not in WITHOUT_WEIGHTS
        }
        paper = recipe.split("/")[1]
        if kind == "runs":
            named = [recipe_of(x.path, paper) for x in named]
        key = repr((config.stage, model["name"], model["modality"], options, named))
        title = " ".join([recipe.removeprefix("configs/"), *rows])
        marks = [pytest.mark.slow] if rows else []
        found.setdefault(key, pytest.param(recipe, rows, id=title, marks=marks))
    return list(found.values())


def recipe_of(run, paper):
    """The recipe of pretraining, and its rows, that a run is named after."""
    if run in RUNS[paper]:
        stem, rows = RUNS[paper][run]
        return f"configs/{paper}/{stem}.yaml", rows
    own = {workdir(x): x for x in OF_PAPERS if f"configs/{paper}/pretrain" in x}
    return own[max((x for x in own if run.startswith(x)), key=len)], []


@functools.cache
def pretrained(recipe, rows):
    keras.utils.set_random_seed(1)
    return build(load(recipe, rows=rows), DEPTH)


def plan(recipe, rows, open_source, monkeypatch):
    """Where each weight of a small model starts from."""
    monkeypatch.setattr(warm_start, "open_source", open_source)
    config = load(recipe, rows=rows)
    model = build(config, DEPTH)
    return warm_start.plan_start(model, shrunk(config, DEPTH), lambda line: None)


def open_run(paper):
    def open_source(source):
        recipe, rows = recipe_of(source.path, paper)
        model = pretrained(recipe, tuple(rows))
        return Source.of_model(source.path, model, source.modality)

    return open_source


HEAD = r"(head|head_norm)/|"
# What begins anew: fusion (MAViL, B.3), or what a source does not have.
NEW = {
    "av_mae": HEAD + "encoder/(joint/bottleneck|joint_norm)",
    "cav_mae": HEAD + r"\w+_tokenizer/modality|decoder/\w+_modality|encoder/\w+_norm/",
    # A student's heads predict features, those of the run patches.
    "mavil": HEAD
    + r"encoder/joint|decoder/\w+_head/|text_encoder/|(audio|video|text)_projection",
}


@pytest.mark.parametrize("recipe, rows", starts("runs"))
def test_runs_fill_all_that_fine_tuning_does_not_add(recipe, rows, monkeypatch):
    paper = recipe.split("/")[1]
    found = plan(recipe, rows, open_run(paper), monkeypatch)
    new = [x.address for x in found if x.value is None and x.how != "computed"]
    assert not [x for x in new if not re.match(NEW[paper], x)]
    assert any(x.value is not None for x in found)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Folder of the published files, small."""
    folder = tmp_path_factory.mktemp("files")
    for number, (file, shapes) in enumerate(FILES.items()):
        write_torch(folder / file, published_files.values(shapes, number))
    np.savez(folder / "vit.npz", **published_files.values(VIT))
    return folder


def open_file(folder):
    def open_source(source):
        assert published.of_name(source.path), "not a published file"
        file = "vit.npz" if source.path.endswith(".npz") else source.path
        decoder = {"decoder": {"num_heads": 2}} if "_full" in file else {}
        model = {"options": {"num_heads": 2, **decoder}}
        return original(SourceConfig(str(folder / file), source.modality, model))

    original = warm_start.open_source
    return open_source


@pytest.mark.parametrize("recipe, rows", starts("files"))
def test_published_files_fill_what_their_paper_says(recipe, rows, files, monkeypatch):
    paper, stage = recipe.split("/")[1], load(recipe).stage
    found = plan(recipe, rows, open_file(files), monkeypatch)
    taken = {x.address for x in found if x.value is not None}
    new = {x.address for x in found if x.value is None and x.how != "computed"}
    if stage == "finetune" or paper == "cav_mae":
        assert not [x for x in new if not re.match(NEW[paper], x)]
    else:
        audio = [x for x in taken if x.startswith(("audio_tokenizer", "encoder/audio"))]
        assert not audio, "audio begins at random (MAViL, B.3)"
        new_of_video = {x for x in new if x.startswith("encoder/video/")}
        assert not new_of_video
        assert not [x for x in taken if x.startswith("decoder")]
    assert any(x.startswith("encoder") for x in taken)


@pytest.mark.parametrize(
    ("recipe", "layer", "block"),
    [
        ("configs/cav_mae/pretrain_audioset.yaml", "encoder/joint/block_0", DEPTH - 1),
        ("configs/mavil/pretrain_audioset_stage1.yaml", "encoder/video/block_1", 1),
        ("configs/mavil/pretrain_audioset_stage1.yaml", "encoder/joint/block_0", 2),
    ],
)
def test_weights_of_a_file_arrive(recipe, layer, block, files, monkeypatch):
    """CAV-MAE's joint layer is MAE's last (appendix E); MAViL's fusion layers, too."""
    monkeypatch.setattr(warm_start, "open_source", open_file(files))
    config = load(recipe)
    model = build(config, DEPTH)
    warm_start.warm_start(model, shrunk(config, DEPTH), lambda line: None)
    weights = {address(v): np.array(v) for v in model.weights}
    number = list(FILES).index(sources(config.initialize_from)[0].path)
    theirs = published_files.values(list(FILES.values())[number], number)
    expected = theirs[f"blocks.{block}.mlp.fc1.weight"].T
    np.testing.assert_array_equal(weights[f"{layer}/mlp/expand/kernel"], expected)


def test_both_streams_start_from_a_vit_of_images(files, monkeypatch):
    """AV-MAE, tables 6 and 9: MBT from ImageNet-21k."""
    monkeypatch.setattr(warm_start, "open_source", open_file(files))
    config = load("configs/av_mae/finetune_vggsound.yaml", rows=["base_imagenet21k"])
    model = build(config, DEPTH)
    warm_start.warm_start(model, shrunk(config, DEPTH), lambda line: None)
    weights = {address(v): np.array(v) for v in model.weights}
    theirs = published_files.values(VIT)
    expected = theirs["Transformer/encoderblock_1/MlpBlock_3/Dense_0/kernel"]
    for modality in ("audio", "video"):
        ours = weights[f"encoder/joint/{modality}/block_1/mlp/expand/kernel"]
        np.testing.assert_array_equal(ours, expected)
    kernel = weights["video_tokenizer/projection/kernel"]
    # Of the two frames of a patch, the middle one alone sees what the image's did.
    assert np.count_nonzero(kernel) == kernel.size // 2


@pytest.mark.parametrize("recipe", OF_PAPERS)
def test_a_recipe_without_its_files_says_how_to_start(recipe, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for source in sources(load(recipe).initialize_from):
        if not source.path.startswith("runs/"):
            with pytest.raises(UserError, match=r"publish it at https://.*=null"):
                warm_start.open_source(source)
