"""The memory of a build does not grow with the number of clips."""

import gc
import os
import resource
import sys
import time
import tracemalloc

import pytest
import tensorflow_datasets as tfds

from tfavmae.building import decoding, published_builder
from tfavmae.building.manifest import Manifest, ManifestRow, ManifestWriter
from tfavmae.building.source import Source

STUB = "pretended_media:decode"


class Many(Source):
    """Only ever read from a manifest."""

    NAME = "many"
    SELECTIONS = {"default": ""}
    TEMPLATES = ()
    INSTRUCTIONS = ""

    def clips(self, annotations, media):
        raise AssertionError("the manifest has them")


class ManyBuilder(published_builder.PublishedBuilder, skip_registration=True):
    SOURCE = Many
    BUILDER_CONFIGS = published_builder.configs(Many)

    def label_features(self):
        return {"label": tfds.features.ClassLabel(num_classes=309)}


def write_manifest(folder, num_rows) -> Manifest:
    """A manifest of as many rows, all of one empty file."""
    (folder / "one.mp4").touch()
    os.utime(folder / "one.mp4", ns=(1, 1))
    facts = {
        "dataset": "many",
        "selection": "default",
        "media": str(folder),
        "label_names": {},
        "annotations": {},
        "thorough": True,
        "min_seconds": 0.5,
        "request": "none",
    }
    writer = ManifestWriter(folder / "audit", facts)
    for number in range(num_rows):
        writer.write(
            ManifestRow(
                f"{number:011d}",
                "train",
                "ok",
                path="one.mp4",
                template="one.mp4",
                start_seconds=0.0,
                end_seconds=10.0,
                duration_seconds=10.0,
                size_bytes=0,
                modified_ns=1,
                content_hash="sha256:0123",
                labels={"label": number % 309},
            )
        )
    return writer.finish()


def decoded(folder, num_rows, monkeypatch, watch):
    """Runs the whole decoding step of a build; `watch(number of clips)` looks on."""
    manifest = write_manifest(folder, num_rows)
    plain = decoding.decode_rows
    monkeypatch.setattr(
        decoding,
        "decode_rows",
        lambda *args, **options: plain(*args, **options, function=STUB),
    )
    config = published_builder.PublishedConfig(
        name="default", manifest=str(folder / "audit")
    )
    builder = ManyBuilder(config=config, data_dir=folder / "data")
    splits = builder._split_generators(dl_manager=None)
    count = 0
    for count, (key, _) in enumerate(splits["train"], 1):  # noqa: B007
        watch(count)
    builder.close()
    assert count == num_rows == manifest.facts["num_rows"]
    assert key == f"{num_rows - 1:011d}"
    assert builder.info.metadata["summary"]["num_ok"] == num_rows


def test_decoding_needs_the_same_memory_for_more_clips(tmp_path, monkeypatch):
    used = {}

    def watch(count):
        if count in (500, 2500):
            gc.collect()
            used[count] = tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    decoded(tmp_path, 2500, monkeypatch, watch)
    tracemalloc.stop()
    # 2,000 rows more; each example alone would take more than 500 bytes.
    assert used[2500] - used[500] < 60_000


@pytest.mark.slow
def test_two_million_clips(tmp_path, monkeypatch):
    used, started = {}, time.monotonic()

    def watch(count):
        if count in (100_000, 1_000_000, 2_000_000):
            used[count] = resident_bytes()

    decoded(tmp_path, 2_000_000, monkeypatch, watch)
    print(f"\ndecoded in {time.monotonic() - started:.0f} s: {used}", file=sys.stderr)
    assert used[2_000_000] - used[100_000] < 40e6


def resident_bytes() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()
