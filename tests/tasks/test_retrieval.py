"""Retrieval in both directions: recall, chance, misses and examples."""

import io
import json

import numpy as np
import pytest
from rich.console import Console

from tfavmae.errors import UserError
from tfavmae.tasks import retrieval


def made_embeddings(num_clips=40, hidden_dim=16, noise=0.0, seed=0):
    rng = np.random.default_rng(seed)
    audio = rng.normal(size=(num_clips, hidden_dim)).astype("float32")
    video = audio + noise * rng.normal(size=audio.shape).astype("float32")
    return {
        "example_index": np.arange(100, 100 + num_clips),
        "audio_present": np.ones(num_clips, bool),
        "video_present": np.ones(num_clips, bool),
        "audio_embedding": audio,
        "video_embedding": video,
    }


def test_perfect_pairs_are_all_found():
    result = retrieval.evaluate(made_embeddings())
    for direction in result.directions.values():
        assert direction.recall[1].value == 1
        assert direction.median_rank == 1
        assert direction.chance == {1: 1 / 40, 5: 5 / 40, 10: 10 / 40}


def test_unrelated_pairs_score_chance():
    embeddings = made_embeddings(num_clips=1000)
    embeddings["video_embedding"] = made_embeddings(1000, seed=5)["audio_embedding"]
    result = retrieval.evaluate(embeddings, ks=(10,))
    for direction in result.directions.values():
        assert direction.recall[10].low <= 0.01 <= direction.recall[10].high
        assert direction.median_rank == pytest.approx(500.5, abs=60)


def test_clips_without_a_modality_are_left_out_and_counted():
    embeddings = made_embeddings()
    embeddings["audio_present"][3] = False
    embeddings["audio_embedding"][3] = np.nan
    embeddings["video_present"][7] = False
    embeddings["video_embedding"][7] = np.nan
    result = retrieval.evaluate(embeddings)
    assert (result.num_clips, result.num_left_out) == (38, 2)
    assert result.directions["audio_to_video"].recall[1].value == 1


def test_misses_are_queries_that_fail_and_no_part_of_the_gallery():
    embeddings = made_embeddings()
    silent = np.arange(40) < 10
    embeddings["counts_as_miss"] = silent
    embeddings["audio_embedding"][silent] = 1.0  # would be found, and found often
    result = retrieval.evaluate(embeddings, ks=(1, 30))
    assert (result.num_clips, result.num_misses, result.num_left_out) == (30, 10, 0)
    for direction in result.directions.values():
        assert direction.recall[1].value == direction.recall[30].value == 30 / 40
        assert direction.chance == {1: 1 / 40, 30: 30 / 40}
        assert direction.median_rank == 1
    assert not set(retrieval.paired(embeddings)["example_index"]) & set(range(100, 110))


def test_both_directions_differ_where_they_should():
    # Each sound has its own picture, yet all pictures are nearest to sound 0.
    audio = np.array([[1.0, 0.0], [0.9, 0.1], [0.8, 0.2]])
    video = np.array([[1.0, 0.0], [1.0, 0.001], [1.0, 0.002]])
    embeddings = made_embeddings(3) | {
        "audio_embedding": audio,
        "video_embedding": video,
    }
    result = retrieval.evaluate(embeddings, ks=(1,))
    # Every sound is nearest to the picture with the largest angle, picture 2.
    assert result.directions["audio_to_video"].recall[1].value == pytest.approx(2 / 3)
    assert result.directions["video_to_audio"].recall[1].value == pytest.approx(1 / 3)


@pytest.mark.parametrize("ties", ["expected", "repeated"])
def test_intervals_are_over_files(ties):
    embeddings = made_embeddings()
    silent = np.arange(40) >= 30
    embeddings["counts_as_miss"] = silent
    # Clips 100 to 129 are found, those of the last file are misses.
    files = np.concatenate([np.full(100, 9), np.repeat([0, 1, 2, 3], 10)])
    result = retrieval.evaluate(embeddings, ks=(1,), files=files, ties=ties)
    assert (result.num_clips, result.num_misses, result.num_files) == (30, 10, 4)
    for direction in result.directions.values():
        recall = direction.recall[1]
        # The mean of four draws of 1, 1, 1 and 0.
        assert (recall.value, recall.low, recall.high) == (0.75, 0.25, 1.0)
    console = Console(width=120, record=True, file=io.StringIO())
    result.print(console)
    text = " ".join(console.export_text().split())
    assert "30 clips of 4 files evaluated" in text and "intervals over files" in text


def test_table_names_the_count_and_chance():
    embeddings = made_embeddings()
    embeddings["video_present"][7] = False
    console = Console(width=120, record=True, file=io.StringIO())
    retrieval.evaluate(embeddings).print(console)
    text = console.export_text()
    assert "39 clips evaluated, 1 left out" in text
    assert "R@10" in text and "chance" in text and "median rank" in text


def test_json_round_trip(tmp_path):
    result = retrieval.evaluate(made_embeddings(noise=1.0))
    stored = json.loads(result.to_json(tmp_path / "retrieval.json"))
    assert json.loads((tmp_path / "retrieval.json").read_text()) == stored
    recall = stored["directions"]["video_to_audio"]["recall"]["5"]
    assert recall["value"] == result.directions["video_to_audio"].recall[5].value


def test_examples_are_ranked_lists_with_the_rank_of_the_right_clip():
    found = retrieval.examples(made_embeddings(noise=2.0), num_queries=3, top=5)
    assert [one.direction for one in found] == [
        *["audio_to_video"] * 3,
        *["video_to_audio"] * 3,
    ]
    for one in found:
        assert one.similarities == sorted(one.similarities, reverse=True)
        assert len(one.results) == 5 and min(one.results) >= 100
        if one.rank <= 5:
            assert one.results[one.rank - 1] == one.query
        else:
            assert one.query not in one.results


def test_search_returns_the_nearest_rows_first():
    gallery = np.array([[0.0, 1.0], [3.0, 0.1], [1.0, 1.0]])
    order, similarity = retrieval.search(np.array([2.0, 0.0]), gallery, top=2)
    assert order.tolist() == [1, 2]
    assert similarity == pytest.approx([0.99944, 0.70711], abs=1e-5)


def test_a_search_looks_through_clips_that_lack_the_modality_of_the_query():
    embeddings = made_embeddings(5)
    embeddings["audio_present"][3] = embeddings["video_present"][1] = False
    embeddings["audio_embedding"][3] = embeddings["video_embedding"][1] = np.nan
    values, index = retrieval.gallery(embeddings, "video")
    assert index.tolist() == [100, 102, 103, 104] and np.isfinite(values).all()
    embeddings["video_present"][:] = False
    with pytest.raises(UserError, match="none of the 5 clips to search has video"):
        retrieval.gallery(embeddings, "video")


def test_a_model_of_one_modality_is_refused():
    embeddings = made_embeddings()
    del embeddings["video_embedding"]
    with pytest.raises(UserError, match="embeddings of both modalities, video"):
        retrieval.evaluate(embeddings)


def test_a_split_without_pairs_is_refused():
    embeddings = made_embeddings()
    embeddings["audio_present"][:] = False
    with pytest.raises(UserError, match="none of the 40 clips has both"):
        retrieval.evaluate(embeddings)


def test_a_diverged_model_is_named():
    embeddings = made_embeddings()
    embeddings["audio_embedding"][0, 0] = np.inf
    with pytest.raises(UserError, match="audio embeddings are not finite"):
        retrieval.evaluate(embeddings)


def test_figures_do_not_depend_on_the_order_of_the_rows():
    embeddings = made_embeddings(noise=1.5)
    order = np.random.default_rng(1).permutation(40)
    again = {name: x[order] for name, x in embeddings.items()}
    expected = retrieval.evaluate(embeddings).to_dict()
    assert retrieval.evaluate(again).to_dict() == expected
    assert retrieval.examples(again) == retrieval.examples(embeddings)
