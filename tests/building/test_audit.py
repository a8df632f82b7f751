"""The audit: its findings about each clip, the manifest, and its memory."""

import dataclasses
import json
import os
import resource
import shutil
import sys
import time
import tracemalloc

import media_files
import numpy as np
import pytest

from tfavmae.building import audit as audit_lib
from tfavmae.building import inspection, manifest
from tfavmae.building.annotations import (
    AnnotatedClip,
    read_table,
    segment_fields,
    to_clips,
)
from tfavmae.building.file_templates import templates
from tfavmae.building.source import Source
from tfavmae.commands.data import published_data
from tfavmae.errors import UserError
from tfavmae.files import exclusive

PRETEND = "pretended_media:inspect"


class Clips(Source):
    """`clips.csv`: id, start, end, split."""

    NAME = "clips"
    SELECTIONS = {"default": ""}
    OPTIONS = {"random_seconds": None}
    TEMPLATES = templates("{id}", suffixes=("mp4", "mkv", "wav"))
    INSTRUCTIONS = "annotations/ needs clips.csv."

    def clips(self, annotations, media):
        rows = read_table(
            annotations.file("clips.csv"), ("id", "start", "end", "split")
        )
        return to_clips(rows, self._clip, "train")

    def _clip(self, row):
        start, end = row.segment("start", "end")
        fields = segment_fields(row["id"], start, end)
        clip = AnnotatedClip(row["id"], row["split"], fields, start, end, {"n": 1})
        seconds = self.options["random_seconds"]
        return dataclasses.replace(clip, random_seconds=seconds)


def still(time, width, height):
    return np.full((height, width, 3), 90, np.uint8)


def silence(times):
    return np.zeros((1, len(times)))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Annotations and media in which everything happens."""
    folder = tmp_path_factory.mktemp("audited")
    media = folder / "media"
    media.mkdir()
    ids = (
        "good,0,2,train",
        "long,5,7,train",
        "muted,0,2,train",
        "still,0,2,train",
        "deaf,0,2,train",
        "blind,0,2,test",
        "copy,0,2,test",
        "short,0,2,test",
        "half,0,2,test",
        "text,0,2,test",
        "missing,0,2,test",
        "good,0,2,train",
        "../good,0,2,train",
        "zero,2,2,train",
    )
    (folder / "clips.csv").write_text("\n".join(ids) + "\n")
    write = media_files.write_clip
    write(media / "good.mp4", 2.0)
    write(media / "long.mp4", 9.0, frame_rate=4)
    write(media / "muted.mp4", 2.0, sound=silence)
    write(media / "still.mp4", 2.0, picture=still)
    write(media / "deaf.mkv", 2.0, audio=None)
    write(media / "blind.wav", 2.0)
    shutil.copy(media / "good.mp4", media / "copy.mp4")
    write(media / "short.mp4", 0.3)
    write(media / "half.mp4", 1.0)
    media_files.write_text(media / "text.mp4")
    return folder, media


def audit(folders, out, **options):
    annotations, media = folders
    source = options.pop("source", Clips())
    return audit_lib.audit(
        source, annotations, media, out, **{"num_workers": 2, **options}
    )


@pytest.fixture(scope="module")
def audited(folders, tmp_path_factory):
    return audit(folders, tmp_path_factory.mktemp("audit"))


def test_the_counts_as_json(folders, audited, cli, monkeypatch, tmp_path):
    monkeypatch.setattr(published_data, "source_of", lambda name: Clips)
    annotations, media = folders
    words = ("--annotations", annotations, "--media", media, "--out", tmp_path)
    found = json.loads(cli("data", "audit", "clips", *words, "--json").out)
    assert found["fingerprint"] == audited.fingerprint
    assert found["splits"] == audited.splits
    assert found["manifest"] == str(tmp_path / "manifest.csv")


def test_every_row_is_there_with_what_is_wrong_with_it(audited):
    rows = [(r.split, r.id, r.status, r.flags) for r in audited.rows()]
    assert rows == [
        ("train", "good", "ok", ()),
        ("train", "long", "ok", ()),
        ("train", "muted", "ok", ("silent",)),
        ("train", "still", "ok", ("still",)),
        ("train", "deaf", "ok", ("no_audio",)),
        ("test", "blind", "ok", ("no_video",)),
        ("test", "copy", "ok", ("duplicate",)),
        ("test", "short", "too_short", ("shortened",)),
        ("test", "half", "ok", ("shortened",)),
        ("test", "text", "unreadable", ()),
        ("test", "missing", "missing", ()),
        ("train", "good", "bad_row", ()),
        ("train", "../good", "bad_row", ()),
        ("train", "clips.csv line 14", "bad_row", ()),
    ]
    reasons = {r.where: r.reason for r in audited.rows()}
    assert reasons["clips.csv line 7"] == "same content as good"
    assert reasons["clips.csv line 8"] == "0.30 s, the minimum is 0.5 s"
    assert "not a media file" in reasons["clips.csv line 10"]
    assert reasons["clips.csv line 12"] == "repeats the clip of clips.csv line 1"
    assert "leads out of the folder" in reasons["clips.csv line 13"]
    assert "zero length" in reasons["clips.csv line 14"]


def test_what_is_known_of_a_file(audited, folders):
    row = next(r for r in audited.rows() if r.id == "long")
    path = folders[1] / "long.mp4"
    assert (row.path, row.template) == ("long.mp4", "{id}.mp4")
    assert (row.start_seconds, row.end_seconds) == (5, 7)  # the file is the whole video
    assert row.duration_seconds == pytest.approx(9, abs=0.1)
    assert (row.frame_rate, row.sample_rate_hz) == (4, 44100)
    assert row.size_bytes == path.stat().st_size
    assert row.modified_ns == path.stat().st_mtime_ns
    assert row.content_hash == inspection.content_hash(path)
    assert row.labels == {"n": 1}


def test_counts_per_split(audited):
    train, test = audited.splits["train"], audited.splits["test"]
    assert (train["annotated"], train["ok"], train["bad_row"]) == (8, 5, 3)
    assert (test["annotated"], test["ok"], test["missing"]) == (6, 3, 1)
    assert (test["unreadable"], test["too_short"], test["duplicate"]) == (1, 1, 1)
    assert train["templates"] == {"{id}.mp4": 4, "{id}.mkv": 1}
    assert train["hours"] == pytest.approx(10 / 3600, abs=2e-4)


def test_the_page_shows_counts_and_reasons(audited):
    page = (audited.folder / "index.html").read_text()
    for words in (
        audited.fingerprint,
        "5 of 8 clips can be built (62.5%)",
        "0.30 s, the minimum is 0.5 s",
        "repeats the clip of clips.csv line 1",
        "{id}.mkv",
    ):
        assert words in page
    assert "<script" not in page and "http" not in page


def test_ids_cannot_write_html(folders, tmp_path):
    (tmp_path / "clips.csv").write_text("<b>x</b>,0,2,train\n<i>,2,2,train\n")
    made = audit((tmp_path, folders[1]), tmp_path / "out")
    page = (made.folder / "index.html").read_text()
    assert "&lt;b&gt;x&lt;/b&gt;" in page and "<b>x</b>" not in page


def test_a_quick_audit_reads_headers_only(folders, audited, tmp_path):
    quick = audit(folders, tmp_path, thorough=False)
    flags = {r.id: r.flags for r in quick.rows()}
    assert flags["muted"] == flags["still"] == () and flags["deaf"] == ("no_audio",)
    assert quick.fingerprint != audited.fingerprint


def test_the_fingerprint_is_that_of_the_content_alone(folders, audited, tmp_path):
    moved = tmp_path / "elsewhere"
    shutil.copytree(folders[1], moved)  # other paths, other times
    for path in moved.iterdir():
        os.utime(path, (1, 1))
    again = audit((folders[0], moved), tmp_path / "a", num_workers=1)
    assert again.fingerprint == audited.fingerprint
    media_files.write_clip(moved / "half.mp4", 1.1)
    other = audit((folders[0], moved), tmp_path / "b")
    assert other.fingerprint != audited.fingerprint


def test_templates_of_ones_own_come_first(folders, tmp_path):
    (folders[1] / "mine_good.mp4").write_bytes((folders[1] / "half.mp4").read_bytes())
    made = audit(folders, tmp_path, templates=["mine_{id}.mp4"])
    (folders[1] / "mine_good.mp4").unlink()
    assert next(made.rows()).path == "mine_good.mp4"
    with pytest.raises(UserError, match=r"no \{name\}"):
        audit(folders, tmp_path, templates=["{name}.mp4"])


def test_random_clips_depend_on_their_id_alone(folders, tmp_path):
    rows = [
        {r.where: r for r in audit(folders, tmp_path / str(n), source=source).rows()}
        for n, source in enumerate([Clips(random_seconds=3.0)] * 2)
    ]
    assert rows[0] == rows[1]
    good, long = (rows[0][f"clips.csv line {line}"] for line in (1, 2))
    assert long.end_seconds - long.start_seconds == pytest.approx(3)
    assert 0 < long.start_seconds < 6
    assert good.start_seconds == 0 and good.flags == ("shortened",)


def test_nothing_annotated_is_an_error(folders, tmp_path):
    (tmp_path / "clips.csv").write_text("id,start,end,split\n")
    with pytest.raises(
        UserError, match=r"names no clip of clips/default. annotations/"
    ):
        audit((tmp_path, folders[1]), tmp_path / "out")


# --- interruption ---------------------------------------------------------------------


def test_an_interrupted_audit_goes_on_where_it_was(
    folders, audited, tmp_path, monkeypatch
):
    monkeypatch.setattr(audit_lib, "_BATCH", 4)

    def stop(done, total):
        assert total == 14
        if done == 9:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        audit(folders, tmp_path, progress=stop)
    (partial,) = tmp_path.glob("*.partial")
    with open(partial, "a") as file:
        file.write("a row that was cut o")
    assert not (tmp_path / "manifest.csv").exists()
    reports = []
    again = audit(folders, tmp_path, progress=lambda *counts: reports.append(counts))
    assert reports[0] == (9, 14) and reports[-1] == (14, 14)
    assert again.fingerprint == audited.fingerprint
    assert not list(tmp_path.glob("*.partial"))


def test_two_audits_at_once_are_refused(folders, tmp_path):
    with (
        exclusive(tmp_path / "audit.lock"),
        pytest.raises(UserError, match="another audit is running here"),
    ):
        audit(folders, tmp_path)


def test_damaged_rows_of_an_interrupted_audit_are_named(folders, audited, tmp_path):
    name = f"manifest-{audited.facts['request']}.partial"
    (tmp_path / name).write_text("not,a,row\n")
    with pytest.raises(
        UserError, match=r"partial: .* is damaged.*start the audit again"
    ):
        audit(folders, tmp_path)


def test_a_manifest_is_reused_only_for_the_same_question(folders, tmp_path):
    first = audit(folders, tmp_path, thorough=False)
    made = first.csv_path.stat().st_mtime_ns
    again = audit(folders, tmp_path, thorough=False, reuse=True)
    assert again.csv_path.stat().st_mtime_ns == made
    other = audit(folders, tmp_path, thorough=False, reuse=True, min_seconds=0.1)
    assert other.csv_path.stat().st_mtime_ns != made


# --- the manifest ---------------------------------------------------------------------


@pytest.fixture
def copy(audited, tmp_path):
    return shutil.copytree(audited.folder, tmp_path / "copy")


def test_rows_come_back_as_they_were(audited):
    for row in audited.rows():
        text = ",".join('"' + cell.replace('"', '""') + '"' for cell in row.cells())
        assert manifest.parse_row(text) == row
    assert [r.id for r in audited.rows("test")][:2] == ["blind", "copy"]


@pytest.mark.parametrize("name", ["", "manifest.csv", "manifest.json"])
def test_a_manifest_is_a_folder_or_a_file_in_it(name, audited):
    assert len(list(manifest.Manifest(audited.folder / name).rows())) == 14


def test_an_edited_manifest_is_noticed(copy):
    path = copy / "manifest.csv"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:3] + lines[4:]))
    with pytest.raises(UserError, match="changed since the audit"):
        list(manifest.Manifest(copy).rows())


@pytest.mark.parametrize(
    "damage, complaint",
    [
        (lambda text: text[:-70], "line 15 is not a row"),
        (lambda text: text.replace(",ok,", ",fine,", 1), "unknown status 'fine'"),
        (lambda text: text.replace("status", "state", 1), "columns are not those"),
        (lambda text: "", "columns are not those"),
    ],
)
def test_a_damaged_manifest_is_one_line(damage, complaint, copy):
    path = copy / "manifest.csv"
    path.write_text(damage(path.read_text()))
    with pytest.raises(UserError, match=complaint) as error:
        list(manifest.Manifest(copy).rows())
    assert "\n" not in str(error.value)


def test_a_manifest_of_another_version_is_refused(copy, tmp_path):
    path = copy / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 0}))
    with pytest.raises(
        UserError, match="has format 0, but this version reads format 1"
    ):
        manifest.Manifest(copy)
    with pytest.raises(UserError, match="there is no manifest"):
        manifest.Manifest(tmp_path / "none")


# --- content --------------------------------------------------------------------------


def test_a_large_file_is_hashed_in_part(tmp_path, monkeypatch):
    monkeypatch.setattr(inspection, "_WHOLE_FILE_BYTES", 1000)
    monkeypatch.setattr(inspection, "_SAMPLE_BYTES", 100)
    path = tmp_path / "large"
    content = bytearray(np.random.default_rng(0).bytes(10_000))
    hashes = set()
    for position in (None, 0, 9_999):  # the ends are always looked at
        if position is not None:
            content[position] ^= 1
        path.write_bytes(content)
        hashes.add(inspection.content_hash(path))
    assert len(hashes) == 3 and all(h.startswith("sampled:") for h in hashes)


def test_silence_is_what_an_encoder_makes_of_it():
    assert inspection.is_silent(np.zeros(100, np.int16))
    assert inspection.is_silent(np.array([3, -3], np.int16))
    assert not inspection.is_silent(np.array([0, -32768], np.int16))
    assert inspection.is_silent(np.zeros(0, np.int16))


# --- size -----------------------------------------------------------------------------


class Many(Source):
    """As many rows as asked for, made one at a time."""

    NAME = "many"
    SELECTIONS = {"default": ""}
    OPTIONS = {"num_rows": 0}
    TEMPLATES = templates("one", suffixes=("mp4",))
    INSTRUCTIONS = ""

    def clips(self, annotations, media):
        for number in range(self.options["num_rows"]):
            split = "test" if number % 10 == 0 else "train"
            yield AnnotatedClip(
                f"{number:011d}", split, {}, 0.0, 10.0, {"label": number % 309}
            )


def traced_peak(num_rows, folder) -> int:
    (folder / "one.mp4").touch()
    tracemalloc.start()
    source = Many(num_rows=num_rows)
    made = audit((folder, folder), folder / "out", source=source, inspect=PRETEND)
    count = sum(1 for _ in made.rows("train"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == num_rows * 9 // 10
    return peak


def test_memory_does_not_grow_with_the_number_of_rows(tmp_path):
    sizes = {}
    for num_rows in (1800, 3600):  # of more than one full batch each
        peaks = []
        for attempt in range(2):  # other threads of the process allocate, too
            (folder := tmp_path / f"{num_rows}_{attempt}").mkdir()
            peaks.append(traced_peak(num_rows, folder))
        sizes[num_rows] = min(peaks)
    # 1,800 rows more, each of about 300 bytes on the disk alone.
    assert sizes[3600] - sizes[1800] < 40_000


@pytest.mark.slow
def test_two_million_rows(tmp_path):
    (tmp_path / "one.mp4").touch()
    used = {}

    def watch(done, total):
        if done in (100_000, 2_000_000):
            used[done] = resident_bytes()

    source, started = Many(num_rows=2_000_000), time.monotonic()
    made = audit(
        (tmp_path, tmp_path), tmp_path / "out", source=source, inspect=PRETEND,
        progress=watch,
    )  # fmt: skip
    print(f"\naudited in {time.monotonic() - started:.0f} s; {used}", file=sys.stderr)
    assert sum(1 for _ in made.rows("test")) == 200_000
    assert used[2_000_000] - used[100_000] < 40e6
    assert resident_bytes() - used[100_000] < 40e6
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss < 2**20  # KiB


def resident_bytes() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()
