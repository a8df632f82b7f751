"""The HTML page of an audit, for people: one file that loads nothing."""

from pathlib import Path
from typing import Any

from tfavmae.building.manifest import FLAGS, OK, STATUSES, Manifest
from tfavmae.pages import rendering

PAGE = "index.html"
_EXAMPLES = 20  # rows shown of each problem
_MEANINGS = {
    "annotated": "rows of the annotations",
    "ok": "can be built",
    "missing": "no file under any of the names looked for",
    "unreadable": "the file is damaged, or not a media file",
    "too_short": "the file holds less of the clip than the minimum",
    "bad_row": "the annotation makes no sense, or repeats another",
    "silent": "has an audio track with nothing on it",
    "still": "shows the same picture throughout",
    "duplicate": "same file content and segment as an earlier clip",
    "shortened": "the file holds less than 90 % of the annotated segment",
    "no_audio": "has no audio track",
    "no_video": "has no video track",
}


def write_page(manifest: Manifest) -> Path:
    """Writes `index.html` into the manifest's folder.

    Args:
        manifest: of the audit.

    Returns:
        The path of the page.

    Raises:
        UserError: the disk is full or the folder cannot be written.
    """
    facts, splits = manifest.facts, manifest.splits
    files = [
        f"{name} (sha256 {digest[:16]})"
        for name, digest in facts["annotations"].items()
    ]
    depth = "headers only: silence, still pictures and later damage are not seen"
    bodies = {
        "clips": ("What can be built", _shares(splits)),
        "counts": ("Counts", _counts(splits)),
        "problems": ("Problems, with examples", _problems(manifest)),
        "files": ("File names, in the order looked for", _templates(facts)),
        "audit": (
            "This audit",
            {
                "annotations": ", ".join(files),
                "media": facts["media"],
                "depth": "every clip was decoded" if facts["thorough"] else depth,
                "rows": f"{facts['num_rows']:,}",
                "fingerprint": facts["fingerprint"],
            },
        ),
    }
    num_ok = sum(counts[OK] for counts in splits.values())
    num_rows = sum(counts["annotated"] for counts in splits.values())
    return rendering.write(
        manifest.folder / PAGE,
        "audit.html",
        title=f"Audit of {facts['dataset']}/{facts['selection']}",
        subtitle=f"{num_ok:,} of {num_rows:,} annotated clips can be built.",
        sections=[
            {"id": name, "title": title, "lead": "", "body": body}
            for name, (title, body) in bodies.items()
        ],
    )


def _shares(splits: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Of each split, the share of each status: a bar of the page."""
    found = []
    for name, counts in splits.items():
        total = max(counts["annotated"], 1)
        parts = [
            {"status": s, "count": counts[s], "percent": 100 * counts[s] / total}
            for s in STATUSES
        ]
        found.append(
            {
                "name": name,
                "num_ok": counts[OK],
                "num_annotated": counts["annotated"],
                "percent": 100 * counts[OK] / total,
                "hours": counts["hours"],
                "parts": parts,
            }
        )
    return found


def _counts(splits: dict[str, dict[str, Any]]) -> dict[str, Any]:
    rows = [
        [name, *[f"{c[name]:,}" for c in splits.values()], _MEANINGS[name]]
        for name in ("annotated", *STATUSES, *FLAGS)
    ]
    return {"head": ["", *splits, "meaning"], "rows": rows}


def _templates(facts: dict[str, Any]) -> list[dict[str, Any]]:
    """Patterns of file names, in order, with the number of clips found by each."""
    # A pattern may stand there twice, for a whole video and for a clip of it.
    hits = {pattern: 0 for pattern, _ in facts["templates"]}
    for counts in facts["splits"].values():
        for pattern, count in counts["templates"].items():
            hits[pattern] = hits.get(pattern, 0) + count
    return [
        {"order": order, "pattern": pattern, "hits": count}
        for order, (pattern, count) in enumerate(hits.items(), start=1)
    ]


def _problems(manifest: Manifest) -> list[dict[str, Any]]:
    """The first rows of every problem that occurs."""
    found: dict[str, list] = {name: [] for name in (*STATUSES[1:], *FLAGS)}
    for row in manifest.rows():
        for name in (row.status, *row.flags):
            if name in found and len(found[name]) < _EXAMPLES:
                found[name].append((row.split, row.id, row.path, row.reason, row.where))
    counted = manifest.splits.values()
    return [
        {
            "name": name,
            "meaning": _MEANINGS[name],
            "rows": rows,
            "num_more": sum(counts[name] for counts in counted) - len(rows),
        }
        for name, rows in found.items()
        if rows
    ]
