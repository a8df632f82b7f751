"""`tfavmae presets`: what it says is what the models have."""

import json
import pathlib
import re

import pytest

from tfavmae.models.flops import forward_flops
from tfavmae.models.preset_table import select
from tfavmae.models.presets import build_pretraining, papers, preset_names


def test_figures_are_those_of_the_models(cli):
    done = cli("presets", "cav_mae_tiny", "mavil_tiny", "--json")
    assert done.status == 0, done
    found = {one["name"]: one for one in json.loads(done.out)}
    assert list(found) == ["cav_mae_tiny", "mavil_tiny"]
    for name, one in found.items():
        model = build_pretraining(name.removesuffix("_tiny"), "tiny")
        assert one["model"] == type(model).__name__
        assert one["parameters"] == model.count_params()
        assert one["flops"] == forward_flops(model, masked=False)


def test_a_size_of_the_paper_has_its_figures_and_their_source(cli):
    done = cli("presets", "cav_mae_base")
    assert done.status == 0, done
    assert re.search(r"cav_mae_base +190.9 M +143.8\n", done.out)
    assert "AudioSet 51.2 (balanced 42.0), VGGSound 65.5" in done.out
    assert "(Gong et al., ICLR 2023, table 1, Scale+)" in done.out


def test_no_memory_is_taken_for_weights(cli, monkeypatch):
    from tfavmae.models import preset_table

    made = []
    monkeypatch.setattr(
        preset_table, "forward_flops", lambda model, masked: made.append(model) or 0
    )
    assert cli("presets", "mavil_large").status == 0
    # 686 million of them would be 2.7 GB.
    assert all(v.shape for v in made[0].trainable_variables)
    assert not [v for v in made[0].variables if v._value is not None]


def test_names_of_papers_and_presets():
    assert select([]) == list(preset_names())
    assert len(select([])) >= 19
    assert select(["mavil", "cav_mae_base"]) == [
        "cav_mae_base",
        *(f"mavil_{size}" for size in ("tiny", "small", "base", "large")),
    ]


def test_an_unknown_name_is_an_error(cli):
    done = cli("presets", "mavil_bas")
    assert done.status == 2 and "did you mean 'mavil_base'?" in done.err


@pytest.mark.parametrize("name", sorted(set(papers()) - {"cav_mae_sync"}))
def test_published_figures_are_those_of_the_page_of_papers(name):
    page = (pathlib.Path(__file__).parents[2] / "docs" / "papers.md").read_text()
    kind = papers()[name]
    assert kind.PUBLISHED and set(kind.PUBLISHED) <= set(kind.SIZES)
    for one in kind.PUBLISHED.values():
        figures = re.findall(r"\d+\.\d", one.figures)
        assert figures and not [x for x in figures if x not in page]
