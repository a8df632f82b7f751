"""A run as a model of MTEB, on a tiny local task; run by `make test-mteb`."""

import pytest

pytestmark = pytest.mark.mteb

_HOW = "run `make test-mteb`, which makes an environment with MTEB and PyTorch"
mteb = pytest.importorskip("mteb", reason=_HOW)
torch = pytest.importorskip("torch", reason=_HOW)

from tfavmae.tasks import mteb_model  # noqa: E402

mteb_model.import_first()  # before the fixtures import TensorFlow

import numpy as np  # noqa: E402
import text_sets  # noqa: E402
from mteb.abstasks.retrieval import AbsTaskRetrieval  # noqa: E402
from mteb.abstasks.task_metadata import TaskMetadata  # noqa: E402

from datasets import Dataset  # noqa: E402
from tfavmae import cli  # noqa: E402
from tfavmae.errors import UserError  # noqa: E402

RATE = 16_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mteb")
    text_sets.build(folder)
    (folder / "recipe.yaml").write_text(text_sets.RECIPE)
    words = ["finetune", "--config", f"{folder}/recipe.yaml", "--workdir"]
    words += [f"{folder}/run", "--set", f"data.data_dir={folder}"]
    assert cli.main(words) == 0
    return folder


@pytest.fixture(scope="module")
def model(folder):
    return mteb_model.load(folder / "run")


@pytest.fixture(scope="module")
def clips(model):
    """The clips of the test split that have audio and video."""
    split = model.run.open_split("test")
    rows = split.rows(keep=("audio", "video"))
    return [split.example(row) for row in rows], model.run.embed_split(split), rows


def audio(clip, rate=RATE):
    samples = clip["audio"].astype("float32") / 2**15
    return {"array": samples.tolist(), "sampling_rate": rate}


def video(clip):
    return clip["frames"].transpose(0, 3, 1, 2).tolist()


def encode(model, **columns):
    kinds = {"task_metadata": None, "hf_split": "test", "hf_subset": "default"}
    return model.encode([columns], **kinds)


def test_embeddings_are_those_of_the_pipeline(model, clips):
    examples, vectors, rows = clips
    columns = {"audio": [audio(x) for x in examples]}
    columns["video"] = [np.array(video(x), "uint8") for x in examples]
    for name, values in columns.items():
        own = vectors[f"{name}_embedding"][rows]
        own = own / np.linalg.norm(own, axis=1, keepdims=True)
        # The pipeline takes the middle 0.35 s of 0.4; here both windows are averaged.
        assert encode(model, **{name: values}).shape == own.shape
        if name == "video":
            np.testing.assert_allclose(encode(model, video=values), own, atol=0.05)
    exact = [{**x, "array": x["array"][: int(0.35 * RATE)]} for x in columns["audio"]]
    found = encode(model, audio=exact)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-5)
    both = encode(model, audio=exact, video=columns["video"])
    mean = found + encode(model, video=columns["video"])
    mean /= np.linalg.norm(mean, axis=1, keepdims=True)
    np.testing.assert_allclose(both, mean, atol=1e-5)


def test_texts_are_those_of_the_run(model):
    texts = ["a low tone", "bright"]
    own = model.run.embed_text(texts)
    own /= np.linalg.norm(own, axis=1, keepdims=True)
    np.testing.assert_allclose(encode(model, text=texts), own, atol=1e-5)


def test_long_audio_is_the_mean_of_its_windows(model, clips):
    length = int(0.35 * RATE)
    one, other = (
        {**audio(x), "array": audio(x)["array"][:length]} for x in clips[0][:2]
    )
    whole = {**one, "array": one["array"] + other["array"]}
    parts = model._embed([*model._items({"audio": [one, other]})], "audio")
    found = model._embed([*model._items({"audio": [whole]})], "audio")
    np.testing.assert_allclose(found[0], parts.mean(0), atol=1e-5)


def test_audio_of_another_rate_is_resampled(model):
    time = np.arange(8_000) / 8_000
    slow = {"array": 0.3 * np.sin(2 * np.pi * 200 * time), "sampling_rate": 8_000}
    time = np.arange(RATE) / RATE
    fast = {"array": 0.3 * np.sin(2 * np.pi * 200 * time), "sampling_rate": RATE}
    stereo = {**fast, "array": np.stack([fast["array"]] * 2)}
    found = encode(model, audio=[slow, fast, stereo])
    np.testing.assert_allclose(found[1], found[2], atol=1e-5)
    assert found[0] @ found[1] > 0.98


def test_an_item_with_nothing_to_read_is_named(model):
    with pytest.raises(UserError, match="item 0 of test has nothing"):
        encode(model, image=[0])


# --- A task ---


class Tones(AbsTaskRetrieval):
    """Eight clips, whose audio is to find their video."""

    metadata = TaskMetadata(
        name="TonesA2V",
        description="Local clips.",
        reference=None,
        dataset={"path": "local", "revision": "1"},
        type="Any2AnyRetrieval",
        category="a2v",
        modalities=["audio", "video"],
        eval_splits=["test"],
        eval_langs=["zxx-Zxxx"],
        main_score="ndcg_at_10",
    )
    examples: list = []

    def load_data(self, *args, **kwargs):
        ids = [f"{i}" for i in range(len(self.examples))]
        queries = {"id": ids, "audio": [audio(x) for x in self.examples]}
        corpus = {"id": ids, "video": [video(x) for x in self.examples]}
        self.dataset = {
            "default": {
                "test": {
                    "queries": Dataset.from_dict(queries),
                    "corpus": Dataset.from_dict(corpus),
                    "relevant_docs": {i: {i: 1} for i in ids},
                    "top_ranked": None,
                }
            }
        }
        self.data_loaded = True


def test_a_task_of_mteb_is_measured(model, clips, monkeypatch):
    """Its nDCG follows from the ranks of our own embeddings."""
    monkeypatch.setattr(Tones, "examples", clips[0])
    assert model.mteb_model_meta.name == "tfavmae/run"
    assert model.mteb_model_meta.modalities == ["audio", "video", "text"]
    results = mteb.evaluate(model, [Tones()], cache=None)
    (scores,) = results.task_results[0].scores["test"]
    queries = encode(model, audio=[audio(x) for x in clips[0]])
    gallery = encode(model, video=[np.array(video(x)) for x in clips[0]])
    similarity = queries @ gallery.T
    ranks = (similarity > np.diag(similarity)[:, None]).sum(1)
    gains = np.where(ranks < 10, 1 / np.log2(ranks + 2), 0)
    assert scores["ndcg_at_10"] == pytest.approx(gains.mean(), abs=2e-3)
