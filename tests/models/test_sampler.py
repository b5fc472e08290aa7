"""The sampler's steps: against scoring, with and without leaving the batch, and without waiting for the device."""

import copy
import pickle
import warnings
from functools import partial
from typing import Any

import pytest
import torch
from helpers import rng
from oracles import NETWORKS
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ms2.grammar.derivations import contexts, is_valid, lengths
from ms2.grammar.grammar import Grammar
from ms2.models import replay, structure
from ms2.models.derivation_state import extend_to_end
from ms2.models.replay import MAX_RECORDED, Recorded, Replay
from ms2.models.structure import StructureModel

GRAMMAR = Grammar("S -> x L M\nL -> D L | ε\nM -> L M | m\nD -> a | b")
T_MAX = 14
WAITING = {"_local_scalar_dense", "nonzero", "is_nonzero", "masked_select", "_unique2", "equal", "item"}
SETTINGS: list[dict[str, Any]] = [
    {"network": "lstm"},
    {"network": "gru", "num_latents": 3, "context": False},
    {"network": "transformer", "max_length": {"L": 2, "M": 1}},
    {"network": "lstm", "max_length": {"L": 1}, "fixed_rule_weights": {"D": [1.0, 0.0], "M": [1.0, 3.0]}},
]
every_setting = pytest.mark.parametrize("settings", SETTINGS, ids=str)


def make(settings: dict[str, Any], seed: int = 1) -> StructureModel:
    settings = dict(settings)
    model = StructureModel(GRAMMAR, T_MAX, NETWORKS[settings.pop("network")](8), latent_dim=4, **settings).double()
    draw = rng(seed)
    with torch.no_grad():
        for weights in model.parameters():
            weights.copy_(0.7 * torch.randn(weights.shape, generator=draw, dtype=torch.double))
    return model


class Trace(TorchDispatchMode):
    """Records operators with the shapes of what they return; an error for one that waits for the device."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, list[tuple[int, ...]]]] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function.overloadpacket.__name__
        assert name not in WAITING, f"{name} waits for the device"
        by = args[1] if len(args) > 1 and isinstance(args[1], (list, tuple)) else []
        assert not any(isinstance(i, Tensor) and i.dtype == torch.bool for i in by), "a mask's entries are counted"
        result = function(*args, **(kwargs or {}))
        made = result if isinstance(result, (list, tuple)) else [result]
        self.seen.append((name, [tuple(x.shape) for x in made if isinstance(x, Tensor)]))
        return result


def numbers(model: StructureModel, n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    draw = rng(seed)
    latents = torch.randint(len(model.latents), (n,), generator=draw)
    return latents, torch.rand(T_MAX, n, generator=draw, dtype=torch.double)


@every_setting
@torch.no_grad()
def test_steps_have_the_probabilities_of_scoring(settings: dict[str, Any]):
    """After each prefix, of each rule; and those of what is finished go on with padding alone."""
    model = make(settings)
    latents, uniform = numbers(model, 60)
    state, k = model.begin(latents), GRAMMAR.num_rules
    prefix = torch.empty(60, 0, dtype=torch.long)
    for u in uniform:
        probabilities = state.logits().softmax(1)
        assert (probabilities[state.finished, k] == 1).all()
        open_ = (~state.finished).nonzero()[:, 0]
        if len(open_):
            expected = model.rule_probabilities(prefix[open_], latents[open_])
            torch.testing.assert_close(probabilities[open_, :k], expected)
        rule = state.sample_rule(u)
        assert (probabilities.gather(1, rule[:, None]) > 0).all()
        state.advance(rule)
        prefix = torch.cat([prefix, rule[:, None]], 1)
    assert int(state.finished.sum()) > 10 and is_valid(GRAMMAR, prefix[state.finished]).all()


@every_setting
@torch.no_grad()
def test_derivations_may_leave_the_batch_when_they_are_finished(settings: dict[str, Any]):
    model = make(settings)
    latents, uniform = numbers(model, 100)
    some, all_ = (extend_to_end(model.begin(latents), uniform, leave) for leave in (True, False))
    assert some[0].equal(all_[0]) and some[1].equal(all_[1])
    assert len(lengths(GRAMMAR, some[0]).unique()) > 2


@every_setting
@torch.no_grad()
def test_on_a_gpu_nothing_depends_on_data_but_values(settings: dict[str, Any]):
    """Which a CUDA graph needs: the same operators on the same shapes, whatever is drawn."""
    model, traces = make(settings), []
    for seed in range(2):
        latents, uniform = numbers(model, 20, seed)
        with Trace() as trace:
            extend_to_end(model.begin(latents), uniform, leave=False)
        traces.append(trace.seen)
    assert traces[0] == traces[1]


def test_scoring_waits_for_nothing():
    model = make(SETTINGS[3])
    rules, groups = model.sample(20, rng()).rules, torch.tensor([0, 1, 1, 0, 0])
    model.log_prob_and_entropy(rules, groups, 2)
    with Trace():
        score = model.log_prob_and_entropy(rules, groups, 2)
        contexts(GRAMMAR, rules)
    assert score.group_log_prob.shape == (20, 2)


def test_a_draw_waits_once_where_none_is_rejected(monkeypatch: pytest.MonkeyPatch):
    """To tell that, and the width; the steps themselves are those of a GPU."""
    model = make({"network": "lstm", "max_length": {"L": 1, "M": 1}})
    steps = partial(extend_to_end, leave=False)
    monkeypatch.setattr(structure, "extend_to_end", lambda state, uniform, leave: steps(state, uniform))
    monkeypatch.setattr(Tensor, "tolist", lambda tensor: waits.append(tensor) or [8, 0])
    waits: list[Tensor] = []
    with Trace():
        assert model.sample(30, rng()).rules.shape == (30, 8)
    assert len(waits) == 1


# -- replaying, with a graph that calls the function in place of a GPU's ---------------------------------------


class Graph:
    """Computes outputs from the inputs that were recorded."""

    def __init__(self, function: Any, inputs: list[Tensor]) -> None:
        self.function, self.inputs, self.outputs = function, inputs, function(*inputs)
        self.replays = 0

    def replay(self) -> None:
        self.replays += 1
        for old, new in zip(self.outputs, self.function(*self.inputs), strict=True):
            old.copy_(new)


class OnCPU(Replay):
    device_type = "cpu"


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> list[Graph]:
    made: list[Graph] = []

    def record(function: Any, arguments: list[Tensor]) -> Recorded:
        made.append(Graph(function, [argument.clone() for argument in arguments]))
        return Recorded(made[-1], made[-1].inputs, made[-1].outputs)  # type: ignore[arg-type]

    monkeypatch.setattr(replay, "_record", record)
    return made


def double(x: Tensor) -> tuple[Tensor, ...]:
    return (2 * x,)


def test_what_is_called_again_is_recorded_once_and_replayed(graphs: list[Graph]):
    replayed, found = OnCPU(), []
    for value in range(4):
        found.append(replayed(double, [torch.full((3,), value)], "key")[0])
    assert [int(x[0]) for x in found] == [0, 2, 4, 6], "results are copies"
    assert len(graphs) == 1 and graphs[0].replays == 3
    for _ in range(2):  # another shape, and another key
        assert replayed(double, [torch.ones(2)], "key")[0].tolist() == [2, 2]
        assert replayed(double, [torch.ones(2)], "other")[0].tolist() == [2, 2]
    assert len(graphs) == 3
    for size in range(4, 4 + 2 * MAX_RECORDED):
        replayed(double, [torch.ones(size)], "key")
    assert len(replayed._recorded) == MAX_RECORDED and len(graphs) == 3, "single calls are not recorded"


def test_elsewhere_functions_are_called(graphs: list[Graph]):
    replayed = Replay()
    for _ in range(3):
        assert int(replayed(double, [torch.ones(())], "key")[0]) == 2
    assert not graphs and not replayed._recorded


def test_what_can_not_be_recorded_is_called_after_one_warning(monkeypatch: pytest.MonkeyPatch):
    def fail(function: Any, arguments: list[Tensor]) -> Recorded:
        raise RuntimeError("capturing is not permitted")

    monkeypatch.setattr(replay, "_record", fail)
    replayed = OnCPU()
    replayed(double, [torch.ones(2)], "key")
    with pytest.warns(
        UserWarning, match=r"launched one by one, as no CUDA graph can be made: capturing is not"
    ) as said:
        assert replayed(double, [torch.ones(2)], "key")[0].tolist() == [2, 2]
    assert len(said) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for key in ("key", "other", "other"):
            assert replayed(double, [torch.ones(2)], key)[0].tolist() == [2, 2]


def test_copies_record_anew(graphs: list[Graph]):
    replayed = OnCPU()
    for _ in range(2):
        replayed(double, [torch.ones(2)], "key")
    for other in (copy.deepcopy(replayed), pickle.loads(pickle.dumps(replayed))):
        assert isinstance(other, OnCPU) and not other._recorded


def test_replayed_samples_follow_the_weights(graphs: list[Graph]):
    """They are read where they are; a graph is made for each place."""
    model = make(SETTINGS[1])
    model._replay = OnCPU()
    for seed in range(3):
        assert model.sample(20, rng(seed)).rules.equal(copy.deepcopy(model).sample(20, rng(seed)).rules)
    assert len(graphs) == 1 and graphs[0].replays == 2
    with torch.no_grad():
        model.head.bias.add_(torch.linspace(-2, 2, len(model.head.bias)))
    assert model.sample(20, rng()).rules.equal(copy.deepcopy(model).sample(20, rng()).rules)
    assert len(graphs) == 1
    model.head.bias.data = model.head.bias.data.clone().flip(0)
    for _ in range(2):
        assert model.sample(20, rng()).rules.equal(copy.deepcopy(model).sample(20, rng()).rules)
    assert len(graphs) == 2
