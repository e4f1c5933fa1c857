"""The pipeline: a module of plain functions, run as a Hamilton graph."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from functools import partial
from graphlib import CycleError, TopologicalSorter
from types import ModuleType
from typing import Any

from homeostat.domain.errors import PipelineError
from homeostat.ports import Compute, Through


class HamiltonPipeline:
    """`ports.Pipeline`, for one thread. The graph of a module is built once."""

    def __init__(self) -> None:
        self._drivers: dict[int, tuple[ModuleType, Any]] = {}
        self._functions: Mapping[str, str] = {}
        self._through: Through = _computed

    def __call__(
        self, module: ModuleType, wanted: Sequence[str], given: Mapping[str, Any], through: Through
    ) -> Mapping[str, Any]:
        driver = self._driver(module)
        nodes = driver.graph.nodes
        made = [name for name in wanted if name in nodes]
        _check(module, made, nodes, given)
        self._through = through
        self._functions = {
            name: node.originating_functions[0].__name__ for name, node in nodes.items() if node.originating_functions
        }
        return dict(driver.execute(made, inputs={name: value for name, value in given.items() if name in nodes}))

    def _driver(self, module: ModuleType) -> Any:
        if id(module) not in self._drivers:
            with _without("hamilton.plugins.mlflow_extensions"):  # it imports all of MLflow, for one second
                from hamilton import base, driver

            logging.getLogger("hamilton").setLevel(logging.CRITICAL)  # it prints the error that is raised anyway
            builder = driver.Builder().with_modules(module).with_adapters(_adapter(self._step), base.DictResult())
            try:
                self._drivers[id(module)] = module, builder.build()
            except Exception as error:  # whatever Hamilton finds wrong with the user's functions
                raise PipelineError(
                    f"{module.__name__} is no graph: {str(error).strip().splitlines()[0]}", where=str(module.__file__)
                ) from error
        return self._drivers[id(module)][1]

    def _step(
        self, *, node_name: str, node_callable: Callable[..., Any], node_kwargs: Mapping[str, Any], **_: Any
    ) -> Any:
        function = self._functions.get(node_name)
        if function is None:  # a node that Hamilton made itself
            return node_callable(**node_kwargs)
        return self._through(node_name, function, node_kwargs, partial(node_callable, **node_kwargs))


@contextmanager
def _without(module: str) -> Iterator[None]:
    """An import of the module fails meanwhile, unless that is done; Hamilton goes on without it. A pipeline that
    imports Hamilton's own decorators has all of it by then."""
    if module in sys.modules:
        yield
        return
    sys.modules[module] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[module]


def _computed(_name: str, _function: str, _inputs: Mapping[str, Any], compute: Compute) -> Any:
    return compute()


def _adapter(step: Callable[..., Any]) -> Any:
    """A Hamilton adapter that hands each step to `step`."""
    from hamilton.lifecycle import NodeExecutionMethod

    return type("Through", (NodeExecutionMethod,), {"run_to_execute_node": lambda _self, **node: step(**node)})()


def _check(module: ModuleType, made: Sequence[str], nodes: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """No step needs itself; every input that a wanted step reaches is given, unless it has a default; and what is given
    is not made anew: the model would be trained on another input than it is served."""
    reached = _reached(made, nodes)
    _order(module, reached, nodes)
    for name in sorted(reached):
        node = nodes[name]
        needing = sorted(one.name for one in node.depended_on_by if one.name in reached and _needs(one, name))
        if node.user_defined and name not in given and needing:
            raise PipelineError(
                f"nothing makes {name!r}, which {', '.join(needing)} needs",
                where=str(module.__file__),
                way_out=f"Add a function {name}(), or use what is given: {', '.join(sorted(given))}.",
            )
        if not node.user_defined and name in given:
            raise PipelineError(
                f"{name!r} is given; a function can't make it",
                where=str(module.__file__),
                way_out="Give the function another name.",
            )


def _reached(made: Sequence[str], nodes: Mapping[str, Any]) -> set[str]:
    queue, seen = list(made), set(made)
    while queue:
        fresh = {one.name for one in nodes[queue.pop()].dependencies} - seen
        seen |= fresh
        queue += fresh
    return seen


def _order(module: ModuleType, reached: Set[str], nodes: Mapping[str, Any]) -> None:
    try:
        TopologicalSorter({name: [one.name for one in nodes[name].dependencies] for name in sorted(reached)}).prepare()
    except CycleError as error:
        ring = " needs ".join(reversed(error.args[1]))
        raise PipelineError(
            f"the steps go in a circle: {ring}",
            where=str(module.__file__),
            way_out="Take one of these parameters away.",
        ) from None


def _needs(node: Any, name: str) -> bool:
    """The parameter has no default."""
    from hamilton.node import DependencyType

    required: bool = node.input_types[name][1] is DependencyType.REQUIRED
    return required
