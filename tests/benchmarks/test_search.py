"""The figures of `benchmarks/search.py`, at a small size."""

import importlib.util
import pathlib

import numpy as np
import optional
import pytest

PATH = pathlib.Path(__file__).resolve().parents[2] / "benchmarks" / "search.py"

optional.need("lancedb")


@pytest.fixture(scope="module")
def benchmark():
    spec = importlib.util.spec_from_file_location("search_benchmark", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_vectors_of_a_scene_lie_near_each_other(benchmark):
    vectors = benchmark.Simulated(1000, 32).vectors(400)
    assert vectors.shape == (400, 32) and vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, rtol=1e-5)
    similarity = np.sort(vectors @ vectors.T, axis=1)
    # Ten scenes: about forty of 400 are near, the others are not.
    assert np.median(similarity[:, -20]) > 0.6 > np.median(similarity[:, -100])


def test_a_small_index_is_searched_approximately(benchmark, tmp_path):
    address = str(tmp_path / "index")
    figures = benchmark.search_figures(address, 3000, 32, 20, threshold=3000)
    assert figures["recall_at_10"] >= 0.95 and figures["probes"] >= 8
    assert 0 < figures["p50_ms"] <= figures["p95_ms"]
    # One that is there is used again.
    again = benchmark.search_figures(address, 3000, 32, 20, threshold=3000)
    assert "write_seconds" not in again


def test_below_the_threshold_nothing_is_missed(benchmark, tmp_path):
    figures = benchmark.search_figures(
        str(tmp_path / "index"), 1000, 32, 20, threshold=2000
    )
    assert figures["recall_at_10"] == 1.0 and "probes" not in figures
