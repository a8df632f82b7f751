"""Numbers that the authors' own code produced: where they are and how to read them."""

import functools
import json
import os
import pathlib
import re

import numpy as np
import pytest
import tensorflow as tf

from tfavmae.models.transfer import address

GOLDEN = pathlib.Path(os.environ.get("TFAVMAE_GOLDEN", "tests/golden"))
FREQUENCIES, PATCH = 8, 16  # Of CAV-MAE's spectrograms.

# Absolute on tensors of order 1; relative on losses.
AV_MAE_TOLERANCE, CAV_MAE_TOLERANCE, LOSS_TOLERANCE = 1e-5, 2e-5, 1e-5


def each_file(folder, pattern, without=(), entries=".*"):
    """Makes a test one for each file of a folder; none where it is absent.

    The test must `load` the file and look at everything in it: an entry that it does
    not know is a number that nothing is held to.

    Args:
        folder, pattern: which files, below `GOLDEN`.
        without: patterns of files that are not meant.
        entries: regular expression of what the test answers for, if others do for the
            rest.
    """
    found = sorted((GOLDEN / folder).glob(pattern))
    found = [p for p in found if not any(p.match(other) for other in without)]

    def decorate(test):
        @functools.wraps(test)
        def checked(path, **fixtures):
            LOADED.clear()
            test(path, **fixtures)
            assert LOADED[path], f"{path} holds nothing"
            ours = (name for name in LOADED[path] if re.fullmatch(entries, name))
            unread = sorted(set(ours) - LOADED[path].read)
            assert not unread, f"{len(unread)} entries were not compared: {unread[:5]}"

        if found:
            return pytest.mark.parametrize("path", found, ids=lambda p: p.stem)(checked)
        checked.__test__ = False
        return checked

    return decorate


class Golden(dict):
    """A file's arrays by name, and the names that have been read."""

    def __init__(self, arrays):
        super().__init__(arrays)
        self.read = set()

    def __getitem__(self, name):
        self.read.add(name)
        return super().__getitem__(name)

    def get(self, name, default=None):
        if name not in self:
            return default
        return self[name]


LOADED = {}  # What the running test has loaded, by path.


def load(path):
    """The file as a `Golden`; half precision, which is exact there, widened."""
    if path not in LOADED:
        with np.load(path) as arrays:
            named = {name: arrays[name] for name in arrays.files}
        half = (name for name in named if named[name].dtype == np.float16)
        LOADED[path] = Golden(named | {n: named[n].astype("float32") for n in half})
    return LOADED[path]


def load_json(path):
    """The entries of a JSON object as a `Golden`."""
    if path not in LOADED:
        LOADED[path] = Golden(json.loads(path.read_text()))
    return LOADED[path]


def below(golden, prefix):
    """The entries below a prefix, without it."""
    return {k.removeprefix(prefix): golden[k] for k in golden if k.startswith(prefix)}


def noise_of(order):
    """Noise that makes `TokenMasking` draw tokens in a recorded order."""
    return np.argsort(order, axis=1).astype("float32") / order.shape[1]


def in_our_order(array, tokens=None, values=None, indices=False):
    """A CAV-MAE audio array with its tokens, and the values in them, as ours.

    Theirs go frequency by frequency with time fastest, on the grid of patches and
    within a patch alike; ours go time by time with frequency fastest. Video needs
    nothing: both go row by row, and a patch by row, column and channel. AV-MAE has our
    orders.

    Args:
        array: theirs.
        tokens: axis of all tokens, if any.
        values: axis of a patch's values, if any.
        indices: the entries are numbers of tokens, out of `array.shape[1]`.
    """
    for axis, rows in ((tokens, FREQUENCIES), (values, PATCH)):
        if axis is not None:
            grid = np.arange(array.shape[axis]).reshape(rows, -1)
            array = np.take(array, grid.T.ravel(), axis=axis)
    if indices:
        times = array.shape[1] // FREQUENCIES
        array = array % times * FREQUENCIES + array // times
    return array


def close(ours, theirs, tolerance, what=""):
    """Asserts that no entry differs by more than `tolerance`."""
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    assert ours.shape == theirs.shape, f"{what}: {ours.shape} is not {theirs.shape}"
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance, err_msg=what)


def same_loss(ours, theirs, what=""):
    np.testing.assert_allclose(ours, theirs, rtol=LOSS_TOLERANCE, err_msg=what)


def gradients_of(model, batch):
    """Dict of address to gradient of the loss."""
    with tf.GradientTape() as tape:
        loss = model.compute_losses(batch, model(batch, masked=True))["loss"]
    gradients = tape.gradient(loss, model.trainable_variables)
    named = zip(map(address, model.trainable_variables), gradients, strict=True)
    return {name: np.asarray(x) for name, x in named if x is not None}


def close_gradients(pairs):
    """Gradients by name, ours and theirs, to 1e-4 of the largest norm of a leaf."""
    norms = [np.linalg.norm(theirs) for _, theirs in pairs.values()]
    for name, (ours, theirs) in pairs.items():
        close(ours, theirs, 1e-4 * max(norms) + 1e-7, name)
