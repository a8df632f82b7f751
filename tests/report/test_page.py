import base64
import dataclasses
import html.parser
import io
import re
import wave

import numpy as np
import pytest

from tfavmae.report import page
from tfavmae.report.reconstructions import Reconstruction, Triptych

SECTION_IDS = [identity for identity, *_ in page.SECTIONS]
VOID = {"meta", "img", "br", "link", "input", "path", "use", "hr"}


class Checker(html.parser.HTMLParser):
    """Fails on tags that do not nest; collects ids, tags and attributes."""

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.tags, self.attributes = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += [(tag, *pair) for pair in attributes]
        self.ids += [value for name, value in attributes if name == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag


@pytest.fixture(scope="module")
def text(report, tmp_path_factory):
    path = page.write(tmp_path_factory.mktemp("report") / "new" / "report.html", report)
    assert [p.name for p in path.parent.iterdir()] == ["report.html"]
    return path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def checked(text):
    return Checker(text)


def test_the_page_nests_and_its_ids_are_unique(checked):
    assert len(checked.ids) == len(set(checked.ids))


def test_it_has_every_section_and_links_to_each(checked):
    assert [i for i in checked.ids if i in SECTION_IDS] == SECTION_IDS
    links = [v for tag, name, v in checked.attributes if (tag, name) == ("a", "href")]
    assert links == [f"#{identity}" for identity in SECTION_IDS]


def test_it_loads_nothing_from_elsewhere(text, checked):
    without_data = re.sub(r"data:[a-z]+/[a-z]+;base64,[A-Za-z0-9+/=]+", "", text)
    assert not re.search(r"(?:https?:)?//[a-z]", without_data, flags=re.IGNORECASE)
    assert "@import" not in without_data
    sources = [v for _, name, v in checked.attributes if name in ("src", "href")]
    assert all(v.startswith(("data:", "#")) for v in sources)
    used = re.findall(r"url\(#([^)]*)\)", text)
    assert used and set(used) <= set(checked.ids)


def test_no_placeholder_and_no_sentinel_colour_is_left(text):
    assert not re.search(r"\{[{%#]", text)
    assert not re.search(r"#0([1-7])0(?:\1)0(?:\1)\b", text)


def test_sounds_are_whole_wav_files_and_each_is_there_once(report, text):
    pattern = r'<audio id="(audio-\d+)"[^>]*base64,([^"]*)"></audio><figcaption>([^<]*)'
    sounds = re.findall(pattern, text)
    played = set(re.findall(r'data-audio="(audio-\d+)"', text))
    assert {identity for identity, _, _ in sounds} == played
    shown = {e.query for e in report.retrieval_examples}
    shown |= {i for e in report.retrieval_examples for i in e.results}
    shown |= set(range(10))
    assert len(sounds) == len(shown) + 1  # and the clip without a picture
    by_name = {name: sound for _, sound, name in sounds}
    with wave.open(io.BytesIO(base64.b64decode(by_name["clip_0000.mp4"]))) as file:
        assert file.getframerate() == 16000 and file.getnframes() == 16000
        samples = np.frombuffer(file.readframes(16000), "<i2")
    np.testing.assert_array_equal(samples, report.clips[0].audio)


def test_results_are_marked(report, text):
    found = sum(one.rank <= len(one.results) for one in report.retrieval_examples)
    assert text.count("✓ its own") == found > 0
    assert "≈ same class" in text and "✗" not in text
    assert "no picture" in text and "no sound" in text


def test_figures_counts_and_ceilings_are_in_the_text(report, text):
    recall = report.retrieval.directions["audio_to_video"].recall[10]
    assert f"{100 * recall.value:.0f}\u00a0%" in text
    assert "58 clips evaluated, 2 left out" in text
    assert "300 clips evaluated, 0 left out" in text
    assert "ceiling 66" in text and "ceiling 98" in text
    assert "moov atom not found" in text
    assert "9\u00a0min 44\u00a0s" in text


def test_successes_and_failures_are_shown_with_their_share(report, text):
    direction = report.retrieval.directions["audio_to_video"]
    share, chance = direction.recall[5].value, direction.chance[5]
    for success, part, level in (("", share, chance), ("not ", 1 - share, 1 - chance)):
        title = f"is {success}among the first 5: {100 * part:.0f} % of all queries"
        assert f"own picture {title} ({100 * level:.0f} % by chance)" in text
    assert "of 58 (29.5 by chance)" in text


def test_other_clips_of_the_same_video_are_not_wrong(report):
    clips = {i: dataclasses.replace(c, file="a.mp4") for i, c in report.clips.items()}
    text = page.html(dataclasses.replace(report, clips=clips))
    shown = sum(len(one.results) for one in report.retrieval_examples)
    own = text.count("✓ its own")
    assert text.count("≈ same video") == shown - own
    assert "≈ same class" not in text


def test_pictures_come_before_charts_of_training():
    order = [identity for identity, *_ in page.SECTIONS]
    assert order[:3] == ["figures", "reconstructions", "retrieval"]
    assert order.index("training") > order.index("classification")


def test_charts_of_the_run_itself_are_folded_away(report):
    rows = [{"step": 1, "loss": 2.0, "clips_per_second": 7.0, "input_wait": 0.0}]
    text = page.html(dataclasses.replace(report, histories={"pretraining": rows}))
    assert "<summary>The run itself: clips per second, input wait</summary>" in text


def test_portrait_and_square_pictures_keep_their_shape(report):
    rng = np.random.default_rng(0)
    shapes = {"portrait": (455, 256), "square": (300, 300), "wide": (127, 226)}
    pictures = {k: rng.integers(0, 255, (2, *v, 3), "uint8") for k, v in shapes.items()}
    examples = [page.Clip(name, video=x) for name, x in pictures.items()]
    tall = np.zeros((64, 32, 3), "uint8")
    seen = np.zeros((64, 32, 4), "uint8")
    triptych = Triptych(tall, seen, tall, 0.5, tall / 255, tall / 255)
    text = page.html(
        page.Report(
            title="",
            dataset=page.DatasetSummary("shapes", examples=examples),
            reconstructions=[Reconstruction("a", video=triptych)],
        )
    )
    for size in ("126 / 224", "224 / 224", "224 / 126"):
        assert f'style="aspect-ratio:{size}"' in text
    assert text.count("--ratio:0.500") == 3


def test_a_run_without_labels_is_complete(report):
    unlabelled = dataclasses.replace(
        report,
        classification={},
        ceilings={},
        clips={i: dataclasses.replace(c, label="") for i, c in report.clips.items()},
    )
    checked = Checker(page.html(unlabelled))
    expected = [i for i in SECTION_IDS if i != "classification"]
    assert [i for i in checked.ids if i in SECTION_IDS] == expected
    text = page.html(unlabelled)
    assert "accuracy by modality" not in text.lower()
    assert "same class" not in text


def test_an_empty_report_is_a_page_with_a_title():
    checked = Checker(page.html(page.Report(title="Nothing yet")))
    assert not set(checked.ids) & set(SECTION_IDS)


ATTACK = "<script>alert(\"1\")</script> & '{{ title }} {% raw %}'.mp4"


def test_names_are_text_and_never_markup(report):
    clip = dataclasses.replace(report.clips[0], name=ATTACK, label=ATTACK)
    result = report.classification["audio"]
    named = [
        dataclasses.replace(c, name=f"{i}{ATTACK}")
        for i, c in enumerate(result.classes)
    ]
    hostile = page.Report(
        title=ATTACK,
        subtitle=ATTACK,
        clips=dict.fromkeys(report.clips, clip),
        retrieval_examples=report.retrieval_examples,
        reconstructions=[dataclasses.replace(report.reconstructions[0], name=ATTACK)],
        classification={"audio": dataclasses.replace(result, classes=named)},
        dataset=page.DatasetSummary(ATTACK, ATTACK, bad_files=[(ATTACK, ATTACK)]),
        commands=[page.Command(ATTACK, ATTACK, ATTACK)],
        environment={ATTACK: ATTACK},
        durations={ATTACK: 1.0},
        histories={ATTACK: [{"step": 1, ATTACK: 1.0}]},
        notes=[ATTACK],
    )
    text = page.html(hostile)
    assert "<script>alert" not in text
    assert "{{ title }} {% raw %}" in text
    assert Checker(text).tags.count("script") == 2
