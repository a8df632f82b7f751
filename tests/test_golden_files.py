"""The reader of golden files overlooks nothing."""

import golden_files
import numpy as np
import pytest

from tfavmae.errors import UserError
from tfavmae.weights import cav_mae, scenic


@pytest.fixture
def a_file(tmp_path, monkeypatch):
    monkeypatch.setattr(golden_files, "GOLDEN", tmp_path)
    (tmp_path / "paper").mkdir()
    path = tmp_path / "paper" / "model_1.npz"
    np.savez(path, loss=1.0, **{"param/a": np.ones(2, "float16"), "other/b": 2.0})
    return path


def check(path, reads, **options):
    @golden_files.each_file("paper", "model_*.npz", **options)
    def compares(path):
        reads(golden_files.load(path))

    compares(path)


def test_an_entry_that_no_test_reads_fails(a_file):
    def reads_some(golden):
        assert golden["loss"] == 1.0 and "other/b" in golden
        assert golden_files.below(golden, "param/")["a"].dtype == np.float32

    with pytest.raises(AssertionError, match=r"1 entries were not compared.*other/b"):
        check(a_file, reads_some)
    check(a_file, reads_some, entries="loss|param/.*")


def test_a_test_that_reads_all_passes(a_file):
    check(a_file, lambda golden: [golden.get(name) for name in golden])


def test_a_folder_that_is_absent_yields_no_test():
    test = golden_files.each_file("no such folder", "*.npz")(lambda path: None)
    assert test.__test__ is False


SIZES = {"hidden_size": 8, "num_heads": 2, "mlp_dim": 8, "num_layers": 1}


@pytest.mark.parametrize(
    "change, named",
    [
        ({"model": {"use_registers": 4}}, "model.use_registers=4"),
        ({"model": {"classifier": "token"}}, "model.classifier='token'"),
        ({"decoder_config": {"dropout_rate": 0.1}}, "decoder_config.dropout_rate=0.1"),
        ({"masked_feature_loss": {"norm": 1}}, "masked_feature_loss.norm=1"),
    ],
)
def test_settings_of_theirs_without_a_counterpart_are_named(change, named):
    decoder = {**SIZES, **change.get("decoder_config", {})}
    config = {
        "model": {"decoder_config": decoder, **SIZES, **change.get("model", {})},
        "masked_feature_loss": change.get("masked_feature_loss", {}),
    }
    with pytest.raises(UserError, match=named):
        scenic.av_mae_arguments(config)
    with pytest.raises(UserError, match="use_registers"):
        cav_mae.arguments({"embed_dim": 8, "use_registers": 4})
