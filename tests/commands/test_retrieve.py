"""`retrieve`: subsets, views and pages; figures that no batch size changes."""

import json
import pathlib
import re

import numpy as np
import pytest

import tfavmae
from tfavmae.errors import InputWarning
from tfavmae.tasks import subsets


@pytest.fixture
def retrieve(shapes_run, cli):
    def command(*words):
        done = cli("retrieve", "--workdir", shapes_run, *words)
        assert done.status == 0, done
        (path,) = re.findall(r"^.*/retrieval_.*\.json$", done.out, re.MULTILINE)
        return json.loads(pathlib.Path(path).read_text())

    return command


@pytest.fixture(scope="module")
def split(shapes_run):
    return tfavmae.load(shapes_run).open_split()


def test_figures_are_the_same_for_any_batch_size(retrieve):
    """Repeated clips that fill up a batch are neither queries nor found."""
    found = [retrieve("--set", f"data.batch_size={n}") for n in (1, 4, 7, 15, 40)]
    assert found[0]["num_clips"] + found[0]["num_left_out"] == 15
    assert all(one == found[0] for one in found)


def test_views_are_averaged(shapes_run, split, retrieve):
    run = tfavmae.load(shapes_run)
    one, four = (run.embed_split(split, num_views=n) for n in (1, 4))
    batches = run.batches(split, num_views=4)
    views = [run.run.model(x)["video_embedding"].numpy() for x in batches]
    views = np.concatenate(views)[: 4 * 15].reshape(15, 4, -1)
    np.testing.assert_allclose(four["video_embedding"], views.mean(1), atol=1e-5)
    assert np.abs(one["video_embedding"] - four["video_embedding"]).max() > 1e-3
    assert retrieve("--views", 4)["num_clips"] == retrieve()["num_clips"]


def test_a_part_does_not_replace_the_figures_of_the_whole(
    shapes_run, retrieve, tmp_path
):
    whole = retrieve()
    ids = tmp_path / "mine.txt"
    ids.write_text("\n".join(tfavmae.load(shapes_run).open_split().ids()[:9]))
    parts = [retrieve("--gallery", 3), retrieve("--ids", ids), retrieve("--views", 2)]
    assert parts[0]["num_clips"] == 3
    names = ["first_3", "of_mine", "2_views", ""]
    names = [f"retrieval_{n}_validation.json".replace("__", "_") for n in names]
    found = [json.loads((shapes_run / name).read_text()) for name in names]
    assert found == [*parts, whole]


def test_the_first_of_each_class(split, retrieve):
    rows = subsets.of_each_class(split, 1)
    labels = split.labels("label")[rows]
    assert len(set(labels)) == len(labels) == len(rows)
    complete = split.rows(keep=("audio", "video"))
    assert set(labels) == set(split.labels("label")[complete])
    for row, label in zip(rows, labels, strict=True):
        same = [r for r in complete if split.labels("label")[r] == label]
        assert row == same[0]
    assert retrieve("--per-class", 1)["num_clips"] == len(rows)


def test_clips_of_several_classes_count_for_each(split):
    rows = subsets.of_each_class(split, 2)
    assert 0 < len(rows) <= 24

    class Multi:
        label_features = ("events",)
        info = split.info

        def labels(self, name):
            return np.array([[1, 0, 0], [1, 1, 0], [1, 1, 0], [0, 1, 1], [0, 1, 0]])

        def rows(self, keep):
            return np.arange(5)

    assert subsets.of_each_class(Multi(), 1).tolist() == [0, 1, 3]
    assert subsets.of_each_class(Multi(), 2).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("form", ["lines", "table", "json"])
def test_clips_of_a_list(form, split, retrieve, tmp_path, cli, shapes_run):
    ids = split.ids()
    complete = split.rows(keep=("audio", "video"))
    wanted = [ids[row] for row in complete[[4, 1, 1]]] + ["gone"]
    texts = {
        "lines": "\n".join(wanted),
        "table": "".join(f"{name},dog\n" for name in wanted),
        "json": json.dumps({"data": [{"video_id": name} for name in wanted]}),
    }
    path = tmp_path / "ids.txt"
    path.write_text(texts[form])
    with pytest.warns(InputWarning, match="1 of its 3 ids are not in validation"):
        assert subsets.of_ids(split, path).tolist() == sorted(complete[[4, 1]])
    assert retrieve("--ids", path)["num_clips"] == 2
    path.write_text("nothing\n")
    done = cli("retrieve", "--workdir", shapes_run, "--ids", path)
    assert done.status == 2 and "none of its 1 ids, such as 'nothing'" in done.err


def test_an_id_of_a_video_stands_for_its_clip(split, tmp_path):
    class Cut:
        name, info = "eval", split.info

        def ids(self):
            return ["-4gqARaEJE_0.000", "a_b_10.000", "c_5.000"]

    path = tmp_path / "ids.txt"
    path.write_text("c\n-4gqARaEJE\na_b_10.000\n")
    assert subsets.of_ids(Cut(), path).tolist() == [0, 1, 2]


def test_a_page_of_any_measurement(retrieve, tmp_path):
    page = tmp_path / "page.html"
    found = retrieve("--html", page)
    text = page.read_text()
    assert f"{found['num_clips']} clips evaluated" in text
    assert "Asked with a sound" in text and "Asked with a picture" in text
