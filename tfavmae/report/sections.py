"""The sections of a report, each a function from its contents to markup."""

from tfavmae.report import curves, headlines, media_html
from tfavmae.report.cards import SoundLibrary, card
from tfavmae.report.contents import Report
from tfavmae.report.figures import LABELS
from tfavmae.report.headlines import MODALITY_WORDS, duration
from tfavmae.report.markup import Html, join, render

NUM_BAD_FILES = 20
TRIPTYCH = ("original", "visible", "reconstructed")


def figures(report: Report, library: SoundLibrary) -> Html:
    derived = headlines.derive(report) if report.headlines is None else report.headlines
    items = [
        render("headline", value=h.value, label=h.label, meaning=h.meaning)
        for h in derived
    ]
    notes = [render("note", text=note) for note in report.notes]
    if not items:
        return join(notes)
    return join([render("headlines", items=join(items)), *notes])


def training(report: Report, library: SoundLibrary) -> Html:
    stages = []
    for stage, history in report.histories.items():
        plots = [
            render("plot", title=_words(name), text="", svg=Html(svg))
            for name in curves.curve_names(history)
            if (svg := curves.loss_curve(history, name))
        ]
        if plots:
            stages.append(render("stage", title=stage, plots=join(plots)))
    return join(stages)


def reconstructions(report: Report, library: SoundLibrary) -> Html:
    items = [_reconstruction(one) for one in report.reconstructions]
    return render("plots", kind="wide", items=join(items)) if items else Html("")


def _reconstruction(one):
    parts = {"spectrogram": one.audio, "frames": one.video}
    parts = {what: t for what, t in parts.items() if t is not None}
    shares = [f"{100 * t.masked_fraction:.0f} % of the {w}" for w, t in parts.items()]
    captions = ("original", f"without {' and '.join(shares)}", "reconstructed")
    rows = []
    for field, caption in zip(TRIPTYCH, captions, strict=True):
        images = [_picture(field, what, triptych) for what, triptych in parts.items()]
        row = render("reconstruction_row", images=join(images), caption=caption)
        rows.append(row)
    # A video of many frames makes a long strip: give it the width of the page.
    ratio = sum(_ratio(t.original) for t in parts.values())
    kind = "long" if ratio > 6 else ""
    return render("reconstruction", kind=kind, name=one.name, rows=join(rows))


def _picture(field, what, triptych):
    picture = getattr(triptych, field)
    return render(
        "reconstruction_image",
        kind=field,
        ratio=f"{_ratio(picture):.3f}",
        uri=media_html.png_uri(picture),
        alt=f"{what}, {field}",
    )


def _ratio(picture):
    """Width by height; a spectrogram of a short clip is drawn wider than it is."""
    return max(picture.shape[1] / picture.shape[0], 1.0)


def retrieval(report: Report, library: SoundLibrary) -> Html:
    parts = []
    if report.retrieval:
        parts.append(_recall(report.retrieval))
    for direction in ("audio_to_video", "video_to_audio"):
        rows = [
            _retrieval_row(one, report.clips, library)
            for one in report.retrieval_examples
            if one.direction == direction
        ]
        query, target = (MODALITY_WORDS[word] for word in direction.split("_to_"))
        if rows:
            parts.append(
                render(
                    "retrieval_direction",
                    title=f"Asked with a {query}, answered with {target}s",
                    lead="Queries drawn at random. The model compares the query's "
                    f"{query} with the {target}s of the gallery and gets nothing else. "
                    "Press play: frames move with the sound.",
                    rows=join(rows),
                )
            )
    return join(parts)


def _recall(result):
    plot = render(
        "plot",
        title="Recall at k",
        text="Share of queries whose own clip is among the first k. Thin lines: 95 % "
        "interval over queries.",
        svg=Html(curves.recall_bars(result)),
    )
    table = render(
        "plot",
        title="In figures",
        text=f"{result.num_clips} clips evaluated, {result.num_left_out} left out (a "
        "modality is missing).",
        svg=_recall_table(result),
    )
    return render("plots", kind="wide", items=join([plot, table]))


def _recall_table(result):
    directions = result.directions.values()
    head = ["", *[curves.ARROWS[name] for name in result.directions], "chance"]
    rows = [
        [
            f"R@{k}",
            *[str(one.recall[k]) for one in directions],
            f"{100 * min(k / result.num_clips, 1):.1f} %",
        ]
        for k in next(iter(directions)).recall
    ]
    medians = [f"{one.median_rank:g}" for one in directions]
    rows.append(["median rank", *medians, f"{(result.num_clips + 1) / 2:g}"])
    return _table(head, rows)


def _retrieval_row(one, clips, library):
    query_word, target_word = (MODALITY_WORDS[w] for w in one.direction.split("_to_"))
    query = clips[one.query]
    found = one.rank <= len(one.results)
    results = [
        _result(clips[index], index == one.query, query, similarity, library)
        for index, similarity in zip(one.results, one.similarities, strict=True)
    ]
    return render(
        "retrieval_row",
        asked=f"query: its {query_word}",
        found=f"nearest {target_word}s",
        modality=one.direction.split("_")[0],
        query=card(query, library),
        mark="right" if found else "wrong",
        verdict=f"its own {target_word} is at rank {one.rank}",
        results=join(results),
    )


def _result(clip, is_right, query, similarity, library):
    if is_right:
        kind, text = "right", "✓ right"
    elif clip.label and clip.label == query.label:
        kind, text = "near", "≈ same class"
    else:
        kind, text = "wrong", "✗ wrong"
    badge = render("badge", kind=kind, text=f"{text} · {similarity:.2f}")
    return card(clip, library, badge, kind)


def classification(report: Report, library: SoundLibrary) -> Html:
    results = {
        n: report.classification[n] for n in LABELS if n in report.classification
    }
    if not results:
        return Html("")
    plots = [_accuracy_plot(results, report.ceilings)]
    plots.append(
        render(
            "plot",
            title="Who can tell which class?",
            text="Recall of each class, by what the model was given.",
            svg=Html(curves.class_recall(results)),
        )
    )
    confusions = [
        render(
            "plot",
            title=f"Confusion, {LABELS[name]}",
            text="Rows: true class, in % of its clips.",
            svg=Html(curves.confusion_matrix(result, name)),
        )
        for name, result in results.items()
        if result.confusion is not None
    ]
    parts = [render("plots", kind="wide", items=join(plots))]
    if confusions:
        parts.append(render("plots", kind="", items=join(confusions)))
    return join([*parts, _class_details(results)])


def _accuracy_plot(results, ceilings):
    text, parts = _counts(results), []
    if any(result.accuracy for result in results.values()):
        text += " Thin lines: 95 % interval."
        if ceilings:
            text += " Ticks: the best an ideal observer of that modality could reach."
        parts.append(Html(curves.accuracy_bars(results, ceilings)))
    parts.append(_accuracy_table(results))
    return render("plot", title="Accuracy by modality", text=text, svg=join(parts))


def _counts(results):
    """How many clips each figure is of: said once if it is the same for all."""
    texts = [
        f"{r.num_clips} clips evaluated, {r.num_left_out} left out."
        for r in results.values()
    ]
    if len(set(texts)) == 1:
        return texts[0]
    named = zip(results, texts, strict=True)
    return " ".join(f"{LABELS[name]}: {text}" for name, text in named)


def _accuracy_table(results):
    head = ["given", "accuracy", "mAP", "AUC", "d′"]
    rows = []
    for name, r in results.items():
        figures = (r.mean_average_precision, r.mean_auc, r.d_prime)
        texts = [f"{value:.3f}" for value in figures]
        rows.append([LABELS[name], str(r.accuracy or "–"), *texts])
    return _table(head, rows)


def _class_details(results):
    first = next(iter(results.values()))
    head = ["class", "clips", *[f"recall, {LABELS[n]}" for n in results]]
    rows = [
        [
            one.name,
            str(one.num_clips),
            *[f"{100 * r.classes[i].recall:.0f} %" for r in results.values()],
        ]
        for i, one in enumerate(first.classes)
    ]
    return render("details", title="Every class in figures", body=_table(head, rows))


def dataset(report: Report, library: SoundLibrary) -> Html:
    summary = report.dataset
    if summary is None:
        return Html("")
    parts = []
    if summary.splits:
        head = ["split", "clips", "hours", "without sound", "without picture"]
        rows = [
            [
                s.name,
                s.num_clips,
                f"{s.hours:.2f}",
                s.num_without_audio,
                s.num_without_video,
            ]
            for s in summary.splits
        ]
        parts.append(_table(head, rows))
    if summary.facts:
        parts.append(_facts(summary.facts))
    count = len(summary.bad_files)
    if count:
        rows = summary.bad_files[:NUM_BAD_FILES]
        table = _table(["file", "reason"], rows, kind="texts")
        if count > NUM_BAD_FILES:
            more = f"and {count - NUM_BAD_FILES} more: see bad_files.csv"
            table = join([table, render("note", text=more)])
        title = f"{count} {'file' if count == 1 else 'files'} could not be used"
        parts.append(render("details", title=title, body=table))
    else:
        parts.append(render("note", text="Every file could be read."))
    return join(parts)


def commands(report: Report, library: SoundLibrary) -> Html:
    return join(
        render(
            "command",
            title=one.title,
            command=one.command,
            note=render("note", text=one.note) if one.note else "",
        )
        for one in report.commands
    )


def environment(report: Report, library: SoundLibrary) -> Html:
    parts = [_facts(report.environment)] if report.environment else []
    if report.durations:
        longest = max(report.durations.values()) or 1.0
        items = [
            render(
                "duration",
                name=name,
                share=f"{100 * seconds / longest:.1f}",
                time=duration(seconds),
            )
            for name, seconds in report.durations.items()
        ]
        parts.append(render("durations", items=join(items)))
    return join(parts)


def _facts(values):
    items = [render("fact", name=k, value=v) for k, v in values.items()]
    return render("facts", items=join(items))


def _table(head, rows, kind=""):
    cells = [join(render("cell", text=v) for v in row) for row in rows]
    return render(
        "table",
        kind=kind,
        head=join(render("head_cell", text=name) for name in head),
        rows=join(render("row", cells=one) for one in cells),
    )


def _words(name):
    arrows = name.replace("_to_", " → ")
    return arrows.replace("_", " ")
