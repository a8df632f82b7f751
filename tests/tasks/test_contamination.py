"""Contamination between data sets: which ids can be compared."""

import types

import pytest

from tfavmae.tasks import contamination


class FakeSplit:
    """Ids of a data set."""

    def __init__(self, name, ids, fingerprint):
        self.info = types.SimpleNamespace(full_name=f"{name}/1.0.0", data_dir="/x")
        self.own, self.fingerprint, self.name = ids, fingerprint, "train"

    def ids(self):
        return self.own


def run_on(split):
    entry = {"run": "p", "stage": "pretrain", "dataset": split.info.full_name}
    entry |= {"split": "train", "num_examples": 1, "data_dir": None}
    entry |= {"fingerprint": split.fingerprint}
    return types.SimpleNamespace(ancestors=[entry], data={})


AUDIOSET = ["aaaaaaaaaaa_30.000", "bbbbbbbbbbb_0.000", "a-c_d-e_f-g_12.000"]


@pytest.mark.parametrize(
    "name, ids, shared, related, reason",
    [
        # The same second of the same video; another second; another video.
        (
            "audiocaps",
            ["aaaaaaaaaaa_30", "bbbbbbbbbbb_40", "ccccccccccc_0"],
            *(1, 1, ""),
        ),
        ("vggsound", ["a-c_d-e_f-g_000012"], 1, 0, ""),
        ("kinetics400", ["bbbbbbbbbbb_000000_000010"], 1, 0, ""),
        ("msr_vtt", ["video0", "video1"], None, None, "not comparable"),
        # Within a data set any id counts.
        ("audioset", ["bbbbbbbbbbb_0.000", "bbbbbbbbbbb_7.500"], 1, 1, ""),
    ],
)
def test_segments_of_youtube_are_compared(
    name, ids, shared, related, reason, monkeypatch
):
    trained = FakeSplit("audioset", AUDIOSET, "a")
    monkeypatch.setattr(contamination, "_open", lambda one, split: trained)
    (found,) = contamination.check(run_on(trained), FakeSplit(name, ids, "b"))
    assert (found.num_shared, found.num_same_source) == (shared, related)
    assert found.num_clips == len(ids) and reason in found.reason


def test_windows_of_one_file_are_of_one_source(monkeypatch):
    trained = FakeSplit("clip_folder", ["a.mp4", "a.mp4@10.0"], "a")
    monkeypatch.setattr(contamination, "_open", lambda one, split: trained)
    split = FakeSplit("clip_folder", ["a.mp4@10.0", "a.mp4@20.0", "b.mp4"], "b")
    (found,) = contamination.check(run_on(trained), split, [0, 1, 1, 2])
    assert (found.num_shared, found.num_same_source, found.num_clips) == (1, 1, 3)
    assert "1 of 3 clips, and 1 more of files" in str(found)
