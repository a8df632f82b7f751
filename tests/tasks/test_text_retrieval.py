"""Recall by captions, by hand and on a run of four steps."""

import json

import numpy as np
import optional
import pytest
import text_sets

import tfavmae
from tfavmae import cli as command_line
from tfavmae.errors import UserError
from tfavmae.tasks import search, text_retrieval

# --- By hand ---


def test_every_caption_is_a_query_and_any_of_them_finds_its_clip():
    """Three clips on the axes; captions of the second point at the first and third."""
    clips = np.eye(3)
    texts = np.array(
        [[1.0, 0, 0], [0.9, 0.1, 0], [0.8, 0.3, 0.5], [0, 0.9, 0.1], [0, 0.2, 1.0]]
    )
    owners = np.array([0, 0, 1, 1, 2])
    by_text, by_clip = text_retrieval.compare(texts, clips, owners, (1, 2, 3))
    # The third text is nearest to clip 0, then 2, and its own clip comes last.
    assert by_text.recall[1].value == 4 / 5
    assert by_text.recall[2].value == 4 / 5
    assert by_text.recall[3].value == 1.0
    assert by_text.median_rank == 1.0
    # Clip 1 is found by its second caption.
    assert [by_clip.recall[k].value for k in (1, 2)] == [1.0, 1.0]
    assert by_text.chance == {1: 1 / 3, 2: 2 / 3, 3: 1.0}
    assert by_clip.chance[1] == pytest.approx((2 / 5 + 2 / 5 + 1 / 5) / 3)
    # Two of five captions at random: 1 - C(3, 2) / C(5, 2) for a clip with two.
    assert by_clip.chance[2] == pytest.approx((2 * (1 - 3 / 10) + (1 - 6 / 10)) / 3)


def test_ties_score_as_chance():
    """All alike: whichever way the ties are broken, one in n is found."""
    by_text, by_clip = text_retrieval.compare(
        np.ones((4, 2)), np.ones((4, 2)), np.arange(4), (1, 2)
    )
    for one in (by_text, by_clip):
        assert one.recall[1].value == pytest.approx(0.25)
        assert one.recall[2].value == pytest.approx(0.5)


def test_blocks_do_not_show(monkeypatch):
    rng = np.random.default_rng(0)
    texts, clips = rng.normal(size=(30, 4)), rng.normal(size=(10, 4))
    owners = np.repeat(np.arange(10), 3)
    whole = text_retrieval.compare(texts, clips, owners, (1, 5))
    monkeypatch.setattr(text_retrieval, "_BLOCK", 7)
    assert text_retrieval.compare(texts, clips, owners, (1, 5)) == whole
    # The rank of each text's clip, counted one by one.
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (texts, clips)]
    similarity = unit[0] @ unit[1].T
    own = similarity[np.arange(30), owners]
    ranks = (similarity > own[:, None]).sum(1)
    assert whole[0].recall[5].value == pytest.approx(np.mean(ranks < 5))


def test_a_model_that_diverged_is_an_error():
    bad = np.full((2, 2), np.nan)
    with pytest.raises(UserError, match="not finite"):
        text_retrieval.compare(bad, np.eye(2), np.arange(2), (1,))


# --- On a run ---


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("captioned")
    text_sets.build(folder)
    (folder / "recipe.yaml").write_text(text_sets.RECIPE)
    assert command_line.main(finetune(folder)) == 0
    return folder


def finetune(folder, name="run", *changes):
    words = ["finetune", "--config", f"{folder}/recipe.yaml", "--workdir"]
    words += [f"{folder}/{name}", "--set", f"data.data_dir={folder}"]
    return [*words, *(x for change in changes for x in ("--set", change))]


@pytest.fixture(scope="module")
def run(folder):
    return tfavmae.load(folder / "run")


def test_captions_are_searched_both_ways(folder, cli):
    done = cli("retrieve", "--by", "text", "--workdir", folder / "run")
    assert done.status == 0, done
    found = json.loads((folder / "run" / "retrieval_text_test.json").read_text())
    names = ["text_to_audio", "audio_to_text", "text_to_video", "video_to_text"]
    assert list(found["directions"]) == names
    # Of ten clips two have no caption, and two others no video.
    assert (found["num_clips"], found["num_captions"]) == (8, 8)
    assert (found["num_left_out"], found["captions"]) == (2, "query")
    assert list(found["num_queries"].values()) == [8, 8, 6, 6]
    for one in found["directions"].values():
        assert 0 <= one["recall"]["1"]["value"] <= one["recall"]["5"]["value"] <= 1
    assert "captioned/1.0.0 train): 0 of 10 clips" in done.out
    words = ("--set", "data.validation_captions=captions", "--split", "train")
    done = cli("retrieve", "--by", "text", "--workdir", folder / "run", *words)
    found = json.loads((folder / "run" / "retrieval_text_train.json").read_text())
    assert (found["num_clips"], found["num_captions"]) == (16, 32)
    assert list(found["num_queries"].values()) == [32, 16, 24, 12]


def test_the_figures_are_those_of_the_embeddings(folder, run):
    split = run.open_split("test")
    result = text_retrieval.evaluate(text_retrieval.embed(run, split))
    vectors = run.embed_split(split)
    kept = [i for i, x in enumerate(split.ids()) if int(x[5:]) % 5 != 4]
    numbers = [int(split.ids()[i][5:]) for i in kept]
    texts = [
        f"a {('low', 'high')[n % 2]} tone, {('dark', 'bright')[n // 2 % 2]}"
        for n in numbers
    ]
    found = run.embed_text(texts)
    assert found.shape == (8, 12) and found.dtype == np.float32
    expected, _ = text_retrieval.compare(
        found, vectors["audio_embedding"][kept], np.arange(8), (1, 5, 10)
    )
    assert result.directions["text_to_audio"] == expected


def test_a_page_of_captions(folder, run, cli, tmp_path):
    """Its searches are those of the embeddings, and say which results are right."""
    page = tmp_path / "page.html"
    done = cli("retrieve", "--by", "text", "--workdir", folder / "run", "--html", page)
    assert done.status == 0 and str(page) in done.out, done
    found = text_retrieval.embed(run, run.open_split("test"))
    searches = text_retrieval.examples(found, num_queries=2, top=8)
    names = ["text_to_audio", "audio_to_text", "text_to_video", "video_to_text"]
    assert [one.direction for one in searches] == [n for n in names for _ in range(2)]
    unit = found.text_vectors / np.linalg.norm(found.text_vectors, axis=1)[:, None]
    for one in searches:
        asked_with, among = one.direction.split("_to_")
        rows, clips = found.clips[among if asked_with == "text" else asked_with]
        clips = clips / np.linalg.norm(clips, axis=1)[:, None]
        if asked_with == "text":
            expected = clips @ unit[one.query]
            own = [row == found.owners[one.query] for row in one.results]
        else:
            texts = np.isin(found.owners, rows)
            expected = unit[texts] @ clips[rows == one.query][0]
            own = [found.owners[text] == one.query for text in one.results]
        np.testing.assert_allclose(one.similarities, np.sort(expected)[::-1], atol=1e-6)
        assert one.is_right == own and sum(one.is_right) == 1
    text = page.read_text()
    assert text.count('class="said') > 12 and "query: words" in text
    assert all(one in text for one in set(found.texts[:1])) and "R@1" in text


def test_texts_do_not_depend_on_their_neighbours(run):
    texts = ["a low tone", "bright", "a dog " * 20]
    together = run.embed_text(texts)
    for i, text in enumerate(texts):
        np.testing.assert_allclose(run.embed_text([text])[0], together[i], atol=1e-5)
    assert run.embed_text([]).shape == (0, 12)


@pytest.mark.slow
def test_words_find_places_in_files(folder, run, cli, tmp_path, monkeypatch):
    """Ordered by the cosine similarity of the words and of what is heard and seen."""
    optional.need("lancedb")
    monkeypatch.setenv("COLUMNS", "300")
    index, words = tmp_path / "index", "a low tone, dark"
    where = ("--workdir", folder / "run", "--index", index, "--split", "test")
    done = cli("index", tmp_path / "clips", *where)
    assert done.status == 0 and "10 files added" in done.out, done
    page = ("--html", tmp_path / "page.html")
    done = cli("search", "--index", index, "--query", words, "--top", 4, *page)
    assert done.status == 0, done
    assert f"<blockquote>{words}</blockquote>" in page[1].read_text()
    assert f"their audio and video beside the text of {words}" in done.out
    store = search.open_index(str(index), run)
    hits, _, _ = search.find(store, search.query_vector(run, words), top=20)
    (asked,) = run.embed_text([words])
    asked /= np.linalg.norm(asked)
    expected = {
        file: asked @ store.vectors_at(file, 0.0)["fused"] for file in store.files()
    }
    assert [hit.file for hit in hits] == sorted(expected, key=expected.get)[::-1]
    shown = [line for line in done.out.splitlines() if ".mp4" in line or ".wav" in line]
    assert len(shown) == 4 and all(
        f"{expected[hit.file]:.3f}" in line and hit.file in line
        for line, hit in zip(shown, hits, strict=False)
    )


def test_an_empty_text_is_refused(run):
    with pytest.raises(UserError, match="must have words"):
        run.embed_text(["a dog", "  "])


def test_a_run_without_text_says_so(folder, cli):
    """A classifier of the same clips would do; so does the encoder of the run alone."""
    recipe = text_sets.RECIPE.replace("stage: finetune", "stage: pretrain")
    lines = [x for x in recipe.splitlines() if "captions:" not in x]
    recipe = "\n".join(lines).replace(", projection_dim: 12}", "}")
    (folder / "pretrain.yaml").write_text(recipe)
    words = ["pretrain", "--config", folder / "pretrain.yaml", "--workdir"]
    words += [folder / "plain", "--set", f"data.data_dir={folder}"]
    words += ["--set", "trainer.num_steps=2"]
    for modality in ("audio", "video"):
        words += ["--set", f"model.options.masking.{modality}.ratio=0.5"]
    assert cli(*words).status == 0
    done = cli("retrieve", "--by", "text", "--workdir", folder / "plain")
    assert done.status == 2 and done.err.count("\n") == 1
    assert "has no text encoder" in done.err and "docs/text.md" in done.err


@pytest.mark.parametrize(
    "changes, complaint",
    [
        (["data.captions=label"], "texts that it has: captions, query"),
        (["data.label=label"], "data.captions and data.label exclude each other"),
        (["model.text.vocabulary=/nowhere"], "must hold vocabulary.json"),
        (["model.text.preset=/nowhere"], "model.text.preset: /nowhere: no preset"),
        (["model.text.max_tokens=40"], "`max_tokens` must be 3 to"),
        (["data.services=[a:1]"], "data.services do not tokenize"),
        (["model.options.temperature=0"], "`temperature` must be positive"),
    ],
)
def test_wrong_settings_are_one_line(changes, complaint, folder, cli):
    done = cli(*finetune(folder, "wrong", *changes))
    assert done.status == 2 and done.err.count("\n") == 1, done
    assert complaint in done.err


def test_captions_are_for_fine_tuning(folder, cli):
    words = finetune(folder, "wrong", "stage=pretrain")
    done = cli("pretrain", *words[1:])
    assert done.status == 2 and "data.captions is for fine-tuning" in done.err


@pytest.mark.slow
def test_a_run_that_continues_ends_with_the_same_weights(folder, cli):
    """Dropout and the draw of captions included."""
    constant = "optimizer.schedule=constant"
    assert cli(*finetune(folder, "whole", constant)).status == 0
    assert cli(*finetune(folder, "half", constant, "trainer.num_steps=2")).status == 0
    config = folder / "half" / "config.yaml"
    config.write_text(config.read_text().replace("num_steps: 2\n", "num_steps: 4\n"))
    (folder / "half" / "model.keras").unlink()
    assert cli("finetune", "--workdir", folder / "half").status == 0
    whole, half = (tfavmae.load(folder / x).run.model for x in ("whole", "half"))
    for first, second in zip(whole.weights, half.weights, strict=True):
        np.testing.assert_array_equal(first, second, err_msg=first.path)


@pytest.mark.slow
def test_a_preset_of_kerashub_gives_sizes_weights_and_vocabulary(folder, cli):
    hub = optional.need("keras_hub")
    vocabulary = text_sets.small_vocabulary()
    backbone = hub.models.RobertaBackbone(
        *(len(vocabulary.tokens), 2, 2, 8, 12), max_sequence_length=24
    )
    preset = folder / "roberta"
    backbone.save_to_preset(str(preset))
    text_sets.write_vocabulary(preset / "assets" / "tokenizer", vocabulary)
    sizes = ("hidden_dim", "num_heads", "mlp_dim", "num_layers", "num_positions")
    changes = [f"model.text.{name}=null" for name in sizes]
    changes += [f"model.text.preset={preset}", "model.text.max_tokens=20"]
    changes += ["optimizer.learning_rate=1e-12", "trainer.num_steps=2"]
    done = cli(*finetune(folder, "preset", *changes))
    assert done.status == 0, done
    assert f"text encoder from {preset}" in done.err
    encoder = tfavmae.load(folder / "preset").run.model.text_encoder
    for found, expected in zip(
        encoder.backbone.get_weights(), backbone.get_weights(), strict=True
    ):
        np.testing.assert_allclose(found, expected, atol=1e-6)
    assert encoder.vocabulary.split("\n") == list(vocabulary.tokens)
    changes[0] = "model.text.hidden_dim=16"
    done = cli(*finetune(folder, "other", *changes))
    assert done.status == 2 and "is not that of the preset" in done.err


def test_the_folder_of_a_preset_reads_text_by_itself(folder, run, tmp_path):
    tfavmae.save_preset(folder / "run", tmp_path / "shared")
    again = tfavmae.load(tmp_path / "shared")
    np.testing.assert_array_equal(
        again.embed_text(["a low tone"]), run.embed_text(["a low tone"])
    )
