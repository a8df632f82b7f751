"""The page of an audit that a person can read: one HTML file, nothing fetched."""

import html
import itertools
import os
from pathlib import Path

from tfavmae.building.manifest import FLAGS, OK, STATUSES, Manifest

PAGE = "index.html"
_EXAMPLES = 20  # rows shown of each problem
_MEANINGS = {
    "ok": "can be built",
    "missing": "no file under any of the names below",
    "unreadable": "the file is damaged, or no media file",
    "too_short": "less of it is there than the minimum",
    "bad_row": "the annotation makes no sense or repeats another",
    "silent": "has a sound track with nothing on it",
    "still": "shows one picture throughout",
    "duplicate": "same file content and segment as an earlier clip",
    "shortened": "less than 90 % of the annotated segment is there",
    "no_audio": "no sound track",
    "no_video": "no picture track",
}
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem;
       padding: 0 1rem; color: #222; }
table { border-collapse: collapse; margin: .5rem 0 1.5rem; }
th, td { padding: .2rem .8rem; border-bottom: 1px solid #ddd; text-align: left;
         vertical-align: top; overflow-wrap: anywhere; }
td.n { text-align: right; font-variant-numeric: tabular-nums; }
.bar { display: flex; height: 1rem; background: #eee; max-width: 40rem; }
.bar i { display: block; }
code { background: #f4f4f4; padding: 0 .2rem; }
small { color: #666; }
"""
_COLOURS = ("#4a9", "#ccc", "#d55", "#e93", "#a6c")


def write_page(manifest: Manifest) -> Path:
    """Writes `index.html` into the manifest's folder."""
    facts = manifest.facts
    title = f"Audit of {facts['dataset']}/{facts['selection']}"
    parts = [f"<h1>{_text(title)}</h1>", _summary(facts)]
    parts += [_bar(split, counts) for split, counts in manifest.splits.items()]
    parts += [_counts(manifest.splits), _templates(facts), *_problems(manifest)]
    page = _PAGE.format(title=_text(title), style=_STYLE, body="\n".join(parts))
    path = manifest.folder / PAGE
    path.with_suffix(".tmp").write_text(page, encoding="utf-8")
    os.replace(path.with_suffix(".tmp"), path)
    return path


_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{title}</title>
<style>{style}</style>
<body>
{body}
</body></html>
"""


def _text(value) -> str:
    text = str(value).encode("utf-8", "backslashreplace").decode("utf-8")
    return html.escape(text)


def _summary(facts) -> str:
    depth = (
        "every clip was decoded, coarsely"
        if facts["thorough"]
        else "headers only: silence, still pictures and damage further on are not seen"
    )
    files = "<br>".join(
        f"<code>{_text(name)}</code> <small>sha256 {digest[:16]}</small>"
        for name, digest in facts["annotations"].items()
    )
    rows = (
        ("annotations", files),
        ("media", f"<code>{_text(facts['media'])}</code>"),
        ("depth", depth),
        ("rows", f"{facts['num_rows']:,}"),
        ("fingerprint", f"<code>{facts['fingerprint']}</code>"),
        ("made by", f"tfavmae {_text(facts['tfavmae'])}"),
    )
    return _table(
        "".join(f"<tr><th>{name}</th><td>{value}</td></tr>" for name, value in rows)
    )


def _table(rows: str) -> str:
    return f"<table>{rows}</table>"


def _bar(split, counts) -> str:
    total = max(counts["annotated"], 1)
    parts = "".join(
        f'<i style="width:{100 * counts[status] / total:.2f}%;background:{colour}" '
        f'title="{status}: {counts[status]:,}"></i>'
        for status, colour in zip(STATUSES, _COLOURS, strict=True)
    )
    share = counts[OK] / total
    return (
        f"<p><b>{_text(split)}</b>: {counts[OK]:,} of {counts['annotated']:,} clips "
        f"can be built ({share:.1%}), {counts['hours']:,.2f} hours</p>"
        f'<div class="bar">{parts}</div>'
    )


def _counts(splits) -> str:
    head = "".join(f"<th>{_text(split)}</th>" for split in splits)
    rows = [f"<tr><th></th>{head}<th></th></tr>"]
    for name in ("annotated", *STATUSES, *FLAGS):
        cells = "".join(f'<td class="n">{c[name]:,}</td>' for c in splits.values())
        meaning = f"<small>{_MEANINGS.get(name, 'rows of the annotations')}</small>"
        rows.append(f"<tr><th>{name}</th>{cells}<td>{meaning}</td></tr>")
    return "<h2>Counts</h2>" + _table("".join(rows))


def _templates(facts) -> str:
    hits: dict[str, int] = {}
    for counts in facts["splits"].values():
        for pattern, count in counts["templates"].items():
            hits[pattern] = hits.get(pattern, 0) + count
    rows = "".join(
        f'<tr><td><code>{_text(pattern)}</code></td><td class="n">'
        f"{hits.get(pattern, 0):,}</td></tr>"
        for pattern in dict.fromkeys(pattern for pattern, _ in facts["templates"])
    )
    return f"<h2>File names looked for, in this order, and hits</h2>{_table(rows)}"


def _problems(manifest):
    """For every problem that there is, its first rows."""
    found = {name: [] for name in (*STATUSES[1:], *FLAGS)}
    for row in manifest.rows():
        for name in (row.status, *row.flags):
            if name in found and len(found[name]) < _EXAMPLES:
                found[name].append(row)
    total = {
        name: sum(counts[name] for counts in manifest.splits.values()) for name in found
    }
    for name, rows in found.items():
        if rows:
            yield f"<h2>{name}: {_MEANINGS[name]}</h2>{_examples(rows, total[name])}"


def _examples(rows, total) -> str:
    lines = "".join(
        "<tr>"
        + "".join(
            f"<td>{_text(cell)}</td>"
            for cell in (row.split, row.id, row.path, row.reason, row.where)
        )
        + "</tr>"
        for row in itertools.islice(rows, _EXAMPLES)
    )
    head = "<tr><th>split</th><th>id</th><th>file</th><th>reason</th><th>row</th></tr>"
    more = total - len(rows)
    rest = f"<p><small>and {more:,} more, in manifest.csv</small></p>" if more else ""
    return _table(head + lines) + rest
