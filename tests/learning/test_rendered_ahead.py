"""Images of several steps that are rendered at once."""

import torch

from ms2.learning.rendered_ahead import concatenated
from ms2.scene.batch import SceneBatch


def test_unused_entries_have_values_that_a_prior_draws() -> None:
    """A renderer that divides by a length would find none where entries are filled up with zeros."""
    short = SceneBatch(torch.tensor([[2]]), torch.tensor([[-1]]), {"length": torch.tensor([[0.5]])}, {})
    long = SceneBatch(torch.tensor([[0, 1, 1]]), torch.tensor([[-1, 0, 0]]), {"length": torch.full((1, 3), 1.5)}, {})
    whole = concatenated([short, long])
    assert whole.classes.tolist() == [[2, -1, -1], [0, 1, 1]]
    assert whole.parents.tolist() == [[-1, -1, -1], [-1, 0, 0]]
    assert whole.attributes["length"].tolist() == [[0.5, 0.5, 0.5], [1.5, 1.5, 1.5]]
