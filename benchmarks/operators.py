"""Counts the operators of training steps, by the part of a step that calls them, and the calls that wait for a GPU.

On a GPU small networks are bound by the operators that the host dispatches, and by waiting for results. Both can be
counted on a CPU, where the same operators are dispatched.
"""

import bisect
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from pytorch_lightning import LightningModule
from pytorch_lightning.loops.optimization.automatic import Closure
from pytorch_lightning.plugins.precision.precision import Precision
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import ms2
from ms2.features.base import FeatureExtractor
from ms2.features.dense import DenseCounts
from ms2.features.dense_attributes import DenseAttributes
from ms2.features.pretrained import PretrainedCounts
from ms2.features.resnet import ResNet
from ms2.learning.drawn_ahead import DrawnAhead
from ms2.learning.learner import Learner
from ms2.learning.metasim2 import MetaSim2
from ms2.learning.stage import Stage
from ms2.models.parameters import ParameterModel
from ms2.models.scene_model import SceneModel
from ms2.models.structure import StructureModel
from ms2.render.base import Renderer

BLOCK, DRAW, SAMPLER, RENDERER, NETWORK, FEATURES, LOSS, OPTIMISER, LOOP = (
    *("block", "draw", "sampler", "renderer", "network", "features", "loss"),
    *("optimiser", "loop"),
)
"""Parts of a step.

These are: drawing a block of samples, drawing in the step itself, the network that samples structures (one CUDA graph
where there is a GPU, so that nothing of it is counted), rendering, networks, what features are made of a network's
output, labels with the loss or objective, the optimiser, and Lightning's loop with its log.
"""
SOURCE = Path(ms2.__file__).parents[1]
"""Folder that the package lies in."""
COUNTED = (DRAW, FEATURES, LOSS, LOOP)
"""Parts whose operators are ms2's own, but for blocks, which are shared by many steps."""

READS = {"_local_scalar_dense", "nonzero", "is_nonzero", "masked_select", "_unique", "_unique2", "unique_dim"}
READS |= {"unique_consecutive", "unique_dim_consecutive", "equal", "bincount", "_linalg_check_errors", "lift_fresh"}
"""Operators that wait for the device; ``lift_fresh`` makes a tensor of numbers on the host, which are copied there."""
MASKED = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index"}
"""Operators that wait for the device if an index is a mask."""
HOST = {Tensor.tolist: "tolist", Tensor.numpy: "numpy", Tensor.cpu: "cpu", Tensor.__array__: "__array__"}
"""Calls that copy to the host and dispatch nothing on a CPU."""

WITH_NETWORKS = (FeatureExtractor, Learner, ParameterModel, StructureModel, LightningModule)
"""Modules with operators of their own around the networks in them."""

aten = torch.ops.aten


class Parts:
    """The part of a step that runs, innermost last."""

    def __init__(self) -> None:
        self.stack = [LOOP]

    def during(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """A function whose operators belong to a part."""

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            self.stack.append(part)
            try:
                return function(*args, **kwargs)
            finally:
                self.stack.pop()

        return wrapped


class OperatorCount(TorchDispatchMode):
    """Counts what is dispatched, also in backward passes, whose operators belong to the part that they differentiate.

    Attributes:
        operators: Number of operators by part, and by where they are called.
        waits: Calls that wait for the device: the part, and what is called where.
        fills: Whether a number is assigned, as in ``x[0] = 1``, which on a GPU fills the place.
    """

    def __init__(self, parts: Parts) -> None:
        super().__init__()
        self.parts = parts
        self.operators: Counter[tuple[str, str]] = Counter()
        self.waits: list[tuple[str, str]] = []
        self.fills = False
        self._numbers: list[int] = []  # of the next node of autograd's graph, when an operator is dispatched ...
        self._calls: list[tuple[str, str]] = []  # ... and the operator's part and place

    def clear(self) -> None:
        """Count from zero on."""
        self.operators, self.waits, self.fills = Counter(), [], False

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function.namespace == "profiler" or self.parts.stack[-1] == SAMPLER:
            return function(*args, **(kwargs or {}))
        node = torch._C._current_autograd_node()
        if node is None:
            part, where = self.parts.stack[-1], place()
            self._numbers.append(torch.autograd._get_sequence_nr())
            self._calls.append((part, where))
        else:
            part, where = self._forward(node)
        self.operators[part, where] += 1
        if waits(function, args, kwargs or {}) and not (self.fills and function.overloadpacket == aten.lift_fresh):
            self.waits.append((part, f"{function.overloadpacket.__name__} at {where}"))
        return function(*args, **(kwargs or {}))

    def _forward(self, node: Any) -> tuple[str, str]:
        """The part and place of the forward operator that a node of autograd's graph differentiates."""
        found = bisect.bisect_right(self._numbers, node._sequence_nr())
        if found == len(self._numbers):  # the node adds a gradient to that of a weight
            return NETWORK, "gradients of weights"
        part, where = self._calls[found]
        return part, f"{where} (backward)"


class HostCopies(TorchFunctionMode):
    """Adds calls that copy to the host to those that wait."""

    def __init__(self, count: OperatorCount) -> None:
        super().__init__()
        self.count = count

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function in HOST:
            self.count.waits.append((self.count.parts.stack[-1], f"{HOST[function]} at {place()}"))
        self.count.fills = function is Tensor.__setitem__ and isinstance(args[2], (int, float))
        return function(*args, **(kwargs or {}))


def waits(function: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> bool:
    """Whether an operator waits for the device."""
    name = function.overloadpacket.__name__
    if name in MASKED:
        return any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1])
    if name == "repeat_interleave":
        return kwargs.get("output_size") is None
    if name == "_to_copy":
        return kwargs.get("device") == torch.device("cpu") and args[0].device.type != "cpu"
    return name in READS


def place() -> str:
    """Where an operator is called: the innermost line outside torch and this file."""
    frame = sys._getframe(1)
    while frame.f_back is not None and _is_passed_over(frame.f_code.co_filename):
        frame = frame.f_back
    path = Path(frame.f_code.co_filename)
    # a checkout's folder may be called ms2 too
    names = path.relative_to(SOURCE).parts if path.is_relative_to(SOURCE) else path.parts[-2:]
    return f"{'/'.join(names)}:{frame.f_lineno} ({frame.f_code.co_name})"


def _is_passed_over(name: str) -> bool:
    return "/torch/" in name or name == __file__ or name.startswith("<") or "/jaxtyping/" in name


@contextmanager
def counting(renderer: Renderer) -> Iterator[OperatorCount]:
    """Count operators, with those of a renderer apart."""
    parts = Parts()
    methods = [
        (DrawnAhead, "_block", BLOCK),
        (StructureModel, "_expand", SAMPLER),
        *((type(renderer), name, RENDERER) for name in ("render", "render_labelled", "centres")),
        (SceneModel, "derivations", DRAW),
        (SceneModel, "scenes", DRAW),
        (FeatureExtractor, "__call__", FEATURES),
        # these call networks, and no operators that could be spared
        (DenseAttributes, "_predict_environment", NETWORK),
        (DenseCounts, "_maps", NETWORK),
        (ResNet, "embed", NETWORK),
        (PretrainedCounts, "_logits", NETWORK),
        *((cls, "training_step", LOSS) for cls in (MetaSim2, *Stage.__subclasses__())),
        (Closure, "__call__", LOOP),
        (Precision, "_after_closure", LOOP),  # clips gradients
    ]
    with ExitStack() as stack:
        for cls, name, part in methods:
            stack.enter_context(mock.patch.object(cls, name, _method(parts, part, getattr(cls, name))))
        stack.enter_context(_networks(parts))
        stack.enter_context(_optimisers(parts))
        count = stack.enter_context(OperatorCount(parts))
        stack.enter_context(HostCopies(count))
        yield count


def _method(parts: Parts, part: str, method: Callable[..., Any]) -> Callable[..., Any]:
    """A method whose operators belong to a part, as a function, so that it is bound to its object."""

    def wrapped(self: Any, *args: Any, **kwargs: Any) -> Any:
        return parts.during(part, method)(self, *args, **kwargs)

    return wrapped


@contextmanager
def _networks(parts: Parts) -> Iterator[None]:
    """Count what torch's modules, and networks of them, call as the network's."""

    def is_network(module: nn.Module) -> bool:
        return not isinstance(module, WITH_NETWORKS) and next(module.parameters(), None) is not None

    def enter(module: nn.Module, _: Any) -> None:
        if is_network(module):
            parts.stack.append(NETWORK)

    def leave(module: nn.Module, *_: Any) -> None:
        if is_network(module):
            parts.stack.pop()

    before = register_module_forward_pre_hook(enter)
    after = register_module_forward_hook(leave, always_call=True)
    yield
    before.remove()
    after.remove()


@contextmanager
def _optimisers(parts: Parts) -> Iterator[None]:
    """Count what optimisers call as theirs, but for the closure in it that computes the loss."""
    before = register_optimizer_step_pre_hook(lambda *_: parts.stack.append(OPTIMISER))
    after = register_optimizer_step_post_hook(lambda *_: (parts.stack.pop(), None)[1])
    yield
    before.remove()
    after.remove()
