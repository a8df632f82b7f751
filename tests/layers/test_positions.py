"""Positions of tokens: which tell times apart, at every width."""

import numpy as np
import pytest

from tfavmae.layers.positions import PositionEmbedding, sincos, sincos_2d

GRID = (4, 14, 14)  # MAViL's video: 784 tokens


def table(time, dim, grid=GRID):
    layer = PositionEmbedding(grid, time=time, trainable=False)
    zeros = np.zeros((1, int(np.prod(grid)), dim), "float32")
    return layer, np.asarray(layer(zeros))[0]


def distinct(rows):
    return len(np.unique(rows.round(5), axis=0))


@pytest.mark.parametrize("dim", [512, 768])
@pytest.mark.parametrize("time, count", [("none", 196), ("sincos", 784)])
def test_number_of_distinct_positions(dim, time, count):
    assert distinct(table(time, dim)[1]) == count


@pytest.mark.parametrize("dim", [512, 768])
def test_space_and_time_are_separable(dim):
    _, rows = table("sincos", dim)
    space = sincos_2d(GRID[1:], dim, first_axis=1)
    expected = space[None] + sincos(np.arange(4), dim)[:, None]
    np.testing.assert_allclose(rows.reshape(4, 196, dim), expected, atol=1e-6)


def test_learned_times_are_trained_though_the_table_is_frozen():
    layer, rows = table("learned", 8)
    assert [v.path.split("/")[-1] for v in layer.trainable_variables] == ["time_table"]
    times = np.asarray(layer.time_table)
    assert times.shape == (4, 8)
    space = sincos_2d(GRID[1:], 8, first_axis=1)
    np.testing.assert_allclose(
        rows.reshape(4, 196, 8), space[None] + times[:, None], atol=1e-6
    )
    gathered = layer(np.zeros((1, 2, 8), "float32"), np.array([[783, 5]]))
    np.testing.assert_allclose(gathered[0], rows[[783, 5]], atol=1e-6)


@pytest.mark.parametrize("time", ["none", "sincos", "learned"])
def test_a_single_time_is_not_encoded(time):
    layer, rows = table(time, 16, (1, 3, 2))
    np.testing.assert_allclose(rows, sincos_2d((3, 2), 16, 1), atol=1e-6)
    assert not layer.trainable_variables


@pytest.mark.parametrize("time", ["none", "sincos", "learned"])
@pytest.mark.parametrize("trainable", [False, True])
def test_round_trip(time, trainable):
    layer = PositionEmbedding(GRID, time=time, trainable=trainable)
    again = PositionEmbedding.from_config(layer.get_config())
    for x in (layer, again):
        x.build((None, None, 8))
    assert again.get_config() == layer.get_config()
    assert len(again.trainable_variables) == trainable + (time == "learned")


def test_an_unknown_time_is_refused():
    with pytest.raises(ValueError, match="`time` must be one of"):
        PositionEmbedding(GRID, time="tiled")
