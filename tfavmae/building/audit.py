"""Audit of a published data set before anything of it is built.

It reads annotations and media and writes a manifest and a page. Clips are inspected in
worker processes, one batch after another, so memory does not grow with their number,
and an interrupted audit continues where it stopped.
"""

import dataclasses
import hashlib
import itertools
import json
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Self

from tfavmae import __version__
from tfavmae.building.annotations import (
    AnnotatedClip,
    Annotations,
    BadRow,
    control_character,
)
from tfavmae.building.audit_page import write_page
from tfavmae.building.file_templates import Locator, Template, check_template
from tfavmae.building.inspection import INSPECT, Finding, Request, fraction_of
from tfavmae.building.manifest import JSON, Manifest, ManifestRow, ManifestWriter
from tfavmae.building.source import Source
from tfavmae.building.worker_pool import Outcome, WorkerPool
from tfavmae.errors import UserError
from tfavmae.files import exclusive

# Rows are written to the disk after each batch: an interruption loses at most one.
_BATCH = 512
# What the rows of a manifest depend on, apart from the media themselves.
_REQUESTED = (
    *("dataset", "selection", "options", "annotations", "media", "templates"),
    *("thorough", "min_seconds"),
)


def audit(
    source: Source,
    annotations: str | os.PathLike,
    media: str | os.PathLike,
    folder: str | os.PathLike,
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
        source: the data set.
        annotations: folder of its annotation files.
        media: folder of its media.
        folder: where `manifest.csv`, `manifest.json` and `index.html` go.
        templates: file names to look for before the source's own.
        thorough: decode every clip, coarsely, to find silence and still pictures.
            Without it only headers are read, and damage further on is not seen.
        min_seconds: shorter clips are too short.
        num_workers: processes; None for one per core.
        time_limit_seconds, memory_limit_bytes: limits for inspecting one clip.
        progress: called with the number of rows done and of all rows.
        reuse: return the manifest in the folder if it answers the same request.
        inspect: what the workers call, as `"module:name"`.

    Returns:
        The `Manifest`.

    Raises:
        UserError: annotations or media cannot be found, or another audit is running in
            the folder.

    Example:

    >>> manifest = audit(VGGSound(), "vggsound/annotations", "vggsound/video", "audit")
    >>> manifest.splits["test"]["missing"]
    """
    pool = WorkerPool(
        num_workers,
        time_limit_seconds=time_limit_seconds,
        memory_limit_bytes=memory_limit_bytes,
    )
    own = [Template(pattern) for pattern in templates]
    for template in own:
        check_template(template, source.FIELDS)
    locator, files = Locator(media, (*own, *source.TEMPLATES)), Annotations(annotations)
    # Counted in a pass of its own, for the progress; the clips may not fit into memory.
    total = sum(1 for _ in source.clips(files, locator.root))
    if not total:
        raise UserError(
            f"{files.folder}: names no clip of {source.full_name}. "
            f"{source.INSTRUCTIONS}"
        )
    facts = _facts(source, files, locator, thorough, min_seconds)
    if reuse and (Path(folder) / JSON).exists():
        manifest = Manifest(folder)
        if manifest.facts.get("request") == facts["request"]:
            return manifest
    with exclusive(Path(folder) / "audit.lock", "audit"), FirstSeen() as seen, pool:
        writer = ManifestWriter(folder, facts)
        inspector = Inspector(locator, seen, pool, thorough, min_seconds, inspect)
        clips = source.clips(files, locator.root)
        try:
            done = take_over(writer, inspector, clips)
            if progress:
                progress(done, total)
            while batch := list(itertools.islice(clips, _BATCH)):
                for row in inspector.rows(batch):
                    writer.write(row)
                    done += 1
                    if progress:
                        progress(done, total)
                writer.flush()
        finally:
            writer.close()
        manifest = writer.finish()
        write_page(manifest)
    return manifest


def _facts(
    source: Source,
    annotations: Annotations,
    locator: Locator,
    thorough: bool,
    min_seconds: float,
) -> dict[str, Any]:
    """What was asked for, as `manifest.json` records it, with the hash `request`.

    Raises:
        UserError: a class has a name that cannot be stored in a line.
    """
    label_names = source.label_names(annotations)
    for label, names in label_names.items():
        for name in names:
            if character := control_character(name):
                files = ", ".join(path.name for path in annotations.used)
                raise UserError(
                    f"{annotations.folder}: the {label} {name!r} in {files} has the "
                    f"control character {character}. Replace it."
                )
    facts = {
        "dataset": source.NAME,
        "selection": source.selection,
        "options": source.options,
        "label_names": label_names,
        # Only now are all annotation files known that the source uses.
        "annotations": annotations.digests(),
        "media": os.path.abspath(locator.root),
        "templates": [[t.pattern, t.holds] for t in locator.templates],
        "thorough": thorough,
        "min_seconds": min_seconds,
        "tfavmae": __version__,
    }
    asked = json.dumps([facts[name] for name in _REQUESTED], sort_keys=True)
    return {**facts, "request": hashlib.sha256(asked.encode()).hexdigest()[:16]}


def take_over(
    writer: ManifestWriter, inspector: "Inspector", clips: Iterator[AnnotatedClip]
) -> int:
    """Keeps the rows that an interrupted audit has written; returns their number.

    Raises:
        UserError: the rows do not match the clips.
    """
    done = 0
    for row in writer.kept_rows():
        clip = next(clips, None)
        if clip is None or row.where != clip.where:
            raise UserError(
                f"{writer.folder}: the rows of an interrupted audit there do not match "
                "the annotations. Remove its files manifest-*.partial."
            )
        inspector.remember(clip, row)
        writer.keep(row)
        done += 1
    return done


class Inspector:
    """Turns annotated clips into rows of the manifest.

    Args:
        locator: finds their files.
        seen: ids and contents of the clips so far.
        pool: workers that inspect the files.
        thorough, min_seconds, inspect: as in `audit`.
    """

    def __init__(
        self,
        locator: Locator,
        seen: "FirstSeen",
        pool: WorkerPool,
        thorough: bool,
        min_seconds: float,
        inspect: str,
    ) -> None:
        self.locator, self.seen, self.pool = locator, seen, pool
        self.thorough, self.min_seconds = thorough, min_seconds
        self.inspect = inspect

    def rows(self, batch: Iterable[AnnotatedClip]) -> Iterator[ManifestRow]:
        """The rows of some clips, whose files are inspected in parallel."""
        # In order: which of two clips is the duplicate must not depend on which worker
        # is faster.
        prepared = [self.prepare(clip) for clip in batch]
        requests = [request for _, request in prepared if request]
        outcomes = self.pool.map(self.inspect, requests, Finding)
        for row, request in prepared:
            yield self.complete(row, next(outcomes)) if request else row

    def prepare(self, clip: AnnotatedClip) -> tuple[ManifestRow, Request | None]:
        """The row of a clip as far as it is known, and what to ask about its file."""
        row = ManifestRow(
            clip.key, clip.split, "ok", labels=clip.labels, where=clip.where
        )
        try:
            if clip.problem:
                raise BadRow(clip.problem)
            earlier = self.seen.earlier(f"id {clip.key}", clip.where)
            if earlier is not None:
                raise BadRow(f"repeats the clip of {earlier}")
            hit = self.locator.find(clip.fields)
        except BadRow as error:
            return dataclasses.replace(row, status="bad_row", reason=str(error)), None
        if hit is None:
            return dataclasses.replace(row, status="missing"), None
        request = Request(
            path=os.fspath(self.locator.root / hit.path),
            holds=hit.template.holds,
            start_seconds=clip.start_seconds,
            end_seconds=clip.end_seconds,
            random_seconds=clip.random_seconds,
            random_place=fraction_of(clip.key),
            thorough=self.thorough,
            min_seconds=self.min_seconds,
        )
        pattern = hit.template.pattern
        return dataclasses.replace(row, path=hit.path, template=pattern), request

    def complete(self, row: ManifestRow, outcome: Outcome) -> ManifestRow:
        """The row with what is known about its file."""
        if outcome.reason is not None:
            return dataclasses.replace(row, status="unreadable", reason=outcome.reason)
        row = dataclasses.replace(row, **vars(outcome.value))
        original = self.duplicate_of(row)
        if original is None:
            return row
        return dataclasses.replace(
            row,
            flags=(*row.flags, "duplicate"),
            reason=row.reason or f"same content as {original}",
        )

    def remember(self, clip: AnnotatedClip, row: ManifestRow) -> None:
        """Notes id and content of a row that was inspected before."""
        if clip.problem is None:
            self.seen.earlier(f"id {clip.key}", clip.where)
        self.duplicate_of(row)

    def duplicate_of(self, row: ManifestRow) -> str | None:
        """The earlier clip with the same content in another file, if there is one."""
        if not row.content_hash:
            return None
        content = (row.content_hash, row.start_seconds, row.end_seconds)
        who = self.seen.earlier(f"content {content}", f"{row.id}\n{row.path}")
        original, _, path = (who or "").partition("\n")
        # Several clips of one file are what the annotations say, not an accident.
        return original if who and path != row.path else None


def default_folder(source: Source, media: str | os.PathLike) -> Path:
    """The default folder of an audit, beside that of the media."""
    name = f"{source.NAME}_{source.selection}_audit"
    return Path(media).expanduser().resolve().parent / name


class FirstSeen:
    """Remembers who had a value first, in a temporary file on the disk.

    Millions of ids and content hashes would not fit into memory; SQLite keeps most of
    them in a file of its own, which it removes at the end.

    >>> seen = FirstSeen()
    >>> seen.earlier("3f2a", "clip_1"), seen.earlier("3f2a", "clip_2")
    (None, 'clip_1')
    """

    def __init__(self) -> None:
        self._db = sqlite3.connect("", isolation_level=None)  # "": a temporary file
        # No rollback journal and no waiting for the disk: the file dies with us.
        for setting in ("journal_mode=OFF", "synchronous=OFF", "cache_size=-16384"):
            self._db.execute(f"PRAGMA {setting}")
        self._db.execute(
            "CREATE TABLE seen (value BLOB PRIMARY KEY, who TEXT) WITHOUT ROWID"
        )
        self._db.execute("BEGIN")

    def earlier(self, value: str, who: str) -> str | None:
        """Who had this value first; None if that is `who`, which is then remembered."""
        key = hashlib.blake2b(value.encode("utf-8", "surrogateescape"), digest_size=16)
        row = (key.digest(), who.encode("utf-8", "backslashreplace").decode())
        added = self._db.execute("INSERT OR IGNORE INTO seen VALUES (?, ?)", row)
        if added.rowcount:
            return None
        found = self._db.execute("SELECT who FROM seen WHERE value = ?", row[:1])
        return found.fetchone()[0]

    def close(self) -> None:
        """Removes the file."""
        self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
