"""Wilcoxon's test and Holm's correction against values known from the definitions."""

import pytest

from report.statistics import holm, paired_test, smallest_p


def scores(*values):
    return {(f"{i}.png", "Vessel"): value for i, value in enumerate(values)}


@pytest.mark.parametrize(
    ("p_values", "adjusted"),
    [
        ([], []),
        ([0.03], [0.03]),
        # R: p.adjust(c(0.01, 0.04, 0.03, 0.005), "holm")
        ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),
        # The last alone would be 0.02, but none is below a smaller one's.
        ([0.012, 0.02, 0.011], [0.033, 0.033, 0.033]),
        ([0.5, 0.9, 0.6], [1.0, 1.0, 1.0]),
        ([0.02, 0.02], [0.04, 0.04]),
    ],
)
def test_holm_gives_the_known_values_in_the_order_given(p_values, adjusted):
    assert holm(p_values) == pytest.approx(adjusted)


def test_holm_refuses_what_is_no_probability():
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        holm([0.1, float("nan")])


def test_wilcoxon_is_exact_for_few_pairs():
    # Differences 1..6, all positive: 2 of 2^6 sign patterns are as extreme.
    test = paired_test(scores(1, 2, 3, 4, 5, 6), scores(0, 0, 0, 0, 0, 0))
    assert (test.n, test.n_equal, test.difference) == (6, 0, 3.5)
    assert test.p == pytest.approx(2 / 64)
    # -1 among them: W = 1, reached by 2 patterns of one side (W = 0 and W = 1), so 4 of 64.
    assert paired_test(scores(-1, 2, 3, 4, 5, 6), scores(0, 0, 0, 0, 0, 0)).p == pytest.approx(4 / 64)


def test_wilcoxon_is_two_sided_and_pairs_by_image_not_by_order():
    ours, other = scores(0.5, 0.7, 0.6, 0.9), scores(0.4, 0.65, 0.45, 0.7)
    backwards = dict(reversed(other.items()))
    assert paired_test(ours, backwards) == paired_test(ours, other)
    assert paired_test(other, ours).p == paired_test(ours, other).p == pytest.approx(2 / 16)
    assert paired_test(other, ours).difference == pytest.approx(-paired_test(ours, other).difference)


def test_equal_methods_differ_with_p_1_and_equal_pairs_carry_no_sign():
    same = paired_test(scores(0.1, 0.2), scores(0.1, 0.2 + 1e-15))
    assert (same.p, same.n_equal, same.difference) == (1.0, 2, 0.0)
    some = paired_test(scores(1, 2, 3, 4, 5, 6, 7), scores(0, 0, 0, 0, 0, 0, 7))
    assert (some.n, some.n_equal) == (7, 1)
    assert some.p == pytest.approx(2 / 64)


def test_other_images_are_an_error():
    with pytest.raises(ValueError, match="2 samples are in one of the two alone"):
        paired_test(scores(1, 2), {("0.png", "Vessel"): 1.0, ("9.png", "Vessel"): 2.0})
    with pytest.raises(ValueError, match="no samples"):
        paired_test({}, {})


def test_smallest_p_is_what_the_test_reaches():
    assert smallest_p(6) == paired_test(scores(1, 2, 3, 4, 5, 6), scores(0, 0, 0, 0, 0, 0)).p
    assert smallest_p(1) == 1.0
