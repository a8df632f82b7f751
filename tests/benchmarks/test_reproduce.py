"""The claims of the papers: which runs they need, what counts, what is written."""

import json
import pathlib
import re
import sys

import numpy as np
import pytest
from scipy.io import wavfile

from tfavmae.config import experiment as config_lib
from tfavmae.errors import UserError

FOLDER = pathlib.Path(__file__).resolve().parents[2] / "benchmarks"
sys.path.insert(0, str(FOLDER))

import reproduce  # noqa: E402
from reproduction import claims as claims_lib  # noqa: E402
from reproduction import experiments, outcomes, page, work  # noqa: E402
from reproduction.outcomes import Claim, Comparison  # noqa: E402


@pytest.fixture(scope="module")
def runs():
    return experiments.experiments(500, 300, with_digits=True)


def rows(**values):
    """Results of the runs `first`, `second`: a value for each seed."""
    return {
        f"{name}/{seed}": {"value": value, "seconds": 1.0}
        for name, given in values.items()
        for seed, value in enumerate(given)
    }


def echo(job):
    """Stands for a run; needs to be at the top of the file to reach a worker."""
    return {"value": float(len(job.needs)), "seconds": 0.0}


def compared(kind, first, second=None):
    other = {} if second is None else {"second": 1.0}
    comparison = Comparison("a, b", "1, 2", {"first": 1.0}, other, kind)
    given = {"first": first} if second is None else {"first": first, "second": second}
    return outcomes.outcome(comparison, rows(**given), range(3))


# --- Runs ---


def test_claims_compare_runs_that_are_measured(runs):
    compared_runs = {
        name
        for claim in claims_lib.claims(with_digits=True)
        for one in claim.comparisons
        for name in (*one.first, *one.second)
    }
    for name in compared_runs:
        assert runs[name].is_classifier or runs[name].retrieves, name
    # And no run is for nothing: it is compared, or another one starts from it.
    needed = {name for run in runs.values() for name in run.needs}
    assert runs.keys() == compared_runs | needed


def test_runs_come_after_those_that_they_need(runs):
    seen = set()
    for name, run in runs.items():
        assert {*run.needs} <= seen
        seen.add(name)


def test_every_config_can_be_read(runs, tmp_path):
    for run in runs.values():
        config = experiments.config_of(run, runs, 1, tmp_path)
        read = config_lib.from_dict(config)
        assert read.trainer.seed == 1 + run.seed_shift
        assert read.trainer.num_steps == (300 if run.is_classifier else 500)
        assert bool(read.teacher_from) == bool(run.teacher)


def test_a_digest_follows_what_the_run_starts_from(runs):
    changed = experiments.experiments(501, 300, with_digits=True)
    same, other = ("cav_mae/scratch/labels_10", "cav_mae/both/labels_10")
    digest = experiments.digest_of
    assert digest(runs[same], runs, 0) == digest(changed[same], changed, 0)
    assert digest(runs[other], runs, 0) != digest(changed[other], changed, 0)
    assert digest(runs[same], runs, 0) != digest(runs[same], runs, 1)


def test_a_dry_run_lists_runs_and_hours(capsys, tmp_path, runs):
    argv = ["--dry-run", "--workdir", str(tmp_path / "none")]
    assert reproduce.main([*argv, "--seeds", "2"]) == 0
    *listed, total = capsys.readouterr().out.splitlines()
    shapes = [name for name in runs if not name.startswith("digits")]
    keys = [line.split()[-1] for line in listed]
    assert keys == [f"{name}/{seed}" for seed in (0, 1) for name in shapes]
    found = re.match(r"(\d+) runs, (\d+) to do: about ([\d.]+) hours in 2", total)
    assert int(found[1]) == int(found[2]) == 2 * len(shapes)
    assert 0.3 < float(found[3]) < 1.5
    assert not (tmp_path / "none").exists()
    reproduce.main([*argv, "--seeds", "1", "--only", "mavil/iteration_1/audio"])
    *listed, _ = capsys.readouterr().out.splitlines()
    keys = [line.split()[-1] for line in listed]
    needs = ["mavil/stage_1/0", "mavil/iteration_1/0"]
    assert keys == [*needs, "mavil/iteration_1/audio/0"]


def test_finished_runs_are_not_run_again(runs, tmp_path, monkeypatch):
    jobs = work.jobs_of(runs, range(1), tmp_path)[:5]
    path, executed = tmp_path / "results.json", []

    def execute(job):
        if len(executed) == 3:
            raise KeyboardInterrupt
        executed.append(job.key)
        return {"value": 1.0, "seconds": 2.0}

    with pytest.raises(KeyboardInterrupt):
        work.run_all(jobs, work.Results(path), 0, execute)
    assert len(json.loads(path.read_text())) == 3
    executed[:] = []
    work.run_all(jobs, work.Results(path), 0, execute)
    assert executed == [job.key for job in jobs[3:]]
    # Another config is another run, though its name is the same.
    changed = experiments.experiments(501, 300, with_digits=True)
    executed[:] = []
    work.run_all(
        work.jobs_of(changed, range(1), tmp_path)[:2], work.Results(path), 0, execute
    )
    assert executed == [job.key for job in jobs[:2]]


def test_recordings_need_their_table(tmp_path):
    with pytest.raises(UserError, match=r"digits\.csv: not found; it names label and"):
        work.prepare_digits(tmp_path / "work", tmp_path / "digits")
    (tmp_path / "digits.csv").write_text("file,label\n0.wav,0\n")
    with pytest.raises(
        UserError, match=r"digits\.csv: must have rows with file, label"
    ):
        work.prepare_digits(tmp_path / "work", tmp_path / "digits")


@pytest.mark.slow
def test_workers_wait_for_what_a_run_needs(runs, tmp_path, capsys):
    jobs = work.jobs_of(runs, range(1), tmp_path)
    results = work.Results(tmp_path / "results.json")
    work.run_all(jobs, results, 2, echo)
    finished = [line.split(":")[0] for line in capsys.readouterr().out.splitlines()]
    assert sorted(finished) == sorted(job.key for job in jobs)
    for job in jobs:
        assert all(finished.index(n) < finished.index(job.key) for n in job.needs)
        assert results.rows[job.key]["value"] == len(job.needs)


@pytest.mark.slow
def test_a_small_reproduction(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(experiments.SHAPES, "num_train_clips", 48)
    monkeypatch.setitem(experiments.SHAPES, "num_validation_clips", 24)
    argv = ["--workdir", str(tmp_path), "--seeds", "1", "--processes", "1"]
    argv += ["--num-steps", "2", "--num-finetuning-steps", "2"]
    digits, rows = tmp_path / "digits", ["file,label,speaker"]
    digits.mkdir()
    for speaker in ("ann", "bob"):
        for label in range(10):
            name = f"{label}_{speaker}.wav"
            tone = np.sin(np.arange(4000) * 0.1 * (label + 1))
            wavfile.write(digits / name, 8000, (9000 * tone).astype(np.int16))
            rows.append(f"digits/{name},{label},{speaker}")
    (tmp_path / "digits.csv").write_text("\n".join(rows) + "\n")
    argv += ["--digits", str(digits), "--write", str(tmp_path / "page.md")]
    assert reproduce.main([*argv, "--only", "cav_mae/both/labels_2"]) == 0
    assert reproduce.main([*argv, "--only", "digits/scratch/labels_1/"]) == 0
    found = json.loads((tmp_path / "results.json").read_text())
    keys = ["cav_mae/both/0", "cav_mae/both/labels_2/0", "digits/scratch/labels_1/0"]
    assert [*found] == keys
    assert all(0 <= found[key]["value"] <= 100 for key in keys)
    assert "not run" in (tmp_path / "page.md").read_text()
    capsys.readouterr()
    monkeypatch.setitem(experiments.SHAPES, "num_train_clips", 60)
    assert reproduce.main([*argv, "--only", "cav_mae/both/labels_2"]) == 2
    assert "was made with other settings" in capsys.readouterr().err


# --- Claims ---


@pytest.mark.parametrize(
    ("kind", "first", "second", "verdict"),
    [
        ("above", [50, 52, 54], [49, 50, 51], "yes"),
        ("above", [50, 52, 54], [49, 53, 51], "within the spread"),
        ("above", [50, 52, 54], [51, 53, 55], "no"),
        ("at_least", [50, 52, 54], [49, 53, 51], "yes"),
        ("at_least", [50, 52, 54], [50, 52, 54], "yes"),
        ("at_least", [50, 52, 54], [53, 51, 55], "within the spread"),
        ("at_least", [50, 52, 54], [53, 55, 57], "no"),
        # Chance is 10 of 500: 2 %.
        ("at_chance", [2.0, 3.0, 4.5], None, "yes"),
        ("at_chance", [3.0, 6.0, 6.0], None, "within the spread"),
        ("at_chance", [5.0, 6.0, 7.0], None, "no"),
        ("above_chance", [5.0, 7.0, 8.0], None, "yes"),
        ("above_chance", [2.0, 7.0, 3.0], None, "within the spread"),
        ("above_chance", [2.0, 3.0, 4.0], None, "no"),
    ],
)
def test_verdicts(kind, first, second, verdict):
    found = compared(kind, first, second)
    assert found.verdict == verdict
    expected = [a - b for a, b in zip(first, second or [2.0] * 3, strict=True)]
    assert found.differences == pytest.approx(expected)


def test_sides_are_weighted_sums_of_the_seeds_that_are_done():
    comparison = Comparison(
        "gain", "", {"first": 1.0, "second": -1.0}, {"first": 0.5, "second": 0.5}
    )
    given = rows(first=[30.0, 40.0, 50.0], second=[20.0, 28.0])
    found = outcomes.outcome(comparison, given, range(3))
    assert found.first == pytest.approx((10.0, 12.0))
    assert found.second == pytest.approx((25.0, 34.0))
    assert outcomes.outcome(comparison, given, [2]) is None


# --- Page ---


def test_the_page_is_written_from_results():
    comparisons = (
        Comparison("a <b>, c", "table 3: 39.0, 38.4", {"first": 1.0}, {"second": 1.0}),
        Comparison("not yet, c", "-", {"third": 1.0}, {"second": 1.0}),
    )
    claims = [Claim("Two are above one", "accuracy", comparisons)]
    results = rows(first=[50.0, 52.0, 54.0], second=[49.0, 50.5, 50.0])
    facts = page.Facts(
        command="make reproduce",
        num_runs=6,
        num_seeds=3,
        minutes=12.4,
        machine="a processor",
        clips=2000,
        seconds=1.0,
        classes=20,
        size=64,
        layers=3,
        width=96,
        steps=500,
        finetuning_steps=300,
        chance=2.0,
        shapes_seed=1,
    )
    text = page.page(claims, results, range(3), facts)
    lines = text.splitlines()
    words = " ".join(lines)
    assert (
        "6 runs with 3 seeds took 12 minutes of processor time on a processor" in words
    )
    assert "2000 clips of 1 s, 20 classes, 64-pixel frames" in words
    assert "## Two are above one" in lines
    cells = "52.0 (50.0 to 54.0) | 49.8 (49.0 to 50.5) | 2.2 (1.0 to 4.0) | 3 | yes |"
    assert f"| a <b>, c | table 3: 39.0, 38.4 | {cells}" in lines
    assert "| not yet, c | - | not run | not run |  | 0 | not run |" in lines
    chart = page.chart(claims, results, range(3))
    assert "a &lt;b&gt;, c" in chart and "not yet" not in chart
    # 195 pixels are 1.1 times the largest difference, 4.
    assert f'width="{195 / 4.4 * 13 / 6:.1f}"' in chart
