"""What the demo says of the file that it asked its export about."""

import contextlib
import types

import numpy as np
import pytest

from tfavmae.demo import asking
from tfavmae.errors import UserError


class Split:
    """Clips, of which the second is the first with audio and video."""

    def __init__(self, ids, classes=None):
        self.ids_, self.classes = ids, classes

    def ids(self):
        return self.ids_

    def rows(self, keep):
        assert keep == ("audio", "video")
        return np.array([1])

    def class_of_clips(self):
        return self.classes


def test_the_file_of_a_held_out_clip(tmp_path):
    for name in ("film.webm", "validation-1.mp4"):
        (tmp_path / name).touch()
    split = Split(["a.mp4@0", "film.webm@10"])
    assert asking.held_out_file(split, tmp_path) == (tmp_path / "film.webm", "")
    split = Split(["validation-0", "validation-1"], ["dog", "cat"])
    found = asking.held_out_file(split, tmp_path)
    assert found == (tmp_path / "validation-1.mp4", "cat")
    with pytest.raises(UserError, match=r"gone\.mp4: is not there any more"):
        asking.held_out_file(Split(["a", "gone"]), tmp_path)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (
            {"probabilities": [{"label": "cat", "probability": 0.75}]},
            "a.mp4, which is cat: cat 75% (0.50 s)",
        ),
        (
            {
                "verb_probabilities": [{"label": "take", "probability": 0.5}],
                "noun_probabilities": [{"label": "cup", "probability": 0.25}],
            },
            "take 50%, cup 25%",
        ),
        ({"score": 0.1234}, "a cosine of 0.123"),
        ({"audio_embedding": [0.0] * 8}, "audio_embedding of 8 numbers"),
    ],
)
def test_the_answer_is_a_sentence(answer, said):
    asked = asking.Asked("x/a.mp4", "cat", "classify", {**answer, "windows": [1]}, 0.5)
    assert said in str(asked) and str(asked).startswith("Asked by the demo")
    assert asked.to_dict()["answer"] == answer


def test_a_server_that_is_not_installed_is_said(monkeypatch):
    monkeypatch.setattr(asking, "missing_packages", lambda: ["uvicorn"])
    asked = asking.ask("export", "a.mp4", "")
    assert "did not ask" in str(asked) and "tfavmae[serve]" in str(asked)


def test_the_first_signature_of_files_is_asked(monkeypatch):
    class Client:
        def __init__(self, model, url):
            assert (model, url) == ("shapes", "http://here")

        def signatures(self):
            return {"embed": {}, "similarity": {}}

        def ask(self, verb, file, top):
            return {"score": 1.0, "verb": verb}

    @contextlib.contextmanager
    def server(export):
        yield types.SimpleNamespace(models=("shapes",), url="http://here")

    monkeypatch.setattr(asking, "RestClient", Client)
    monkeypatch.setattr(asking, "local_server", server)
    assert asking.ask("export", "a.mp4", "").answer["verb"] == "similarity"
