"""Medians and ratios."""

from __future__ import annotations

import pytest
from benchmarks.compare.summary import Figure, ratio, ratios, rounded


def test_a_figure_is_the_median_and_the_range() -> None:
    assert Figure.of([3.0, 1.0, 2.0]) == Figure(median=2.0, least=1.0, most=3.0)
    assert Figure.of([1.0, 2.0]) == Figure(median=1.5, least=1.0, most=2.0)


def test_no_values_are_no_figure() -> None:
    assert Figure.of([]) is None


def test_a_ratio_is_made_within_each_round() -> None:
    # The second round was on a machine half as fast: that does not touch the ratios.
    assert ratios([200.0, 100.0, 330.0], [100.0, 50.0, 110.0]) == [2.0, 2.0, 3.0]
    assert ratio([200.0, 100.0, 330.0], [100.0, 50.0, 110.0]) == Figure(median=2.0, least=2.0, most=3.0)


def test_a_round_that_lacks_one_of_both_has_no_ratio() -> None:
    assert ratios([200.0, None, 330.0, 5.0], [100.0, 50.0, None, 0.0]) == [2.0]
    assert ratio([None], [1.0]) is None


def test_rounds_that_do_not_belong_together_are_an_error() -> None:
    with pytest.raises(ValueError, match="zip"):
        ratios([1.0, 2.0], [1.0])


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.012345, "0.0123"),
        (0.9999, "1.00"),
        (1.2345, "1.23"),
        (12.345, "12.3"),
        (123.45, "123"),
        (1234.5, "1\N{NO-BREAK SPACE}230"),
        (1234567, "1\N{NO-BREAK SPACE}230\N{NO-BREAK SPACE}000"),
    ],
)
def test_numbers_have_three_digits_that_count(value: float, text: str) -> None:
    assert rounded(value) == text
