"""Micro-batching: who shares a batch, and who gets which answer."""

import asyncio
import threading

import numpy as np
import pytest

from tfavmae.serving.batching import Batcher
from tfavmae.serving.protocol import RequestError, SignatureSpec, TensorSpec

ROWS = SignatureSpec({"x": TensorSpec("float32", (None, None))}, {})
ALONE = SignatureSpec(
    {"x": TensorSpec("float32", (None,) * 2), "seed": TensorSpec("int32", ())}, {}
)


class Recorder:
    """A version that doubles `x`, and keeps what it was asked."""

    signatures = {"double": ROWS, "total": ROWS, "seeded": ALONE}

    def __init__(self):
        self.batches = []
        self.gate = threading.Event()
        self.gate.set()

    def run(self, signature, inputs):
        self.gate.wait(10)
        self.batches.append(len(inputs["x"]))
        if (inputs["x"] < 0).any():
            raise RequestError(400, "negative")
        if signature == "total":
            return {"total": inputs["x"].sum()}
        return {"y": 2 * inputs["x"]}


def rows(*values, width=1):
    return {"x": np.array(values, "float32")[:, None].repeat(width, 1)}


def gathered(requests, max_batch=4, max_rows=100):
    """Answers to requests that arrive while the model is busy with another one."""

    async def main():
        version, batcher = Recorder(), Batcher(max_batch, max_rows)
        version.gate.clear()
        first = asyncio.create_task(batcher.run(version, "double", rows(0.0)))
        await asyncio.sleep(0.05)
        tasks = [
            asyncio.create_task(batcher.run(version, name, inputs))
            for name, inputs in requests
        ]
        await asyncio.sleep(0.05)
        version.gate.set()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        await first
        batcher.close()
        return answers, version.batches[1:]

    return asyncio.run(main())


def test_what_waits_together_runs_together():
    answers, batches = gathered([("double", rows(float(i))) for i in range(6)])
    assert batches == [4, 2]
    assert [float(a["y"][0, 0]) for a in answers] == [0, 2, 4, 6, 8, 10]


def test_other_shapes_and_signatures_have_batches_of_their_own():
    requests = [
        ("double", rows(1.0)),
        ("double", rows(1.0, width=3)),
        ("seeded", {**rows(1.0), "seed": np.int32(0)}),
        ("seeded", {**rows(1.0), "seed": np.int32(1)}),
        ("double", rows(2.0)),
    ]
    answers, batches = gathered(requests)
    assert batches == [2, 1, 1, 1]
    assert answers[1]["y"].shape == (1, 3)
    assert float(answers[4]["y"][0, 0]) == 4


def test_a_large_request_runs_in_pieces():
    ((answer,), batches) = gathered([("double", rows(*map(float, range(10))))])
    assert batches == [4, 4, 2]
    np.testing.assert_array_equal(answer["y"][:, 0], 2 * np.arange(10))


def test_one_to_blame_is_alone_in_its_error():
    answers, batches = gathered([("double", rows(v)) for v in (1.0, -1.0, 3.0)])
    assert batches == [3, 1, 1, 1]
    assert isinstance(answers[1], RequestError)
    assert [float(answers[i]["y"][0, 0]) for i in (0, 2)] == [2, 6]


def test_an_output_that_is_no_row_is_not_shared():
    answers, batches = gathered([("total", rows(1.0)), ("total", rows(5.0))])
    assert [float(a["total"]) for a in answers] == [1, 5]
    assert batches == [2, 1, 1]


def test_rows_in_pieces_need_outputs_in_rows():
    answers, _ = gathered([("total", rows(*map(float, range(5))))])
    assert "at most 4 rows" in answers[0].message


def test_who_has_given_up_costs_no_time():
    async def main():
        version, batcher = Recorder(), Batcher(1)
        version.gate.clear()
        tasks = [
            asyncio.create_task(batcher.run(version, "double", rows(float(i))))
            for i in range(3)
        ]
        await asyncio.sleep(0.05)
        tasks[1].cancel()
        await asyncio.sleep(0.01)
        version.gate.set()
        answer = await tasks[2]
        batcher.close()
        return version.batches, float(answer["y"][0, 0])

    assert asyncio.run(main()) == ([1, 1], 4)


@pytest.mark.parametrize("inputs", [{"x": np.zeros((0, 1))}, {"x": np.zeros((101, 1))}])
def test_the_number_of_rows_is_limited(inputs):
    batcher = Batcher(max_rows=100)
    with pytest.raises(RequestError, match="1 to 100 rows; received") as caught:
        asyncio.run(batcher.run(Recorder(), "double", inputs))
    assert caught.value.status == 400


def test_inputs_of_several_lengths_are_refused():
    inputs = {"x": np.zeros((2, 1)), "z": np.zeros((3, 1))}
    with pytest.raises(RequestError, match="different batch sizes"):
        asyncio.run(Batcher().run(Recorder(), "double", inputs))
