"""Replay a function of tensors on a GPU: its operators are launched by one call, in place of one by one."""

import warnings
from collections.abc import Callable, Hashable
from typing import NamedTuple

import torch
from torch import Tensor

MAX_RECORDED = 8
"""Number of recorded graphs that are kept, each of which keeps its memory."""

Function = Callable[..., tuple[Tensor, ...]]


class Recorded(NamedTuple):
    """A graph, with the tensors that it reads and writes."""

    graph: torch.cuda.CUDAGraph
    inputs: list[Tensor]
    outputs: tuple[Tensor, ...]


class Replay:
    """Record a function's operators as a CUDA graph, and replay them.

    The function may depend on nothing but its arguments and on tensors whose addresses are in ``key``, such as weights
    that are changed in place. It may not wait for the device. The first call is made as it is, since others may never
    follow; the second is recorded. If that fails, a warning says so once, and functions are called as they are from
    then on, as they are on other devices than GPUs.

    Copies, and what is read from a file, record anew.
    """

    device_type = "cuda"

    def __init__(self) -> None:
        self._recorded: dict[Hashable, Recorded | None] = {}
        self._failed = False

    def __reduce__(self) -> tuple[type["Replay"], tuple[()]]:
        """Graphs can be neither copied nor written."""
        return type(self), ()

    def __call__(self, function: Function, arguments: list[Tensor], key: Hashable) -> tuple[Tensor, ...]:
        """Return what the function returns for its arguments.

        Args:
            function: The function; the same one whenever ``key`` is the same.
            arguments: Its arguments.
            key: What else its operators depend on, such as addresses of weights.
        """
        if self._failed or arguments[0].device.type != self.device_type:
            return function(*arguments)
        key = key, *(argument.shape for argument in arguments)
        if key not in self._recorded:
            if len(self._recorded) == MAX_RECORDED:
                del self._recorded[next(iter(self._recorded))]
            self._recorded[key] = None
            return function(*arguments)
        recorded = self._recorded[key]
        if recorded is None:
            try:
                recorded = self._recorded[key] = _record(function, arguments)
            except RuntimeError as error:
                self._failed = True
                warnings.warn(f"operators are launched one by one, as no CUDA graph can be made: {error}", stacklevel=2)
                return function(*arguments)
        for own, argument in zip(recorded.inputs, arguments, strict=True):
            own.copy_(argument)
        recorded.graph.replay()
        return tuple(output.clone() for output in recorded.outputs)


def _record(function: Function, arguments: list[Tensor]) -> Recorded:
    """Record the operators of a function, after calling it: libraries can't prepare themselves while recording."""
    inputs = [argument.clone() for argument in arguments]
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        function(*inputs)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):  # other threads may load data
        outputs = function(*inputs)
    return Recorded(graph, inputs, outputs)
