"""A folder of videos goes in: pretrain, fine-tune, predict, embed, search."""

import json
import os

import media_files
import numpy as np
import pytest
from PIL import Image

import tfavmae
from tfavmae.cli import main
from tfavmae.errors import UserError
from tfavmae.tasks import classification

SMALL = ("--set", "model.options.num_layers=2", "--set", "trainer.num_steps=2")
SMALL_DECODER = ("--set", "model.options.decoder.num_layers=1")


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A folder of videos, their labels, and the two runs made of them."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "videos").mkdir()
    lines = ["file,label"]
    for i in range(6):
        sound = media_files.sine(300.0 * (i + 1))
        size = [(64, 48), (48, 64), (64, 64)][i % 3]
        path = folder / "videos" / f"-{i}.mp4"
        media_files.write_clip(path, seconds=2.0 + i % 2, size=size, sound=sound)
        lines.append(f"-{i}.mp4,{['low', 'high'][i > 2]}")
    (folder / "labels.csv").write_text("\n".join(lines))
    files = ("--videos", folder / "videos", *SMALL, "--workdir")
    run = folder / "pretrain"
    assert command("pretrain", *files, run, *SMALL_DECODER) == 0
    labels = ("--labels", folder / "labels.csv", "--from", run)
    assert command("finetune", *files, folder / "finetune", *labels) == 0
    return folder


def command(*words):
    return main([str(word) for word in words])


@pytest.fixture(scope="module")
def run(own):
    return tfavmae.load(own / "finetune")


def test_the_same_command_continues(own, cli):
    files = ("--videos", own / "videos", *SMALL, *SMALL_DECODER)
    done = cli("pretrain", *files, "--workdir", own / "pretrain")
    assert done.status == 0 and "nothing to do" in done.err


def test_a_classifier_has_the_inputs_of_the_run_it_starts_from(own, run):
    source = tfavmae.load(own / "pretrain").config
    assert run.config.model.audio == source.model.audio
    assert run.config.initialize_from == str(own / "pretrain")


def test_a_file_gets_the_probabilities_of_its_stored_clip(own, run):
    """Exactly what `evaluate` gives for the clip that was stored for training."""
    split = run.open_all()
    stored, _ = classification.predict(run.run.model, run.batches(split))
    names = run.run.labels.names
    ids = split.ids()
    assert len(ids) == 9  # three files of 3 s are two clips of 2 s
    for file in ("-0.mp4", "-1.mp4", "-2.mp4"):
        found = run.classify(own / "videos" / file)
        rows = [i for i, name in enumerate(ids) if name.partition("@")[0] == file]
        assert found.num_windows == len(rows)
        values = [found.probabilities[name] for name in names]
        np.testing.assert_allclose(values, stored[rows].mean(0), atol=1e-5)
        assert sum(values) == pytest.approx(1)
        assert list(found.probabilities.values()) == sorted(values, reverse=True)


def test_the_stored_form_is_that_of_the_training(own, run):
    facts = json.loads((own / "finetune" / "run.json").read_text())
    stored = facts["data"]["train"]["stored_as"]
    assert stored["shorter_side"] == 128 and stored["jpeg_quality"] == 90


def test_a_preset_answers_as_its_run_does(own, run, tmp_path):
    """Also where frames are stored in a form of their own, as here."""
    tfavmae.save_preset(own / "finetune", tmp_path / "preset")
    again = tfavmae.load(tmp_path / "preset")
    assert again.run.stored_as["shorter_side"] == 128
    file = own / "videos" / "-1.mp4"
    assert again.classify(file) == run.classify(file)


@pytest.mark.slow
def test_training_on_videos_starts_from_a_preset(own, tmp_path, cli):
    tfavmae.save_preset(own / "pretrain", tmp_path / "preset")
    files = ("--videos", own / "videos", "--labels", own / "labels.csv", *SMALL)
    source = ("--from", tmp_path / "preset", "--set", "trainer.num_steps=1")
    source = (*source, "--set", "optimizer.warmup_steps=0")
    done = cli("finetune", *files, *source, "--workdir", tmp_path / "run")
    assert done.status == 0, done
    assert f"weights from {tmp_path / 'preset'} (step 2)" in " ".join(done.err.split())
    done = cli("finetune", *files, "--workdir", tmp_path / "preset")
    assert done.status == 2 and "holds a preset, which is not continued" in done.err
    exported = tmp_path / "preset-results" / "export" / "model" / "1"
    data = f"data.data_dir={own / 'pretrain' / 'data'}"
    done = cli("export", "--workdir", tmp_path / "preset", "--set", data)
    assert done.status == 0 and exported.is_dir(), done


def test_embeddings_are_the_mean_over_the_windows(own):
    run = tfavmae.load(own / "pretrain")
    split = run.open_all()
    stored = run.embed_split(split)
    rows = [i for i, name in enumerate(split.ids()) if name.startswith("-1.mp4")]
    found = run.embed(own / "videos" / "-1.mp4")
    assert found.keys() == {"audio_embedding", "video_embedding"}
    for name, value in found.items():
        assert value.shape == (128,)
        np.testing.assert_allclose(value, stored[name][rows].mean(0), atol=1e-5)


def test_stills_and_sounds_are_embedded_and_those_that_lack_something_refused(
    own, run, tmp_path
):
    Image.new("RGB", (80, 60), "red").save(tmp_path / "photo.jpg")
    sound = media_files.write_clip(tmp_path / "tone.mp3", seconds=0.3)
    pretrained = tfavmae.load(own / "pretrain")
    assert pretrained.embed(tmp_path / "photo.jpg").keys() == {"video_embedding"}
    assert pretrained.embed(sound).keys() == {"audio_embedding"}
    with pytest.raises(UserError, match=r"photo\.jpg: has no audio, which this model"):
        run.classify(tmp_path / "photo.jpg")
    with pytest.raises(UserError, match=r"without classes.*tfavmae finetune"):
        pretrained.classify(sound)


def test_predict_prints_a_table_and_writes_a_page(own, cli, tmp_path, monkeypatch):
    monkeypatch.chdir(own / "videos")
    media_files.write_text(tmp_path / "<b>.mp4")
    # Of names that begin with a hyphen, none is taken for an option.
    files = (*sorted(os.listdir()), tmp_path / "<b>.mp4")
    page = tmp_path / "page.html"
    done = cli("predict", *files, "--workdir", own / "finetune", "--html", page)
    assert done.status == 0, done
    assert "mean of 2 windows of 2 s" in " ".join(done.out.split())
    assert "<b>.mp4: not a media file" in done.err and "Traceback" not in done.err
    text = page.read_text()
    assert text.count('class="answer"') == 6 and "mean of 2 windows" in text
    assert "&lt;b&gt;.mp4" in text and "<b>.mp4" not in text


def test_predict_prints_json(own, cli):
    files = (own / "videos" / "-0.mp4", "--workdir", own / "finetune")
    done = cli("predict", *files, "--json", "--top", 1)
    (found,) = json.loads(done.out)
    assert found["num_windows"] == 1 and len(found["probabilities"]) == 1


def test_predict_refuses_what_gives_no_answer(own, cli, tmp_path):
    still = tmp_path / "photo.png"
    Image.new("RGB", (80, 60), "red").save(still)
    done = cli("predict", still, "--workdir", own / "finetune")
    assert done.status == 2 and "photo.png: has no audio" in done.err
    done = cli("predict", still, "--workdir", own / "pretrain")
    assert done.status == 2 and "without classes" in done.err
    assert cli("predict", still, "--workdir", own, "--top", 0).status == 2


def test_search_with_several_files(own, cli, tmp_path):
    still = tmp_path / "photo.png"
    Image.new("RGB", (40, 90), "red").save(still)
    page = tmp_path / "page.html"
    query = ("--query", own / "videos" / "-1.mp4", still, "--html", page, "--top", 2)
    done = cli("retrieve", "--workdir", own / "pretrain", *query)
    assert done.status == 0, done
    text = " ".join(done.out.split())
    assert text.count("similarity") == 2 and text.count("from") == 2
    assert "mean of 2 windows" in text and "0:00:0" in text
    assert page.read_text().count('class="retrieval"') == 2


def test_embed_without_output_says_what_there_is(own, cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (40, 90), "red").save("photo.png")
    done = cli("embed", own / "videos", "photo.png", "--workdir", own / "pretrain")
    assert done.status == 0
    assert "10 clips; --output" in done.out
    row = next(line for line in done.out.split("\n") if "photo.png" in line)
    assert "none" in row and "128 numbers" in row


def test_labels_are_needed_to_fine_tune(own, cli):
    done = cli("finetune", "--videos", own / "videos", "--workdir", own / "new")
    assert done.status == 2 and "--labels" in done.err
    assert not (own / "new").exists()


def test_a_start_that_is_refused_can_be_corrected(own, cli, tmp_path):
    files = ("--videos", own / "videos", *SMALL, "--workdir", tmp_path / "run")
    done = cli("pretrain", *files, *SMALL_DECODER, "--set", "data.batch_size=64")
    assert done.status == 2 and "training clips" in done.err
    assert cli("pretrain", *files, *SMALL_DECODER).status == 0
