"""The run-time check of shapes that conftest.py turns on is active, and lets pass what is right."""

import pytest
import shapes
import torch
from hypothesis import settings
from jaxtyping import TypeCheckError

from ms2.grammar.derivations import Derivations, is_valid
from ms2.grammar.grammar import Grammar
from ms2.scene.batch import SceneBatch


def test_a_wrong_number_of_axes_is_refused(digits: Grammar):
    with pytest.raises(TypeCheckError, match=r"ms2\.grammar\.derivations\.is_valid"):
        is_valid(digits, torch.zeros(3, dtype=torch.long))


def test_a_wrong_dtype_is_refused(digits: Grammar):
    with pytest.raises(TypeCheckError, match=r"ms2\.grammar\.derivations\.is_valid"):
        is_valid(digits, torch.zeros(3, 4))


def test_fields_of_dataclasses_must_agree_in_shape():
    Derivations(torch.zeros(3, 4, dtype=torch.long), torch.zeros(3, dtype=torch.long))
    with pytest.raises(TypeCheckError, match="Derivations"):
        Derivations(torch.zeros(3, 4, dtype=torch.long), torch.zeros(2, dtype=torch.long))


def test_attributes_must_have_the_shape_of_the_objects():
    scenes = SceneBatch(torch.zeros(2, 3, dtype=torch.long), torch.zeros(2, 3, dtype=torch.long))
    scenes.with_attributes(x=torch.zeros(2, 3))
    with pytest.raises(TypeCheckError, match="SceneBatch"):
        scenes.with_attributes(x=torch.zeros(2, 4))


def test_an_int_passes_for_a_float(digits: Grammar):
    assert digits.shortest_derivation == {"Scene": 2, "Digits": 1, "Digit": 1}  # declared dict[str, float]


def test_runs_are_reproducible_and_leave_a_core_to_others():
    assert settings.default is not None
    assert settings.default.derandomize
    assert settings.default.deadline is None
    assert torch.get_num_threads() == 1


def test_the_first_calls_of_a_function_are_checked_in_each_test(digits: Grammar):
    wrong = torch.zeros(3, dtype=torch.long)
    for _ in range(2):
        for _ in range(2 * shapes.CHECKED_CALLS):
            is_valid(digits, torch.zeros(1, 4, dtype=torch.long))
        is_valid(digits, wrong[None, None][0])
        with pytest.raises(Exception) as unchecked:
            is_valid(digits, wrong)
        assert not isinstance(unchecked.value, TypeCheckError)
        shapes.check_again()
        with pytest.raises(TypeCheckError):
            is_valid(digits, wrong)
