"""Classes of a data set and of a model, matched by name."""

import numpy as np
import pytest

from tfavmae.errors import InputWarning, UserError
from tfavmae.tasks.evaluation import in_numbers, numbers_by_name

KNOWN = ["bell", "drum", "flute"]


def test_the_same_names_and_no_names_are_left_alone():
    assert numbers_by_name(KNOWN, KNOWN, False, "set") is None
    assert numbers_by_name(None, KNOWN, False, "set") is None
    assert numbers_by_name(KNOWN, None, False, "set") is None
    with pytest.raises(UserError, match="set: its classes have no names"):
        numbers_by_name(None, KNOWN, True, "set")
    targets = np.array([2, -1, 0])
    assert in_numbers(targets, None, 3) is targets


def test_classes_in_another_order_keep_their_names():
    with pytest.warns(InputWarning, match="set: .* by name"):
        numbers = numbers_by_name(["flute", "bell"], KNOWN, False, "set")
    np.testing.assert_array_equal(numbers, [2, 0])
    found = in_numbers(np.array([0, 1, -1, 0]), numbers, 3)
    np.testing.assert_array_equal(found, [2, 0, -1, 2])
    segments = in_numbers(np.array([[0, 1], [1, -1]]), numbers, 3)
    np.testing.assert_array_equal(segments, [[2, 0], [0, -1]])
    hot = in_numbers(np.float32([[1, 0], [1, 1], [0, 0]]), numbers, 3)
    np.testing.assert_array_equal(hot, [[0, 0, 1], [1, 0, 1], [0, 0, 0]])


def test_an_unknown_class_is_an_error_unless_it_is_left_out():
    names = ["bell", "siren", "horn"]
    with pytest.raises(UserError, match="set: the run has no class 'siren'"):
        numbers_by_name(names, KNOWN, False, "set")
    numbers = numbers_by_name(names, KNOWN, True, "set")
    np.testing.assert_array_equal(numbers, [0, -1, -1])
    np.testing.assert_array_equal(in_numbers(np.array([1, 0]), numbers, 3), [-1, 0])
    hot = in_numbers(np.float32([[0, 1, 1], [1, 0, 1]]), numbers, 3)
    np.testing.assert_array_equal(hot, [[0, 0, 0], [1, 0, 0]])
