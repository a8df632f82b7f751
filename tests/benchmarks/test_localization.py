"""`benchmarks/localization.py`: the summary of its seeds, and runs that are missing."""

import importlib.util
import pathlib
import sys

import pytest

FILE = pathlib.Path(__file__).parents[2] / "benchmarks" / "localization.py"


@pytest.fixture(scope="module")
def localization():
    spec = importlib.util.spec_from_file_location("localization_benchmark", FILE)
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(FILE.parent))
    spec.loader.exec_module(module)
    yield module
    sys.path.remove(str(FILE.parent))


def result(seed, relative, box):
    values = {"relative_range": relative, "centre_box": box}
    predictions = {
        name: {"success": {"value": x}, "auc": {"value": x / 2}}
        for name, x in values.items()
    }
    return {"name": "cav_mae/both", "seed": seed, "predictions": predictions}


def test_the_mean_over_seeds_is_compared_with_that_of_the_box(localization):
    found = [result(0, 0.2, 0.1), result(1, 0.4, 0.1)]
    rows = localization.summarize(found)["cav_mae/both"]
    assert rows["relative_range"]["ratio"] == pytest.approx(3.0)
    assert rows["relative_range"]["reached"] and not rows["centre_box"]["reached"]
    text = localization.page(localization.summarize(found))
    assert "30.0 (20.0 to 40.0) | 15.0 (10.0 to 20.0) | 3.0 | yes" in text


def test_runs_that_are_not_there_are_named(localization, tmp_path, capsys):
    assert localization.main(["--runs", str(tmp_path)]) == 2
    assert "no finished run cav_mae/contrast of seed 0" in capsys.readouterr().err
