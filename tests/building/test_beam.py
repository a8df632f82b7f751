"""The same builder on Apache Beam's runners (`make test-beam`)."""

import dataclasses
import os
import pathlib
import shutil
import signal
import sys

import media_files
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from tfavmae.building.audit import audit
from tfavmae.errors import UserError
from tfavmae_datasets.msr_vtt.msr_vtt_dataset_builder import Builder

pytestmark = pytest.mark.beam

DUMMY_DATA = pathlib.Path(__file__).resolve().parents[2] / "datasets/msr_vtt/dummy_data"


@pytest.fixture
def audited(tmp_path):
    media = shutil.copytree(DUMMY_DATA / "media", tmp_path / "media")
    audit(Builder.SOURCE(), DUMMY_DATA / "annotations", media, tmp_path / "audit")
    return tmp_path


def build(folder, name, runner=None, beam_options=None, **options):
    config = dataclasses.replace(
        Builder.BUILDER_CONFIGS[0], manifest=str(folder / "audit"), **options
    )
    builder = Builder(config=config, data_dir=folder / name)
    download_config = tfds.download.DownloadConfig(
        beam_runner=runner, beam_options=beam_options
    )
    builder.download_and_prepare(download_config=download_config)
    return builder


def examples(builder) -> dict[str, set[bytes]]:
    # Each process has its own order in which it writes the features of an example.
    return {
        split: {
            tf.train.Example.FromString(record).SerializeToString(deterministic=True)
            for path in builder.data_path.glob(f"*-{split}.tfrecord*")
            for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator()
        }
        for split in builder.info.splits
    }


def test_beam_builds_the_same(audited):
    on_beam = build(audited, "beam", "DirectRunner")
    without = build(audited, "plain")
    assert examples(on_beam) == examples(without)
    assert {s: i.num_examples for s, i in on_beam.info.splits.items()} == {
        "train": 3,
        "test": 2,
    }
    for name in ("manifest_fingerprint", "fingerprint", "options"):
        assert on_beam.info.metadata[name] == without.info.metadata[name]


def test_beam_reports_what_it_leaves_out(audited):
    media_files.write_clip(audited / "media" / "video1.mp4", 1.5)
    builder = build(audited, "beam", "DirectRunner")
    assert builder.info.splits["train"].num_examples == 2
    reports = builder.work_folder.glob("bad_files-train-*.csv")
    lines = [line for path in reports for line in path.read_text().splitlines()]
    assert "path,reason" in lines
    (bad,) = set(lines) - {"path,reason"}
    assert "video1.mp4" in bad and "changed since the manifest" in bad


def test_beam_refuses_a_manifest_that_was_changed(audited):
    path = audited / "audit" / "manifest.csv"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(UserError, match="changed since the audit"):
        build(audited, "beam", "DirectRunner")


def lose_a_worker(marker):
    """Makes the first worker that has decoded a clip end at once, as by a power cut."""
    from tfavmae.building import decoding

    to_example = decoding.to_example

    def to_example_or_end(*args):
        try:
            os.mkdir(marker)
        except FileExistsError:
            return to_example(*args)
        os.kill(os.getpid(), signal.SIGKILL)

    decoding.to_example = to_example_or_end


def test_a_dask_cluster_that_loses_a_worker_builds_the_same(audited):
    import cloudpickle
    import distributed
    from apache_beam.options.pipeline_options import PipelineOptions

    from tfavmae.building.dask_runner import DaskRunner

    marker = str(audited / "lost")
    video = audited / "media" / "video1.mp4"
    video.unlink()  # what is left out is reported from Dask as well
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    workers = {"n_workers": 2, "threads_per_worker": 1, "processes": True}
    with (
        distributed.LocalCluster(**workers, dashboard_address=None) as cluster,
        distributed.Client(cluster) as client,
    ):
        before = set(client.run(os.getpid).values())
        client.run(lose_a_worker, marker)
        address = f"--dask_client_address={cluster.scheduler_address}"
        on_dask = build(audited, "dask", DaskRunner(), PipelineOptions([address]))
        after = set(client.run(os.getpid).values())
    assert len(before) == 2 and len(before - after) == 1
    without = build(audited, "plain")
    assert examples(on_dask) == examples(without)
    assert on_dask.info.splits["train"].num_examples == 2
    reports = on_dask.work_folder.glob("bad_files-train-*.csv")
    lines = [line for path in reports for line in path.read_text().splitlines()]
    assert any("video1.mp4" in line for line in lines)
