"""The channel of readings against distributions that are known."""

import math

import pytest
import torch
from helpers import rng
from torch import Tensor

from ms2.features.channel import NUM_BINS, ReadingChannel


def uniform(m: int, largest: int = 3, seed: int = 0) -> Tensor:
    return torch.randint(largest + 1, (m, 1), generator=rng(seed))


def measured(readings: Tensor, numbers: Tensor, visible: Tensor | None = None, largest: int = 3) -> ReadingChannel:
    channel = ReadingChannel({"count_car": [0]}, largest)
    channel.measure(readings, numbers if visible is None else visible, numbers, rng(9))
    return channel


def test_readings_without_error_hold_all_that_there_is() -> None:
    numbers = uniform(4000)
    channel = measured(numbers.float(), numbers)
    assert channel.information().item() == pytest.approx(math.log(4), abs=0.01)
    assert channel.information().item() == pytest.approx(channel.entropy().item(), abs=1e-6)
    assert channel.quality() == ["read"]
    given = channel.reading_given_number()[0]
    assert (given @ given.T).fill_diagonal_(0).max() < 0.01  # no reading is of two numbers


def test_readings_of_nothing_hold_nothing() -> None:
    numbers = uniform(4000)
    channel = measured(torch.rand(4000, 1, generator=rng(1)), numbers)
    assert channel.information().item() < 0.01  # 0.012 without the correction of its bias, on average
    assert channel.quality() == ["not read"]


@pytest.mark.parametrize("images", [100, 200, 500])
def test_noise_is_not_read_in_few_images_either(images: int) -> None:
    """Of 8 numbers and 32 bins the correction leaves 0.4 nats in 200 images."""
    found = []
    for seed in range(10):
        numbers = torch.randint(8, (images, 1), generator=rng(seed))
        channel = measured(torch.rand(images, 1, generator=rng(100 + seed)), numbers, largest=7)
        found.append(channel.information().item() / channel.entropy().item())
    assert sum(found) / 10 < 0.05


def test_rare_numbers_that_are_read_without_error_are_told_apart() -> None:
    """With edges at quantiles, the two largest would share a bin, as both are rarer than one."""
    numbers = torch.multinomial(torch.tensor([0.4, 0.3, 0.28, 0.01, 0.01]), 20_000, True, generator=rng())[:, None]
    channel = measured(numbers.float(), numbers, largest=4)
    given = channel.reading_given_number()[0]
    assert (given @ given.T).fill_diagonal_(0).max() < 0.01
    assert channel.bins(torch.arange(5.0)[:, None]).flatten().tolist() == [0, 8, 16, 23, 31]


def test_a_class_is_read_if_what_there_is_can_be_told() -> None:
    """What can be seen is read without error in each; with more hidden, less is known of what there is."""
    numbers = uniform(40_000)
    qualities = []
    for shown in (1.0, 0.7, 0.3, 0.0):
        visible = (torch.rand(40_000, 3, generator=rng(1)) < shown) & (torch.arange(3) < numbers)
        seen = visible.sum(1, keepdim=True)
        qualities += measured(seen.float(), numbers, seen).quality()
    assert qualities == ["read", "occluded", "occluded", "not read"]


def test_a_blurred_reading_is_not_called_occluded() -> None:
    numbers = uniform(40_000)
    blurred = measured(numbers + 0.9 * torch.randn(40_000, 1, generator=rng(1)), numbers)
    assert blurred.quality() == ["blurred"]


def test_a_number_that_varies_little_is_read_as_well_as_before() -> None:
    """The information of any reading is at most the number's entropy, which tells nothing of the extractor."""
    numbers, noise = uniform(4000), torch.rand(4000, 1, generator=rng(1))
    channel, constant = measured(numbers + noise / 2, numbers), torch.full_like(numbers, 2)
    channel.measure(constant + noise / 2, constant, constant, rng(2), judged=False)
    assert channel.quality() == ["read"] and channel.information().item() < 0.01
    channel.measure(constant + noise / 2, constant, constant, rng(2))
    assert channel.quality() == ["not read"]


def test_what_is_hidden_is_not_read_of_the_structure() -> None:
    """None or two objects, each hidden half of the time: what is known of a number visible, less what hiding adds."""
    numbers = 2 * torch.randint(2, (40_000, 1), generator=rng())
    visible = (torch.rand(40_000, 2, generator=rng(1)) < 0.5).sum(1, keepdim=True) * (numbers > 0)
    channel = measured(visible.float(), numbers, visible)
    # the number visible is 0, 1, 2 with probability 5/8, 1/4, 1/8
    seen = torch.tensor([5 / 8, 1 / 4, 1 / 8])
    entropy = torch.special.entr(seen).sum().item()
    given_number = 0.5 * 1.5 * math.log(2)
    assert channel.entropy(visible=True).item() == pytest.approx(entropy, abs=0.01)
    assert channel.information(visible=True).item() == pytest.approx(entropy, abs=0.01)
    assert channel.information().item() == pytest.approx(entropy - given_number, abs=0.01)
    expected = torch.tensor([[1, 0, 0, 0], [0, 0, 0, 0], [0.25, 0.5, 0.25, 0], [0, 0, 0, 0]])
    torch.testing.assert_close(channel.visible_given_number()[0], expected, atol=0.02, rtol=0)


def test_conditional_distributions_are_those_of_the_images() -> None:
    numbers = uniform(20_000, largest=2)
    readings = numbers + 0.5 * torch.randn(20_000, 1, generator=rng(1))
    channel = measured(readings, numbers)
    given = channel.reading_given_number()[0]
    torch.testing.assert_close(given.sum(1), torch.tensor([1.0, 1.0, 1.0, 0.0]))
    edges = channel.edges[0]
    for n in range(3):
        normal = torch.distributions.Normal(n, 0.5)
        below = torch.cat([torch.zeros(1), normal.cdf(edges), torch.ones(1)])
        torch.testing.assert_close(given[n], below.diff(), atol=0.02, rtol=0)
    torch.testing.assert_close(channel.histogram(readings)[0], torch.full((NUM_BINS,), 1 / NUM_BINS), atol=1e-3, rtol=0)


def hiding(m: int, seed: int, others: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Numbers of cars and trees, and of the cars that are seen: each tree hides every car with a probability of 0.3."""
    numbers = torch.randint(4, (m, 2), generator=rng(seed))
    if others is not None:
        numbers[:, 1] = others
    seen = (torch.rand(m, 3, generator=rng(seed + 1)) < 0.7 ** numbers[:, 1:]) & (torch.arange(3) < numbers[:, :1])
    return numbers, torch.stack([seen.sum(1), numbers[:, 1]], 1)


def test_readings_depend_on_what_hides_an_object() -> None:
    """Of targets with other numbers of trees than were measured on average, against binomial distributions."""
    channel = ReadingChannel({"count_car": [0], "count_tree": [1]}, largest=3)
    numbers, seen = hiding(20_000, 0)
    channel.measure(seen.float(), seen, numbers, rng())
    for trees in range(4):
        for cars in range(4):
            found = channel.readings_given_numbers(torch.tensor([[cars, trees]]))[0, 0]
            p = 0.7**trees
            number = torch.distributions.Binomial(cars, torch.tensor(p)).log_prob
            expected = torch.zeros(NUM_BINS)
            bins = channel.bins(torch.tensor([[float(k), 0.0] for k in range(cars + 1)]))[:, 0]
            expected[bins] = torch.stack([number(torch.tensor(float(k))).exp() for k in range(cars + 1)])
            assert found.sum() == pytest.approx(1, abs=1e-4)
            assert (found - expected).abs().sum() / 2 < 0.06
            alone = channel.reading_given_number()[0, cars]
            if cars and trees in (0, 3):
                assert (alone - expected).abs().sum() / 2 > 0.12  # what trees hide on average


def test_a_number_that_depends_on_no_other_is_read_as_its_table_says() -> None:
    """In few images a tilt that fits their noise would make other readings less likely than the table does."""
    gains = []
    for seed in range(3):
        channel = ReadingChannel({f"count_{i}": [i] for i in range(6)}, largest=7)
        numbers = torch.randint(8, (3000, 6), generator=rng(seed))
        readings = numbers + torch.randn(3000, 6, generator=rng(10 + seed))
        channel.measure(readings[:1000], numbers[:1000], numbers[:1000], rng(20 + seed))
        bins = channel.bins(readings[1000:]).unsqueeze(2)
        tilted = channel.readings_given_numbers(numbers[1000:])
        alone = channel.reading_given_number()[torch.arange(6), numbers[1000:]]
        both = [p.gather(2, bins).clamp(min=1e-6).log().mean().item() for p in (tilted, alone)]
        gains.append(both[0] - both[1])
    assert min(gains) > -0.005  # -0.026 with little weight decay, and every tilt kept


def test_what_was_not_measured_explains_no_reading() -> None:
    channel = ReadingChannel({"count_car": [0], "count_tree": [1]}, largest=5)
    numbers, seen = hiding(2000, 0)
    channel.measure(seen.float(), seen, numbers, rng())
    given = channel.readings_given_numbers(torch.tensor([[3, 3], [4, 3], [3, 9]]))
    torch.testing.assert_close(given.sum(2), torch.tensor([[1.0, 1.0], [0.0, 1.0], [1.0, 0.0]]))


def test_a_number_alone_is_read_as_its_table_says() -> None:
    numbers = uniform(4000)
    channel = measured(numbers + torch.rand(4000, 1, generator=rng(1)), numbers)
    given = channel.readings_given_numbers(torch.arange(4)[:, None])[:, 0]
    torch.testing.assert_close(given, channel.reading_given_number()[0], atol=1e-4, rtol=0)


def test_a_seed_gives_the_same_channel() -> None:
    numbers, seen = hiding(500, 0)
    one, other, third = (ReadingChannel({"count_car": [0], "count_tree": [1]}, largest=3) for _ in range(3))
    one.measure(seen.float(), seen, numbers, rng(1))
    other.measure(seen.float(), seen, numbers, rng(1))
    third.measure(seen.float(), seen, numbers, rng(2))
    assert torch.equal(one.weight, other.weight) and not torch.equal(one.weight, third.weight)


def test_slots_are_added_up() -> None:
    channel = ReadingChannel({"count_car_1": [0], "count_car_2": [1], "count": [0, 1]}, largest=4)
    assert channel.sums(torch.tensor([[1, 2], [0, 4]])).tolist() == [[1, 2, 3], [0, 4, 4]]
    torch.testing.assert_close(channel.sums(torch.tensor([[0.5, 0.2]])), torch.tensor([[0.5, 0.2, 0.7]]))


def test_larger_numbers_are_taken_for_the_largest() -> None:
    numbers = torch.tensor([[0], [3], [7], [9]])
    channel = measured(numbers.float(), numbers)
    assert channel.joint.sum((0, 2, 3)).tolist() == [1, 0, 0, 3]


def test_it_is_kept_with_the_extractors_weights() -> None:
    numbers = uniform(100)
    one, other = measured(numbers.float(), numbers), ReadingChannel({"count_car": [0]}, largest=3)
    assert one.is_measured and not other.is_measured
    other.load_state_dict(one.state_dict())
    assert other.is_measured and torch.equal(one.bins(numbers.float()), other.bins(numbers.float()))
