"""Contents of a report's sections, in the form that `report.html` lays out.

Each function takes the report and the page's audio library, and returns what the macro
of the same name shows: nothing, if the report has nothing for it.
"""

from typing import Any

from markupsafe import Markup

from tfavmae.report import curves, headlines, media_html, verdicts
from tfavmae.report.cards import AudioLibrary, make_card
from tfavmae.report.contents import Report
from tfavmae.report.figures import LABELS
from tfavmae.report.headlines import duration
from tfavmae.report.reconstructions import Reconstruction
from tfavmae.report.verdicts import MODALITY_WORDS
from tfavmae.tasks.classification import ClassificationResult
from tfavmae.tasks.retrieval import RetrievalExample, RetrievalResult

NUM_BAD_FILES = 20


def figures(report: Report, library: AudioLibrary) -> dict[str, Any] | None:
    """The headlines and the notes."""
    found = headlines.derive(report) if report.headlines is None else report.headlines
    if not found and not report.notes:
        return None
    return {"headlines": found, "notes": report.notes}


def training(report: Report, library: AudioLibrary) -> list[dict[str, Any]]:
    """Each stage's charts, those of the run itself apart."""
    stages = []
    for stage, history in report.histories.items():
        chances = report.chances.get(stage, {})
        learned, rest = (
            {
                name.replace("_to_", " → ").replace("_", " "): curves.loss_curve(
                    history, name, chances.get(name)
                )
                for name in names
            }
            for names in curves.curve_names(history)
        )
        if learned or rest:
            notes = verdicts.overfitting(history, stage, report.passes.get(stage))
            stages.append(
                {"name": stage, "notes": notes, "learned": learned, "rest": rest}
            )
    return stages


def reconstructions(report: Report, library: AudioLibrary) -> list[dict[str, Any]]:
    """Each clip's rows of images: original, visible, reconstructed."""
    return [_reconstruction(one) for one in report.reconstructions]


def _reconstruction(one: Reconstruction) -> dict[str, Any]:
    parts = {"spectrogram": one.audio, "frames": one.video}
    parts = {name: t for name, t in parts.items() if t is not None}
    shares = [f"{100 * t.masked_fraction:.0f} % of the {n}" for n, t in parts.items()]
    errors = [f"{n} {t.error:.3f}" for n, t in parts.items() if t.error == t.error]
    error = f"; mean squared error: {', '.join(errors)}" if errors else ""
    captions = {
        "original": "original",
        "visible": f"without {' and '.join(shares)}",
        "reconstructed": f"reconstructed{error}",
    }
    rows: list[dict[str, Any]] = []
    for kind, caption in captions.items():
        pixels = {name: getattr(t, kind) for name, t in parts.items()}
        images = []
        for name, image in pixels.items():
            ratio = image.shape[1] / image.shape[0]
            if name == "spectrogram":
                # That of a short clip is drawn wider than it is, to be legible.
                ratio = max(ratio, 1.0)
            uri = media_html.png_uri(image)
            images.append({"name": name, "uri": uri, "ratio": ratio})
        rows.append({"kind": kind, "caption": caption, "images": images})
    # A video of many frames makes a long strip: give it the width of the page.
    is_long = sum(image["ratio"] for image in rows[0]["images"]) > 6
    sounds = [
        {"name": name, "uri": media_html.wav_uri(waveform, one.sample_rate_hz)}
        for name, waveform in one.sounds.items()
    ]
    return {"name": one.name, "rows": rows, "is_long": is_long, "sounds": sounds}


def retrieval(report: Report, library: AudioLibrary) -> dict[str, Any] | None:
    """Recall, and the examples of both directions."""
    directions = []
    for modality, target in (("audio", "video"), ("video", "audio")):
        name = f"{modality}_to_{target}"
        chosen = [one for one in report.retrieval_examples if one.direction == name]
        if chosen:
            directions.append(
                {
                    "modality": modality,
                    "query": MODALITY_WORDS[modality],
                    "target": MODALITY_WORDS[target],
                    "groups": _by_success(chosen, report, library),
                }
            )
    if not report.retrieval and not directions:
        return None
    recall = report.retrieval and _recall(report.retrieval)
    return {"recall": recall, "directions": directions}


def _by_success(
    examples: list[RetrievalExample], report: Report, library: AudioLibrary
) -> list[dict[str, Any]]:
    """Examples that succeed and examples that fail, each with the share of such."""
    top = len(examples[0].results)
    direction = report.retrieval and report.retrieval.directions[examples[0].direction]
    groups = []
    for is_found in (True, False):
        rows = [
            _retrieval_row(one, report, library)
            for one in examples
            if (one.rank <= top) == is_found
        ]
        if not rows:
            continue
        title = f"{'' if is_found else 'not '}among the first {top}"
        if direction and top in direction.recall:
            share, chance = direction.recall[top].value, direction.chance[top]
            if not is_found:
                share, chance = 1 - share, 1 - chance
            title += f": {100 * share:.0f} % of all queries"
            title += f" ({100 * chance:.0f} % by chance)"
        groups.append({"title": title, "rows": rows})
    return groups


def _recall(result: RetrievalResult) -> dict[str, Any]:
    directions = result.directions.values()
    rows = [
        [
            f"R@{k}",
            *[str(one.recall[k]) for one in directions],
            f"{100 * next(iter(directions)).chance[k]:.1f} %",
        ]
        for k in next(iter(directions)).recall
    ]
    medians = [f"{one.median_rank:g}" for one in directions]
    rows.append(["median rank", *medians, f"{(result.num_clips + 1) / 2:g}"])
    return {
        "svg": curves.recall_bars(result),
        "head": ["", *[curves.ARROWS[name] for name in result.directions], "chance"],
        "rows": rows,
        "num_clips": result.num_clips,
        "num_left_out": result.num_left_out,
    }


def _retrieval_row(
    one: RetrievalExample, report: Report, library: AudioLibrary
) -> dict[str, Any]:
    query, results = report.clips[one.query], []
    for index, similarity in zip(one.results, one.similarities, strict=True):
        clip, kind = report.clips[index], "other"
        if index == one.query:
            kind = "right"
        # Another moment of the same video may well look and sound like this one.
        elif clip.file and clip.file == query.file:
            kind = "same_video"
        elif clip.label and clip.label == query.label:
            kind = "same_class"
        card = make_card(clip, library)
        results.append({"card": card, "kind": kind, "similarity": similarity})
    rank, outcome = f"rank {one.rank}", "wrong"
    if one.rank <= len(one.results):
        outcome = "right"
    if report.retrieval:
        count = report.retrieval.num_clips
        rank += f" of {count} ({(count + 1) / 2:g} by chance)"
        if outcome == "right" and one.rank >= (count + 1) / 2:
            outcome = ""  # in a gallery this small, that is no success
    return {
        "query": make_card(query, library),
        "rank": rank,
        "outcome": outcome,
        "results": results,
    }


def classification(report: Report, library: AudioLibrary) -> dict[str, Any] | None:
    """Accuracy by modality, recall by class, confusion."""
    found = report.classification
    results = {name: found[name] for name in LABELS if name in found}
    if not results:
        return None
    first = next(iter(results.values()))
    chart: str | Markup = ""
    if any(result.accuracy for result in results.values()):
        chart = curves.accuracy_bars(results, report.ceilings)
    return {
        "counts": _counts(results),
        "accuracy": chart,
        "has_ceilings": bool(report.ceilings),
        "rows": [
            [
                LABELS[name],
                str(r.accuracy or "–"),
                f"{r.mean_average_precision:.3f}",
                f"{r.mean_auc:.3f}",
                f"{r.d_prime:.3f}",
            ]
            for name, r in results.items()
        ]
        + [_chance_row(first)],
        "class_recall": curves.class_recall(results),
        "confusions": {
            LABELS[name]: curves.confusion_matrix(result, name)
            for name, result in results.items()
            if result.confusion is not None
        },
        "class_head": ["class", "clips", *[f"recall, {LABELS[n]}" for n in results]],
        "class_rows": [
            [
                one.name,
                one.num_clips,
                *[f"{100 * r.classes[i].recall:.0f} %" for r in results.values()],
            ]
            for i, one in enumerate(first.classes)
        ],
    }


def _chance_row(result: ClassificationResult) -> list[str]:
    """What guessing reaches, in the columns of the table of classification."""
    accuracy = f"{100 * result.chance:.1f} %" if result.accuracy else "–"
    return ["chance", accuracy, f"{result.chance_precision:.3f}", "0.500", "0.000"]


def _counts(results: dict[str, ClassificationResult]) -> str:
    """How many clips each figure is of: said once if it is the same for all."""
    texts = {
        name: f"{r.num_clips} clips evaluated, {r.num_left_out} left out."
        for name, r in results.items()
    }
    if len(set(texts.values())) == 1:
        return next(iter(texts.values()))
    return " ".join(f"{LABELS[name]}: {text}" for name, text in texts.items())


def dataset(report: Report, library: AudioLibrary) -> dict[str, Any] | None:
    """Counts by split, facts, files that could not be used."""
    summary = report.dataset
    if summary is None:
        return None
    return {
        "splits": [
            [
                one.name,
                one.num_clips,
                f"{one.hours:.2f}",
                one.num_without_audio,
                one.num_without_video,
            ]
            for one in summary.splits
        ],
        "facts": summary.facts,
        "bad_files": summary.bad_files[:NUM_BAD_FILES],
        "num_bad_files": len(summary.bad_files),
    }


def commands(report: Report, library: AudioLibrary) -> list[Any]:
    """The commands as they are."""
    return report.commands


def environment(report: Report, library: AudioLibrary) -> dict[str, Any] | None:
    """Versions and hardware, and the time of each step."""
    if not report.environment and not report.durations:
        return None
    longest = max(report.durations.values(), default=0.0) or 1.0
    durations = [
        {"name": name, "percent": 100 * seconds / longest, "time": duration(seconds)}
        for name, seconds in report.durations.items()
    ]
    return {"facts": report.environment, "durations": durations}
