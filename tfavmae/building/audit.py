"""The audit: what of a published data set is there, before anything is built of it.

Annotations and media in, a manifest and a page out. Clips are looked at in worker
processes, one batch after another, so memory does not grow with their number, and an
audit that was interrupted goes on where it was.
"""

import hashlib
import itertools
import json
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from tfavmae import __version__
from tfavmae.building.annotations import AnnotatedClip, Annotations, BadRow
from tfavmae.building.audit_page import write_page
from tfavmae.building.file_templates import Locator, Template, check_template
from tfavmae.building.inspection import INSPECT, Request
from tfavmae.building.manifest import JSON, Manifest, ManifestRow, ManifestWriter
from tfavmae.building.source import Source
from tfavmae.building.worker_pool import WorkerPool
from tfavmae.errors import UserError
from tfavmae.files import exclusive

_BATCH = 512


def audit(
    source: Source,
    annotations,
    media,
    folder,
    *,
    templates: Iterable[str] = (),
    thorough: bool = True,
    min_seconds: float = 0.5,
    num_workers: int | None = None,
    time_limit_seconds: float = 120.0,
    memory_limit_bytes: int = 4 * 2**30,
    progress: Callable[[int, int], None] | None = None,
    reuse: bool = False,
    inspect: str = INSPECT,
) -> Manifest:
    """Audits a published data set.

    Args:
        source: which.
        annotations: folder of its annotation files.
        media: folder of its media.
        folder: where `manifest.csv`, `manifest.json` and `index.html` go.
        templates: file names to look for before the source's own.
        thorough: decode every clip, coarsely, to find silence and still pictures.
            Without it only headers are read, and damage further on is not seen.
        min_seconds: shorter clips are too short.
        num_workers: processes; None for one per core.
        time_limit_seconds, memory_limit_bytes: for looking at one clip.
        progress: called with the numbers of rows done and in all.
        reuse: take the manifest that is in the folder if it was asked for the same.
        inspect: the function that the workers call, as `"module:name"`.

    Returns:
        The `Manifest`.

    Raises:
        UserError: if annotations or media cannot be found.

    Example:

    >>> manifest = audit(VGGSound(), "vggsound/annotations", "vggsound/video", "audit")
    >>> manifest.splits["test"]["missing"]
    """
    locator = Locator(media, (*_own_templates(source, templates), *source.TEMPLATES))
    annotations = Annotations(annotations)
    total = sum(1 for _ in source.clips(annotations, locator.root))
    if not total:
        raise UserError(
            f"{annotations.folder}: names no clip of {source.full_name}. "
            f"{source.INSTRUCTIONS}"
        )
    facts = _facts(source, annotations, locator, thorough, min_seconds)
    if reuse and (found := _existing(folder, facts["request"])):
        return found
    pool = WorkerPool(
        num_workers,
        time_limit_seconds=time_limit_seconds,
        memory_limit_bytes=memory_limit_bytes,
    )
    with exclusive(Path(folder) / "audit.lock", "audit"), FirstSeen() as seen, pool:
        writer = ManifestWriter(folder, facts)
        run = _Run(source, locator, writer, seen, pool, facts, inspect)
        try:
            run.go(source.clips(annotations, locator.root), total, progress)
        finally:
            writer.close()
        manifest = writer.finish()
        write_page(manifest)
    return manifest


def _own_templates(source, patterns) -> list[Template]:
    own = [Template(pattern) for pattern in patterns]
    for template in own:
        check_template(template, source.FIELDS)
    return own


def _facts(source, annotations, locator, thorough, min_seconds) -> dict:
    label_names = source.label_names(annotations)
    facts = {
        "dataset": source.NAME,
        "selection": source.selection,
        "options": source.options,
        "annotations": annotations.digests(),
        "media": os.path.abspath(locator.root),
        "templates": [[t.pattern, t.holds] for t in locator.templates],
        "thorough": thorough,
        "min_seconds": min_seconds,
        "label_names": label_names,
        "tfavmae": __version__,
    }
    return {**facts, "request": _request_digest(facts)}


def _existing(folder, request) -> Manifest | None:
    if not (Path(folder) / JSON).exists():
        return None
    manifest = Manifest(folder)
    return manifest if manifest.facts.get("request") == request else None


def _request_digest(facts: dict) -> str:
    """Hash of all that the rows depend on, apart from the media themselves."""
    names = ("dataset", "selection", "options", "annotations", "media", "templates")
    asked = [facts[name] for name in (*names, "thorough", "min_seconds")]
    text = json.dumps(asked, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class _Run:
    """One pass over the clips."""

    def __init__(self, source, locator, writer, seen, pool, facts, inspect):
        self.locator, self.writer, self.seen = locator, writer, seen
        self.pool, self.inspect = pool, inspect
        self.thorough, self.min_seconds = facts["thorough"], facts["min_seconds"]

    def go(self, clips: Iterator[AnnotatedClip], total: int, progress):
        done = self._take_over(clips)
        if progress:
            progress(done, total)
        while batch := list(itertools.islice(clips, _BATCH)):
            for row in self._look_at(batch):
                self.writer.write(row)
                done += 1
                if progress:
                    progress(done, total)
            self.writer.flush()

    def _take_over(self, clips) -> int:
        """Rows that an interrupted audit of the same has written already."""
        done = 0
        for row in self.writer.kept_rows():
            clip = next(clips, None)
            if clip is None or row.where != clip.where:
                raise UserError(
                    f"{self.writer.folder}: what an interrupted audit left there does "
                    "not fit. Remove the files manifest-*.partial in it."
                )
            if clip.problem is None:
                self.seen.earlier(f"id {clip.key}", clip.where)
            self._duplicate_of(row)
            self.writer.keep(row)
            done += 1
        return done

    def _look_at(self, batch) -> Iterator[ManifestRow]:
        prepared = [self._prepare(clip) for clip in batch]
        requests = [request for _, _, request in prepared if request]
        outcomes = self.pool.map(self.inspect, requests)
        for clip, row, request in prepared:
            yield row if request is None else self._row(clip, row, next(outcomes))

    def _prepare(self, clip) -> tuple[AnnotatedClip, ManifestRow, Request | None]:
        """The row of a clip as far as it is known, and what to ask about its file."""
        try:
            if clip.problem:
                raise BadRow(clip.problem)
            earlier = self.seen.earlier(f"id {clip.key}", clip.where)
            if earlier is not None:
                raise BadRow(f"repeats the clip of {earlier}")
            hit = self.locator.find(clip.fields)
        except BadRow as error:
            return clip, _row(clip, status="bad_row", reason=str(error)), None
        if hit is None:
            return clip, _row(clip, status="missing"), None
        row = _row(clip, path=hit.path, template=hit.template.pattern)
        return clip, row, self._request(clip, hit)

    def _request(self, clip, hit) -> Request:
        return Request(
            path=os.fspath(self.locator.root / hit.path),
            holds=hit.template.holds,
            start_seconds=clip.start_seconds,
            end_seconds=clip.end_seconds,
            random_seconds=clip.random_seconds,
            random_place=fraction_of(clip.key),
            thorough=self.thorough,
            min_seconds=self.min_seconds,
        )

    def _row(self, clip, row, outcome) -> ManifestRow:
        if outcome.reason is not None:
            return _with(row, status="unreadable", reason=outcome.reason)
        found = {**vars(outcome.value)}
        row = _with(row, **found)
        original = self._duplicate_of(row)
        if original is None:
            return row
        reason = row.reason or f"same content as {original}"
        return _with(row, flags=(*row.flags, "duplicate"), reason=reason)

    def _duplicate_of(self, row) -> str | None:
        """An earlier clip with the same content in another file."""
        if not row.content_hash:
            return None
        content = (row.content_hash, row.start_seconds, row.end_seconds)
        who = self.seen.earlier(f"content {content}", f"{row.id}\n{row.path}")
        original, _, path = (who or "").partition("\n")
        # Several clips of one file are what the annotations say, no accident.
        return original if who and path != row.path else None


def _row(clip: AnnotatedClip, status="ok", **known) -> ManifestRow:
    return ManifestRow(
        id=clip.key,
        split=clip.split,
        status=status,
        labels=clip.labels,
        where=clip.where,
        **known,
    )


def _with(row: ManifestRow, **changes) -> ManifestRow:
    return ManifestRow(**{**vars(row), **changes})


def fraction_of(key: str) -> float:
    """A number in [0, 1) that depends on the text alone."""
    digest = hashlib.md5(key.encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def default_folder(source: Source, media) -> Path:
    """Where an audit goes unless told: beside the media."""
    name = f"{source.NAME}_{source.selection}_audit"
    return Path(media).expanduser().resolve().parent / name


class FirstSeen:
    """Remembers who had a value first, in a temporary file on the disk.

    Millions of ids and content hashes would not fit into memory; SQLite keeps the
    better part of them in a file of its own and removes it in the end.

    >>> seen = FirstSeen()
    >>> seen.earlier("3f2a", "clip_1"), seen.earlier("3f2a", "clip_2")
    (None, 'clip_1')
    """

    def __init__(self):
        self._db = sqlite3.connect("", isolation_level=None)
        for setting in ("journal_mode=OFF", "synchronous=OFF", "cache_size=-16384"):
            self._db.execute(f"PRAGMA {setting}")
        self._db.execute(
            "CREATE TABLE seen (value BLOB PRIMARY KEY, who TEXT) WITHOUT ROWID"
        )
        self._db.execute("BEGIN")

    def earlier(self, value: str, who: str) -> str | None:
        """Who had this value first, or None if it is `who`; then it is remembered."""
        key = hashlib.blake2b(value.encode("utf-8", "surrogateescape"), digest_size=16)
        row = (key.digest(), who.encode("utf-8", "backslashreplace").decode())
        added = self._db.execute("INSERT OR IGNORE INTO seen VALUES (?, ?)", row)
        if added.rowcount:
            return None
        found = self._db.execute("SELECT who FROM seen WHERE value = ?", row[:1])
        return found.fetchone()[0]

    def close(self):
        """Removes the file."""
        self._db.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
