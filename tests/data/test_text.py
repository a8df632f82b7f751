"""Vocabularies, tokens and captions."""

import json

import numpy as np
import pytest
import tensorflow as tf
import text_sets

from tfavmae.data.pipeline import ClipSpec, open_split
from tfavmae.data.text import (
    CaptionSpec,
    Tokenizer,
    Vocabulary,
    captions_of,
    check_captions,
)
from tfavmae.errors import UserError

SIZE = {"clip_seconds": 0.35, "frame_size": (16, 16)}


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    folder = tmp_path_factory.mktemp("text")
    text_sets.build(folder)
    return open_split("captioned", "train", str(folder))


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer(text_sets.small_vocabulary(), 12)


def words(tokenizer, text):
    """The tokens of a text as strings, without padding."""
    tokens = text_sets.small_vocabulary().tokens
    rows = tokenizer([text])
    count = rows["text_mask"][0].sum()
    return [tokens[i] for i in rows["text_ids"][0][:count]]


# --- Vocabularies ---


def test_a_folder_is_read_and_kept_as_text(tmp_path):
    vocabulary = text_sets.small_vocabulary()
    text_sets.write_vocabulary(tmp_path / "plain", vocabulary)
    text_sets.write_vocabulary(tmp_path / "preset/assets/tokenizer", vocabulary)
    assert Vocabulary.read(tmp_path / "plain") == vocabulary
    assert Vocabulary.read(tmp_path / "preset") == vocabulary
    assert Vocabulary.of_text(*vocabulary.to_text()) == vocabulary


def test_the_bytes_are_those_of_gpt_2():
    tokens = Vocabulary.byte_level().tokens
    assert tokens[:5] == ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
    assert len(set(tokens)) == 5 + 256 + 1
    assert tokens[5 + ord("A")] == "A" and tokens[5 + ord(" ")] == "Ġ"
    assert tokens[5 + ord("\n")] == "Ċ" and tokens[5 + 0xAD] == "Ń"


@pytest.mark.parametrize(
    "change, complaint",
    [
        (lambda ids: ids.pop("A"), "lacks 1 tokens, such as 'A'"),
        (lambda ids: ids.pop("</s>"), "do not count from 0|lacks"),
        (lambda ids: ids.update(A=9999), "do not count from 0 without a gap"),
        (lambda ids: ids.clear(), "lacks 260 tokens"),
    ],
)
def test_a_damaged_vocabulary_is_one_line(change, complaint, tmp_path):
    text_sets.write_vocabulary(tmp_path, text_sets.small_vocabulary())
    ids = json.loads((tmp_path / "vocabulary.json").read_text())
    change(ids)
    if "gap" not in complaint:
        ids = {token: i for i, token in enumerate(ids)}
    (tmp_path / "vocabulary.json").write_text(json.dumps(ids))
    with pytest.raises(UserError, match=complaint) as error:
        Vocabulary.read(tmp_path)
    assert str(tmp_path) in str(error.value) and "\n" not in str(error.value)


def test_a_missing_vocabulary_names_the_files(tmp_path):
    with pytest.raises(UserError, match=r"vocabulary\.json and merges\.txt"):
        Vocabulary.read(tmp_path)


# --- Tokens ---


def test_words_are_merged_as_roberta_merges_them(tokenizer):
    assert words(tokenizer, "a dog") == ["<s>", "a", "Ġdog", "</s>"]
    # A number goes with the space before it, as in GPT-2's pattern.
    assert words(tokenizer, "dog 12") == ["<s>", "d", "og", "Ġ12", "</s>"]
    assert words(tokenizer, "é") == ["<s>", "Ã", "©", "</s>"]


def test_long_texts_are_cut_and_keep_their_end(tokenizer):
    rows = tokenizer(["z" * 40, "z"])
    assert rows["text_ids"].shape == rows["text_mask"].shape == (2, 12)
    assert rows["text_ids"].dtype == rows["text_mask"].dtype == np.int32
    assert rows["text_mask"].sum(1).tolist() == [12, 3]
    assert rows["text_ids"][0, -1] == rows["text_ids"][1, 2] == 2  # </s>
    assert (rows["text_ids"][1, 3:] == 1).all()  # <pad>


def test_a_graph_gives_the_same_tokens(tokenizer):
    texts = ["a dog", "dog 12!", "", "  two\nlines"]
    rows = tokenizer(texts)
    found = tf.data.Dataset.from_tensor_slices(texts).map(tokenizer.in_graph)
    for i, one in enumerate(found.as_numpy_iterator()):
        for name in rows:
            np.testing.assert_array_equal(one[name], rows[name][i])


def test_no_text_is_no_row(tokenizer):
    assert tokenizer([])["text_ids"].shape == (0, 12)


# --- Captions ---


def test_captions_of_clips_are_read(split):
    found = captions_of(split, "captions", np.arange(20))
    by_id = dict(zip(split.ids(), found, strict=True))
    assert by_id["train-0"] == ["a low tone, dark", "dark: low 0"]
    assert by_id["train-3"] == ["a high tone, bright", "bright: high 3"]
    assert by_id["train-4"] == []
    one = captions_of(split, "query", [split.ids().index("train-1")])
    assert one == [["a high tone, dark"]]


@pytest.mark.parametrize("feature", ["label", "id", "audio"])
def test_what_is_no_caption_names_the_captions(feature, split):
    with pytest.raises(UserError, match="texts that it has: captions, query"):
        check_captions(split, feature)


def test_batches_hold_one_caption_of_each_clip(split):
    tokenizer = Tokenizer(Vocabulary.byte_level(), 24)
    spec = ClipSpec(**SIZE, captions=CaptionSpec("captions", tokenizer))
    expected = [
        {tuple(tokenizer([text])["text_ids"][0]) for text in own or [""]}
        for own in captions_of(split, "captions", np.arange(20))
    ]
    seen = [set() for _ in range(20)]
    batches = split.training_batches(spec, 20, seed=3, num_steps=12)
    for batch in batches.as_numpy_iterator():
        assert batch["text_ids"].shape == (20, 24)
        for row, ids, present in zip(
            *(batch[k] for k in ("example_index", "text_ids", "text_present")),
            strict=True,
        ):
            seen[row].add(tuple(ids))
            assert present == (split.ids()[row] not in BARE)
    # In twelve epochs each caption was drawn, and nothing else.
    assert seen == expected
    again = next(iter(split.training_batches(spec, 20, seed=3, start_step=11)))
    np.testing.assert_array_equal(again["text_ids"], batch["text_ids"])
    one = next(iter(split.evaluation_batches(spec, 20)))
    first = [own[0] if own else "" for own in captions_of(split, "captions", range(20))]
    np.testing.assert_array_equal(one["text_ids"], tokenizer(first)["text_ids"])


BARE = {f"train-{n}" for n in (4, 9, 14, 19)}


def test_clips_are_cut_the_same_with_captions(split):
    spec = ClipSpec(**SIZE)
    captions = CaptionSpec("query", Tokenizer(Vocabulary.byte_level(), 24))
    with_text = ClipSpec(**SIZE, captions=captions)
    plain, other = (
        next(iter(split.training_batches(x, 8, seed=1, num_steps=1)))
        for x in (spec, with_text)
    )
    for name in plain:
        np.testing.assert_array_equal(plain[name], other[name])
