"""Beam's DaskRunner with what a build of TFDS needs beyond it (extra `beam`).

With Beam 2.77, that runner computes nothing but the last transform of a pipeline, fails
at `Read`, gives each consumer of a transform all of its outputs, drops what a `DoFn`
emits at the end of a bundle, and leaves reshuffled elements where they are. The
translation here does all five; it takes windows to be global, as those of a build are.
It can go when Beam's does them.
"""

import dataclasses
import itertools
from collections.abc import Iterable
from typing import Any

import apache_beam as beam
import dask
import distributed
from apache_beam.pipeline import AppliedPTransform, PipelineVisitor
from apache_beam.runners import common
from apache_beam.runners.dask import dask_runner, overrides, transform_evaluator
from apache_beam.transforms.sideinputs import SideInputMap
from dask import bag

_BUNDLE_BYTES = 64 * 2**20
_PARTITIONS_PER_THREAD = 4  # so that threads that are done early find more to do


class DaskRunner(dask_runner.DaskRunner):
    """Runs a pipeline on a Dask cluster; its options are those of Beam's DaskRunner.

    A worker that is lost costs the time for its part of the work. With
    `dask_npartitions`, elements are spread over that many tasks; by default, four for
    each thread of the cluster.
    """

    def run_pipeline(
        self, pipeline: beam.Pipeline, options: Any
    ) -> dask_runner.DaskRunnerResult:
        options = options.view_as(dask_runner.DaskOptions)
        chosen = options.get_all_options(drop_default=True, current_only=True)
        bags = dask_runner.DaskOptions._extract_bag_kwargs(chosen)
        client = distributed.Client(**chosen)
        threads = sum(client.nthreads().values())
        bags = bags or {"npartitions": _PARTITIONS_PER_THREAD * max(threads, 1)}
        pipeline.replace_all(overrides.dask_overrides())
        translation = _Translation(bags)
        pipeline.visit(translation)
        # Everything is computed, also what nothing reads: writing is such a transform.
        ends = [part.map_partitions(_discard) for part in translation.bags.values()]
        return _Result(client, client.compute(ends))


class _Result(dask_runner.DaskRunnerResult):
    def wait_until_finish(self, duration: int | None = None) -> str:
        try:
            return super().wait_until_finish(duration)
        finally:
            # Else it would look for a cluster that has gone, and complain.
            self.client.close()


class _Translation(PipelineVisitor):
    """The bag of each output of the transforms of a pipeline, by producer and tag."""

    def __init__(self, options: dict[str, int]) -> None:
        self.options = options
        self.bags: dict[tuple[AppliedPTransform, str | None], bag.Bag] = {}

    def visit_transform(self, node: AppliedPTransform) -> None:
        transform = node.transform
        inputs = [self._of(value) for value in node.inputs if self._is_made(value)]
        if isinstance(transform, overrides._Read):
            result = _read(transform.source)
        elif type(transform) is beam.ParDo:
            for tag, part in self._par_do(node, *inputs).items():
                self.bags[node, tag] = part
            return
        elif isinstance(transform, overrides._Reshuffle):
            result = inputs[0].repartition(**self.options)
        elif isinstance(transform, overrides._GroupByKeyOnly):
            # Elements are (key, windowed value) here.
            grouped = inputs[0].groupby(_key, shuffle="tasks")
            result = grouped.map(_values)
        elif isinstance(transform, overrides._Flatten):
            result = bag.concat(inputs)
        elif isinstance(transform, overrides._Create):
            translated = transform_evaluator.Create(node, bag_kwargs=self.options)
            result = translated.apply(None)
        elif inputs:  # windows: all are global
            (result,) = inputs
        else:
            return
        for tag in node.outputs:
            self.bags[node, tag] = result

    def _is_made(self, value: Any) -> bool:
        return (value.producer, getattr(value, "tag", None)) in self.bags

    def _of(self, value: Any) -> bag.Bag:
        return self.bags[value.producer, value.tag]

    def _par_do(
        self, node: AppliedPTransform, elements: bag.Bag
    ) -> dict[str | None, bag.Bag]:
        sides = [(type(s), s._view_options()) for s in node.side_inputs]
        contents = [
            dask.delayed(_joined)(self._of(s.pvalue).to_delayed())
            for s in node.side_inputs
        ]
        call = _Call(node.transform.fn, node.transform.raw_side_inputs, sides)
        outputs = elements.map_partitions(call, *contents)
        return {tag: outputs.map_partitions(_only, tag) for tag in node.outputs}


@dataclasses.dataclass
class _Call:
    """A `DoFn` and its arguments; called with the elements of a partition."""

    do_fn: beam.DoFn
    arguments: tuple[tuple, dict[str, Any]]
    sides: list[tuple[type, dict[str, Any]]]

    def __call__(
        self, elements: Iterable[Any], *contents: list
    ) -> list[tuple[str | None, Any]]:
        """Pairs of tag and element."""
        outputs = _Receivers()
        handler = common._OutputHandler(
            window_fn=beam.transforms.window.GlobalWindows(),
            main_receivers=outputs[None],
            tagged_receivers=outputs,
            per_element_output_counter=None,
            output_batch_converter=None,
            process_yields_batches=False,
            process_batch_yields_elements=False,
        )
        args, kwargs = self.arguments
        invoker = common.DoFnInvoker.create_invoker(
            common.DoFnSignature(self.do_fn),
            handler,
            context=common.DoFnContext("", state=None),
            side_inputs=[
                SideInputMap(view, options, [_windowed(x) for x in content])
                for (view, options), content in zip(self.sides, contents, strict=True)
            ],
            input_args=list(args),
            input_kwargs=kwargs,
            user_state_context=None,
            bundle_finalizer_param=beam.DoFn.BundleFinalizerParam(),
        )
        invoker.invoke_setup()
        try:
            invoker.invoke_start_bundle()
            for element in elements:
                invoker.invoke_process(_windowed(element))
            invoker.invoke_finish_bundle()
        finally:
            invoker.invoke_teardown()
        return outputs.pairs


class _Receivers(dict):
    """Receivers of outputs by tag, which note pairs of tag and element."""

    def __init__(self) -> None:
        super().__init__()
        self.pairs: list[tuple[str | None, Any]] = []

    def __missing__(self, tag: str | None) -> "_Receiver":
        self[tag] = _Receiver(tag, self.pairs)
        return self[tag]


@dataclasses.dataclass
class _Receiver(common.Receiver):
    tag: str | None
    pairs: list[tuple[str | None, Any]]

    def receive(self, windowed_value: Any) -> None:
        self.pairs.append((self.tag, windowed_value.value))


def _read(source: Any) -> bag.Bag:
    """The elements of a bounded source, a partition for each of its bundles."""
    bundles = list(source.split(_BUNDLE_BYTES))
    return (
        bag.from_sequence(bundles, npartitions=len(bundles)).map(_of_bundle).flatten()
    )


def _of_bundle(bundle: Any) -> list:
    tracker = bundle.source.get_range_tracker(
        bundle.start_position, bundle.stop_position
    )
    return list(bundle.source.read(tracker))


def _windowed(element: Any) -> Any:
    return beam.transforms.window.GlobalWindows.windowed_value(element)


def _joined(parts: list[list]) -> list:
    return list(itertools.chain.from_iterable(parts))


def _only(pairs: Iterable[tuple[str | None, Any]], tag: str | None) -> list:
    return [element for found, element in pairs if found == tag]


def _key(pair: tuple[Any, Any]) -> Any:
    return pair[0]


def _values(group: tuple[Any, list]) -> tuple[Any, list]:
    key, pairs = group
    return key, [windowed.value for _, windowed in pairs]


def _discard(elements: Iterable[Any]) -> list:
    for _ in elements:
        pass
    return []
