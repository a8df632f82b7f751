"""Folds of a data set and the configs of their runs."""

import pathlib

import pytest

from tfavmae.errors import UserError
from tfavmae.training import folds


def test_folds_are_found_by_name_and_in_order():
    names = ["fold_2", "fold_10", "train", "fold_1", "refold_3", "fold_x"]
    assert folds.fold_splits(names, "set") == ["fold_1", "fold_2", "fold_10"]
    with pytest.raises(UserError, match=r"set: has no folds .*its splits are train"):
        folds.fold_splits(["train", "fold_1"], "set")


def test_each_fold_is_left_out_of_one_run(monkeypatch, small_config):
    class Info:
        full_name = "esc50/default/1.0.0"
        splits = dict.fromkeys(["fold_3", "fold_1", "fold_2"])

    monkeypatch.setattr(folds, "open_info", lambda dataset, data_dir: Info)
    config = small_config("finetune")
    found = folds.fold_configs(config, "runs/esc50")
    assert list(found) == [pathlib.Path(f"runs/esc50/fold_{k}") for k in (1, 2, 3)]
    splits = [(x.data.train_split, x.data.validation_split) for x in found.values()]
    assert splits == [
        ("fold_2+fold_3", "fold_1"),
        ("fold_1+fold_3", "fold_2"),
        ("fold_1+fold_2", "fold_3"),
    ]
    for own in found.values():
        own.data.train_split = config.data.train_split
        own.data.validation_split = config.data.validation_split
        assert own.as_dict() == config.as_dict()
