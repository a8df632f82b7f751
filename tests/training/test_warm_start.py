"""What a run starts from: runs, lists of them, files, and the list that it leaves."""

import csv
import io

import numpy as np
import published_files
import pytest
from rich.console import Console

from tfavmae.config import experiment as config_lib
from tfavmae.config.transfer import SourceConfig, sources
from tfavmae.errors import UserError
from tfavmae.models.transfer import address
from tfavmae.training import experiment, factory, warm_start, weight_list
from tfavmae.training.workdir import Workdir
from tfavmae.weights.starting import Source
from tfavmae.weights.torch_writer import write_torch

LABELS = factory.Labels(2, False, None)


@pytest.fixture(scope="module")
def pretrained(small_config, tmp_path_factory):
    """A run of one step."""
    workdir = tmp_path_factory.mktemp("runs") / "pretrain"
    config = small_config(**{"trainer.num_steps": 3})
    return experiment.run(config, workdir, progress=False)


def classifier(config):
    return factory.build_model(config, LABELS)


def started(config, model=None):
    """The model of a config after its warm start, the plan and what was said."""
    lines = []
    model = model or classifier(config)
    plan = warm_start.warm_start(model, config, lines.append)
    return {address(v): np.array(v) for v in model.weights}, plan, lines


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, []),
        ("runs/a", [SourceConfig("runs/a")]),
        (["runs/a", "b.pth"], [SourceConfig("runs/a"), SourceConfig("b.pth")]),
        ({"from": "a", "modality": "audio"}, [SourceConfig("a", "audio")]),
        (
            ["a", {"from": "b", "modality": "video"}],
            [SourceConfig("a"), SourceConfig("b", "video")],
        ),
    ],
)
def test_sources_in_yaml_and_back(value, expected, small_config, tmp_path):
    config = small_config(initialize_from=value)
    assert sources(config.initialize_from) == expected
    path = tmp_path / "config.yaml"
    path.write_text(config_lib.to_yaml(config))
    again = config_lib.load(path)
    assert config_lib.difference(config, again) == []
    assert sources(again.initialize_from) == expected


@pytest.mark.parametrize(
    ("key", "value", "complaint"),
    [
        ("initialize_from", 3, r"initialize_from must be a path.* Received: 3"),
        ("initialize_from", [], "initialize_from must be a path"),
        ("initialize_from", ["a", 3], r"initialize_from\[1\] must be a path or"),
        ("initialize_from", [{"form": "a"}], r"initialize_from\[0\] must be a path or"),
        (
            "initialize_from",
            [{"from": "a", "mode": 1}],
            r"unknown key initialize_from\[0\]\.mode; known: from, modality, model",
        ),
        (
            "initialize_from",
            [{"from": "a", "modality": "sound"}],
            r"initialize_from\[0\]\.modality must be one of audio, video",
        ),
        ("transfer", {"positions": "zoom"}, "positions must be one of interpolate"),
        ("transfer", {"fresh": ["("]}, r"transfer\.fresh: '\(' is not a regular"),
        ("transfer", {"frames": "all"}, "frames must be one of repeat, average"),
    ],
)
def test_what_a_source_cannot_be(key, value, complaint, small_config):
    with pytest.raises(UserError, match=complaint):
        small_config(**{key: value})


@pytest.mark.parametrize(
    ("path", "source", "licence"),
    [
        ("a/mae_pretrain_vit_base_full.pth", "facebookresearch/mae", "CC BY-NC 4.0"),
        ("B_16-i21k-300ep.npz", "google-research/vision_transformer", "Apache-2.0"),
        (
            "vggsound_selfsup_audiovisual/checkpoint",
            "scenic-bucket/av_mae/vggsound_selfsup_audiovisual/checkpoint",
            "Apache-2.0",
        ),
    ],
)
def test_a_published_file_that_is_not_there(path, source, licence):
    """One line: where it is, under which licence, and how to do without it."""
    with pytest.raises(UserError) as error:
        warm_start.open_source(SourceConfig(path))
    text = str(error.value)
    assert text.startswith(f"{path}: no such file. Its authors publish it at https://")
    assert source in text and licence in text and "\n" not in text
    assert "--from" in text and text.endswith("--set initialize_from=null")


def test_a_run_that_is_not_there_is_no_published_file():
    with pytest.raises(UserError) as error:
        warm_start.open_source(SourceConfig("runs/not_there"))
    assert "publish" not in str(error.value)


def test_options_are_those_of_the_paper_unless_given(small_config):
    config = small_config(transfer={"rows": "time", "fresh": ["^head/"]})
    options = warm_start.options_of("cav_mae", config.transfer, "pretrain")
    starting = options.starting
    assert (starting.rows, starting.audio_head) == ("time", "authors")
    assert (options.positions, options.fresh) == ("interpolate", ("^head/",))
    for stage, absent in (("pretrain", "scratch"), ("finetune", "refuse")):
        starting = warm_start.options_of("mavil", config.transfer, stage).starting
        assert (starting.layers, starting.absent_modality) == ("last", absent)


def test_the_first_source_gives_what_it_has(pretrained, small_config, tmp_path):
    other = experiment.run(
        small_config(**{"trainer.num_steps": 3, "trainer.seed": 1}),
        tmp_path / "other",
        progress=False,
    )
    first, second = str(pretrained.workdir), str(other.workdir)
    config = small_config(
        "finetune", initialize_from=[{"from": first, "modality": "audio"}, second]
    )
    weights, plan, lines = started(config)
    given = [
        {address(v): np.array(v) for v in run.model.weights}
        for run in (pretrained, other)
    ]
    for name, run in (
        ("encoder/audio/block_0/norm_1/gamma", 0),
        ("encoder/audio/block_0/attention/qkv/kernel", 0),
        ("encoder/video/block_0/attention/qkv/kernel", 1),
        # The first source's joint layers have no part that is audio's alone.
        ("encoder/joint/block_0/attention/qkv/kernel", 0),
    ):
        np.testing.assert_array_equal(weights[name], given[run][name], err_msg=name)
    used = {x.source for x in plan}
    assert used == {first, second, None}
    assert lines[0].startswith(f"{sum(x.source == first for x in plan)} weights of")


def test_a_weight_at_random_is_an_error_unless_it_is_named(pretrained, small_config):
    source = str(pretrained.workdir)
    deeper = {"model.options": {"num_layers": 3, "hidden_dim": 16, "num_heads": 2}}
    deeper["model.options"]["mlp_dim"] = 32
    config = small_config("finetune", initialize_from=source, **deeper)
    with pytest.raises(
        UserError, match=r"initialize_from=.*stay at random: encoder/jo"
    ):
        started(config)
    config = small_config(
        "finetune",
        initialize_from=source,
        transfer={"fresh": ["encoder/joint/"]},
        **deeper,
    )
    before = classifier(config)
    kernel = "encoder/joint/block_0/mlp/expand/kernel"
    random = {address(v): np.array(v) for v in before.weights}[kernel]
    weights, plan, _ = started(config, before)
    np.testing.assert_array_equal(weights[kernel], random)
    assert {x.address: x.how for x in plan}[kernel] == "transfer.fresh"


def read_tsv(path):
    with open(path, newline="") as file:
        return {row["address"]: row for row in csv.DictReader(file, delimiter="\t")}


def test_a_run_leaves_the_list_of_its_weights(pretrained, small_config, tmp_path):
    source = str(pretrained.workdir)
    changes = {
        "optimizer": {
            "learning_rate": 1e-3,
            "weight_decay": 0.05,
            "layer_decay": 0.5,
            "head_learning_rate_factor": 10.0,
        },
        "trainer.num_steps": 3,
        "initialize_from": source,
    }
    run = experiment.run(small_config("finetune", **changes), tmp_path, progress=False)
    rows = read_tsv(Workdir(tmp_path).weights_file)
    assert set(rows) == {address(v) for v in run.model.weights} - {"training_step"}
    kernel = rows["encoder/audio/block_0/attention/qkv/kernel"]
    assert kernel["source"] == source and kernel["how"] == "as is"
    assert kernel["there"] == kernel["address"] and kernel["shape"] == "16 x 48"
    # Embeddings are layer 0, the two blocks 1 and 2, the rest 3.
    assert float(kernel["rate"]) == 0.25 and float(kernel["decay"]) == 0.05
    head = rows["head/kernel"]
    assert (head["source"], head["how"]) == ("-", "new in this model")
    assert float(head["rate"]) == 10 and float(rows["head/bias"]["decay"]) == 0
    scratch = read_tsv(Workdir(source).weights_file)
    table = scratch["audio_tokenizer/positions/table"]
    assert table["how"] == "from scratch" and float(table["rate"]) == 0


def test_the_list_for_people_has_a_line_for_each_part(pretrained, small_config):
    config = small_config("finetune", initialize_from=str(pretrained.workdir))
    model = classifier(config)
    plan = warm_start.warm_start(model, config, lambda line: None)
    rows = [
        weight_list.WeightRow(
            x.address, (2, 3), x.source or "-", "-", x.how, 0.1 * i, 0.0
        )
        for i, x in enumerate(plan)
    ]
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(weight_list.summary(rows))
    lines = console.export_text().splitlines()
    assert len(lines) < 25
    (audio,) = [x for x in lines if x.split()[:1] == ["encoder/audio"]]
    assert str(pretrained.workdir) in audio and " to " in audio and "as is" in audio
    (head,) = [x for x in lines if x.split()[:1] == ["head"]]
    assert "new in this model" in head and " 12 " in head


def test_a_file_of_weights_starts_a_run(small_config, tmp_path):
    """Image MAE into both encoders of CAV-MAE."""
    rng = np.random.default_rng(0)
    shapes = published_files.mae(16, 32, 2, 4, decoder=(16, 32, 1))
    theirs = {k: rng.normal(size=s).astype("float32") for k, s in shapes.items()}
    path = tmp_path / "image.pth"
    write_torch(path, theirs)
    heads = {"options": {"num_heads": 2, "decoder": {"num_heads": 2}}}
    config = small_config(initialize_from={"from": str(path), "model": heads})
    config.model.audio.patch_size = [16, 16]
    config.model.video.override({"tubelet_size": [1, 16, 16], "width": 32})
    half = {m: {"ratio": 0.5} for m in ("audio", "video")}
    config.model.options.override({"masking": half}, is_strict=False)
    weights, plan, lines = started(config, factory.build_model(config))
    summed = theirs["patch_embed.proj.weight"].sum(axis=1).transpose(2, 1, 0)
    np.testing.assert_allclose(
        weights["audio_tokenizer/projection/kernel"],
        summed.reshape(256, 16),
        rtol=1e-5,
        atol=1e-6,
    )
    np.testing.assert_array_equal(
        weights["encoder/joint/block_0/attention/qkv/kernel"],
        theirs["blocks.1.attn.qkv.weight"].T,
    )
    assert "not used: encoder/video_class_token" in lines[0]
    assert {x.source for x in plan} == {None, str(path)}


def test_a_teacher_is_not_made_of_another_modality(small_config, pretrained):
    values = small_config().as_dict()
    values["model"]["name"] = "mavil"
    values["model"]["video"] |= {"num_frames": 2, "tubelet_size": [2, 8, 8]}
    values["model"]["options"] |= {"num_layers": 1, "num_fusion_layers": 1}
    values["model"]["options"]["masking"] = {"video": {"ratio": 0.5}}
    alone = values | {"model": values["model"] | {"modality": "audio"}}
    options = {"contrast": {"weight": 0.0}, "num_fusion_layers": 0}
    alone["model"]["options"] = alone["model"]["options"] | options
    source = factory.build_model(config_lib.from_dict(alone))
    values["model"]["options"] |= {"teacher": {}}
    student = factory.build_model(config_lib.from_dict(values))
    opened = [Source.of_model("audio", source)]
    with pytest.raises(UserError, match=r"teacher_from=audio: .*would stay at random"):
        warm_start.teacher_plan(student, opened, "teacher_from")
