"""What recipes, docs/papers.md and docstrings say of the three papers."""

import pathlib
import re

import pytest

from tfavmae.config import experiment as config_lib
from tfavmae.layers.spectrogram import statistics
from tfavmae.models import presets

ROOT = pathlib.Path(__file__).resolve().parents[1]
DOCUMENT = (ROOT / "docs" / "papers.md").read_text()
TITLES = {"av_mae": "AV-MAE", "cav_mae": "CAV-MAE", "mavil": "MAViL"}
RECIPES = [p for name in TITLES for p in sorted(ROOT.glob(f"configs/{name}/*.yaml"))]
OF_PAPERS = [p for p in RECIPES if "sounding_shapes" not in p.name]


def recipe_id(path):
    return str(path.relative_to(ROOT / "configs"))


# --- What there is to cite ---

CONTENTS = {
    "av_mae": {
        "section": "1 2 3 3.1 3.2 3.3 3.4 4 4.1 4.2 4.3 5 A B B.1 B.2 C "
        + " ".join(f"A.{n}" for n in range(1, 12)),
        "table": " ".join(map(str, range(1, 25))) + " 7a 7b 7c",
        "figure": "1 2 3 4 5",
        "equation": "1",
    },
    "cav_mae": {
        "section": "1 2 2.1 2.1.1 2.1.2 2.1.3 2.1.4 2.2 2.3 2.3.1 3 4 5 6 7 "
        "A B C D E F G H H.1 H.2 I J",
        "table": " ".join(map(str, range(1, 17)))
        + "".join(f" 2{letter}" for letter in "abcdefghi"),
        "figure": " ".join(map(str, range(1, 14))),
        "equation": " ".join(map(str, range(1, 11))),
    },
    "mavil": {
        "section": "1 2 3 3.1 3.2 3.3 4 4.1 4.2 4.3 4.4 4.5 5 A B B.1 B.2 B.3 "
        "C C.1 C.2 C.3 C.4 D",
        "table": " ".join(map(str, range(1, 16)))
        + " 4a 4b 5a 5b 5c 5d 5e 12a 12b 13a 13b",
        "figure": "1 2 3",
        "equation": "1 2 3 4 5 6",
    },
}
WORDS = {"appendix": "section", "eq.": "equation"}
PLACE = r"(?:[A-J](?:\.\d+)?|\d(?:\.\d)*)\b"
NUMBER = r"(?:\d+[a-i]?(?![\w.]*\d)|\(\d+\))"
CITATION = re.compile(
    "|".join(
        rf"\b({kinds})s? ({item}(?:(?:,| and|, and| to) {item})*)"
        for kinds, item in (
            ("section|appendix", PLACE),
            ("table|figure|equation|eq\\.", NUMBER),
        )
    ),
    re.IGNORECASE,
)
PAPER = re.compile(r"\b(AV-MAE|CAV-MAE|MAViL)(?:'s)?,? ?(?:\(|paper, )?$")


def items(text):
    """The numbers of a list such as `4, 7a and 12 to 15`."""
    found = []
    for piece in re.split(r", and |, | and ", text):
        ends = [x.strip("()") for x in piece.split(" to ")]
        if len(ends) == 2 and all(x.isdigit() for x in ends):
            ends = [str(n) for n in range(int(ends[0]), int(ends[1]) + 1)]
        found += ends
    return found


def citations(text, paper=None):
    """`(paper, kind, number)` of all that a text cites, where the paper is known."""
    text = re.sub(r"\s+(?:# *)?", " ", text)
    papers = {title: name for name, title in TITLES.items()}
    for match in CITATION.finditer(text):
        named = PAPER.search(text[: match.start()])
        of = papers[named[1]] if named else paper
        kind, numbers = [x for x in match.groups() if x]
        kind = kind.lower()
        for number in items(numbers):
            if of:
                yield of, WORDS.get(kind, kind), number
    for number in re.findall(r"\(([A-J]\.\d+)\)", text) if paper else ():
        yield paper, "section", number


def header(path):
    lines = path.read_text().splitlines()
    return "\n".join(line for line in lines if line.startswith("#"))


def section_of(paper):
    """The part of the document on one paper."""
    return DOCUMENT.split(f"\n## {TITLES[paper]}\n")[1].split("\n## ")[0]


def rows(text):
    """Cells of the rows of all tables of a text."""
    lines = [x for x in text.splitlines() if x.startswith("| ") and "---" not in x]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def sources():
    """`(name, text, paper)` of what cites the papers; None where it must name them."""
    for path in RECIPES:
        yield recipe_id(path), header(path), path.parent.name
    for name in TITLES:
        yield f"papers.md {name}", section_of(name), name
        first = [f"table {row[0]}" for row in rows(section_of(name))[1:]]
        tables = [x for x in first if re.match(r"table \d", x)]
        yield f"papers.md {name}, tables", "; ".join(tables), name
    for cells in rows(DOCUMENT.split("## Where paper and code disagree")[1]):
        paper = next((n for n, t in TITLES.items() if cells[0].startswith(t)), None)
        yield f"papers.md {cells[0]}", " ; ".join(cells), paper
    for room in ("models", "layers", "objectives"):
        for path in sorted((ROOT / "tfavmae" / room).glob("*.py")):
            paper = path.stem if path.stem in TITLES else None
            yield f"{room}/{path.name}", path.read_text(), paper


CITED = [(name, *x) for name, text, of in sources() for x in citations(text, of)]


def test_what_is_cited_exists():
    """CAV-MAE has no section 4.1, AV-MAE no table 25."""
    assert len(CITED) > 300
    wrong = [x for x in CITED if x[3] not in CONTENTS[x[1]].get(x[2], "").split()]
    assert not wrong


def test_citations_are_found_in_sentences():
    text = "A (MAViL, appendix B.2) and tables 1, 7a and 12 to 14; CAV-MAE equation (9)"
    assert list(citations(text, "av_mae")) == [
        ("mavil", "section", "B.2"),
        *(("av_mae", "table", n) for n in ("1", "7a", "12", "13", "14")),
        ("cav_mae", "equation", "9"),
    ]


# Pictures of models are no results.
ILLUSTRATIONS = {
    "av_mae": {"1", "2", "3"},
    "cav_mae": {"1", "3"},
    "mavil": {"1", "2"},
}


@pytest.mark.parametrize("paper", TITLES)
def test_every_table_and_figure_of_a_paper_is_in_the_document(paper):
    cited = {x[2:] for x in CITED if x[0].startswith("papers.md") and x[1] == paper}
    for kind in ("table", "figure"):
        numbers = {n for k, n in cited if k == kind}
        # A table is covered by itself, or by all of its parts.
        parts = {n[:-1] for n in numbers if not n.isdigit()}
        for number in CONTENTS[paper][kind].split():
            if kind == "figure" and number in ILLUSTRATIONS[paper]:
                continue
            assert {number, number.rstrip("abcdefghi")} & (numbers | parts), number


# --- Figures ---


def numbers_of(text):
    return set(re.findall(r"(?<![\w.+-])\d+\.\d+(?![\w.])", text))


def published(recipes):
    """Numbers with a decimal in the rows of the document that name such a recipe."""
    named = [cells for cells in rows(DOCUMENT) if re.search(recipes, " ".join(cells))]
    return {n for cells in named for n in numbers_of(cells[-1])}


@pytest.mark.parametrize("path", OF_PAPERS, ids=recipe_id)
def test_scores_of_a_recipe_are_those_of_its_rows(path):
    """MAViL's 53.3 and 67.1 belong to other initial weights than the recipe's."""
    text = re.sub(r"\n# *", " ", header(path))
    score = text.split("Score: ")[1].split("Ours: ")[0]
    assert numbers_of(score) <= published(f"configs/{recipe_id(path)}`")


def test_scores_in_the_readme_are_those_of_the_rows():
    for name in TITLES:
        row = re.search(rf"\| .*\(configs/{name}\).*", (ROOT / "README.md").read_text())
        assert numbers_of(row[0])
        assert numbers_of(row[0]) <= published(f"configs/{name}/")


# --- Values ---


def load(path, *overrides):
    return config_lib.load(path, overrides)


def pretraining(paper):
    paths = sorted(ROOT.glob(f"configs/{paper}/pretrain_*.yaml"))
    return [p for p in paths if "sounding_shapes" not in p.name]


def test_av_mae_recipes_share_the_hyperparameters_of_table_20():
    """One set for all data sets (B.1), random masks for both modalities (4.1)."""
    for path in pretraining("av_mae"):
        config = load(path)
        optimizer = config.optimizer
        assert optimizer.warmup_epochs == 40 and optimizer.weight_decay == 0
        assert optimizer.learning_rate == 1.5e-4 and optimizer.learning_rate_per_256
        assert config.data.batch_size == 512
        assert not config.data.augment.as_dict()
        assert "masking" not in config.model.options.as_dict()
    masking = presets.papers()["av_mae"]
    model = presets.build_pretraining(
        "av_mae",
        "tiny",
        audio={"num_frames": 160, "num_mel_bins": 32},
        video={"num_frames": 4, "height": 32, "width": 32},
    )
    assert isinstance(model, masking)
    assert (model.audio_masking.strategy, model.audio_masking.ratio) == ("random", 0.5)
    assert (model.video_masking.strategy, model.video_masking.ratio) == ("random", 0.9)


COMPARED = [
    f"pretrain_audioset{name}"
    for name in ("", "_audio_mae", "_av_mae", "_cav", "_vanilla_av_mae", "_visual_mae")
]


def test_cav_mae_models_that_are_compared_are_trained_alike():
    """All but Scale+: a batch of 48 for 12 epochs on AudioSet-2M (section 3)."""
    for path in pretraining("cav_mae"):
        if path.stem not in COMPARED:
            continue
        config = load(path)
        assert config.data.dataset == "audioset/full"
        assert (config.data.batch_size, config.trainer.num_epochs) == (48, 12)
        assert config.optimizer.learning_rate == 5e-5
    scale_plus = load(ROOT / "configs/cav_mae/pretrain_audioset_scale_plus.yaml")
    assert (scale_plus.data.batch_size, scale_plus.trainer.num_epochs) == (108, 25)


def test_cav_mae_augments_the_spectrogram_and_not_the_waveform():
    noise = {"noise_level": 0.1, "max_roll_frames": 1024}
    more = {
        "mixup_probability": 0.5,
        "mixup_alpha": 10.0,
        "frequency_mask_bins": 48,
        "time_mask_frames": 192,
    }
    for path in OF_PAPERS:
        if path.parent.name != "cav_mae":
            continue
        config = load(path)
        assert not config.data.augment.as_dict()
        augmentation = config.model.options.as_dict().get("augmentation")
        if "visual" in path.stem:
            assert augmentation is None
        else:
            assert augmentation == noise | (more if config.stage == "finetune" else {})


def test_mavil_divides_by_the_deviation_of_table_9_everywhere():
    expected = (-4.268, 4.569)
    inputs = presets.papers()["mavil"].INPUTS["audio"]
    assert statistics("mavil_audioset") == (inputs["mean"], inputs["std"]) == expected
    for path in pretraining("mavil"):
        audio = load(path).model.audio
        assert (audio.mean, audio.std) == expected
        named = load(path, "model.audio.statistics=mavil_audioset").model.audio
        assert (named.mean, named.std) == expected
        theirs = load(path, "model.audio.statistics=audio_mae_audioset").model.audio
        assert (theirs.mean, theirs.std) == statistics("audio_mae_audioset")
