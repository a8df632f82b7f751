"""The long film of `benchmarks/embedding.py`."""

import importlib.util
import pathlib

import av
import media_files
import pytest

PATH = pathlib.Path(__file__).resolve().parents[2] / "benchmarks" / "embedding.py"


def test_a_film_is_repeated_without_encoding_it_again(tmp_path):
    spec = importlib.util.spec_from_file_location("embedding_benchmark", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    source = media_files.write_clip(tmp_path / "source.mp4", seconds=2.0)
    module.loop(source, tmp_path / "long.mp4", 7.0)
    sizes, times = [], []
    for path in (source, tmp_path / "long.mp4"):
        with av.open(str(path)) as film:
            sizes.append([p.size for p in film.demux(video=0) if p.size])
        with av.open(str(path)) as film:
            times.append([frame.time for frame in film.decode(video=0)])
    assert sizes[1] == 4 * sizes[0]
    length = times[1][len(times[0])]
    assert length == pytest.approx(2.0, abs=0.1)
    expected = [t + n * length for n in range(4) for t in times[0]]
    assert times[1] == pytest.approx(expected, abs=0.01)
