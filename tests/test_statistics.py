"""Intervals, paired tests, corrections and ranks: exact answers by hand, and known distributions."""

import numpy as np
import pytest
from scipy import stats

from diffse.metrics import statistics
from diffse.metrics.statistics import Comparison, How


def pair(first: str, second: str, mean: float, corrected: float, ranks: float | None = None) -> Comparison:
    sign = float(np.sign(mean)) if ranks is None else ranks
    return Comparison(first, second, mean, mean - 1, mean + 1, corrected, corrected, mean, sign, 10)


# ------------------------------------------------------------------------------------------ intervals


def test_the_interval_of_normal_scores_has_the_width_of_theory():
    values = np.random.default_rng(1).normal(3.0, 2.0, 4000)
    low, high = statistics.interval(values, 0.95, 2000, 0)
    error = values.std() / np.sqrt(len(values))
    assert low == pytest.approx(values.mean() - 1.96 * error, abs=0.1 * error)
    assert high == pytest.approx(values.mean() + 1.96 * error, abs=0.1 * error)


def test_files_of_one_speaker_do_not_count_as_independent():
    """20 speakers with 50 equal files each know as much as 20 files, not as 1,000."""
    speakers = np.random.default_rng(2).normal(0.0, 1.0, 20)
    values, clusters = np.repeat(speakers, 50), np.repeat(np.arange(20), 50)
    by_file = statistics.interval(values, 0.95, 2000, 0)
    by_speaker = statistics.cluster_interval(values, clusters, 0.95, 2000, 0)
    theory = 2 * 1.96 * speakers.std() / np.sqrt(20)
    assert by_speaker[1] - by_speaker[0] == pytest.approx(theory, rel=0.1)
    assert by_file[1] - by_file[0] == pytest.approx(theory / np.sqrt(50), rel=0.1)


def test_speakers_with_more_files_weigh_more():
    """The mean is one over files: the speaker with 96 of 100 files decides it wherever it is drawn."""
    values, clusters = np.array([1.0] * 96 + [0.0] * 4), ["big"] * 96 + list("abcd")
    middle, _ = statistics.cluster_interval(values, clusters, 0.01, 2000, 0)
    assert middle > 0.95  # a mean over speakers would be 0.2


@pytest.mark.parametrize(("count", "there"), [(4, False), (5, True)])
def test_too_few_speakers_give_no_interval(count, there):
    clusters = [f"p{index % count}" for index in range(40)]
    found = statistics.cluster_interval(np.arange(40.0), clusters, 0.95, 100, 0)
    assert (found is not None) == there


def test_clusters_of_no_file_give_no_interval():
    assert statistics.cluster_interval(np.array([]), [], 0.95, 100, 0) is None


# ---------------------------------------------------------------------------------------------- tests


def test_wilcoxon_of_six_gains_is_exact():
    """All six files better: 2 of the 2^6 sign patterns are as extreme."""
    assert statistics.wilcoxon(np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])) == pytest.approx(2 / 64)
    assert statistics.wilcoxon(np.array([1.0, -2.0, 3.0, -4.0, 5.0, -6.0])) > 0.5
    assert statistics.wilcoxon(np.zeros(10)) == 1.0


@pytest.mark.parametrize("files", [1, 2, 5, 9, 13, 14])
def test_wilcoxon_with_ties_is_that_of_scipy(files):
    rng = np.random.default_rng(files)
    for _ in range(3 if files < 10 else 1):  # scipy's own way takes seconds for more
        differences = rng.integers(-4, 6, size=files).astype(float)
        moved = differences[differences != 0]
        expected = stats.wilcoxon(moved).pvalue if len(moved) else 1.0
        assert statistics.wilcoxon(differences) == pytest.approx(expected)


def test_permutation_of_few_files_is_exact():
    """Of the 8 sign patterns of (1, 2, 3), those with |mean| >= |mean of (1, 2, 3)| are two."""
    assert statistics.permutation(np.array([1.0, 2.0, 3.0]), 1000, 0) == pytest.approx(2 / 8)
    # (-1, 2, 3): sums of size 4 or more are 6, 4, -6, -4 -> 4 of 8
    assert statistics.permutation(np.array([-1.0, 2.0, 3.0]), 1000, 0) == pytest.approx(4 / 8)
    assert statistics.permutation(np.zeros(4), 100, 0) == 1.0


def test_permutation_of_many_files_never_says_zero():
    found = statistics.permutation(np.ones(40) + 0.01 * np.arange(40), 999, 0)
    assert found == pytest.approx(2 / 1000, rel=0.5)


@pytest.mark.parametrize("test", ["wilcoxon", "permutation"])
def test_equal_systems_are_called_different_as_often_as_alpha_says(test):
    rng = np.random.default_rng(3)
    how = How(test=test, correction="none", resamples=199)
    wrong = 0
    for _ in range(100):
        scores = {"a": rng.normal(size=30), "b": rng.normal(size=30)}
        wrong += statistics.compare(scores, how)[0].p <= 0.05
    assert 0 < wrong <= 14  # binomial(100, 0.05) is in this range with a probability above 0.99


def test_effect_sizes_by_hand():
    change = np.array([1.0, 2.0, 3.0])
    assert statistics.cohen_dz(change) == pytest.approx(2.0)  # mean 2, standard deviation 1
    assert np.isnan(statistics.cohen_dz(np.ones(5)))
    assert np.isnan(statistics.cohen_dz(np.array([0.3, 0.1 + 0.2])))  # they differ by rounding only
    # ranks of |-1|, 2, 3, 4 are 1 to 4: (2 + 3 + 4 - 1) / 10
    assert statistics.rank_biserial(np.array([-1.0, 2.0, 3.0, 4.0, 0.0])) == pytest.approx(0.8)
    assert statistics.rank_biserial(np.zeros(3)) == 0.0


def test_corrections_by_hand():
    assert statistics.adjusted([0.01, 0.04, 0.03], "holm") == pytest.approx([0.03, 0.06, 0.06])
    assert statistics.adjusted([0.01, 0.04, 0.03], "fdr_bh") == pytest.approx([0.03, 0.04, 0.04])
    assert statistics.adjusted([0.01, 0.04], "none") == [0.01, 0.04]
    assert statistics.adjusted([], "holm") == []


@pytest.mark.parametrize("correction", ["holm", "fdr_bh"])
def test_corrections_are_those_of_statsmodels(correction):
    from statsmodels.stats.multitest import multipletests

    rng = np.random.default_rng(1)
    for count in (1, 2, 7, 40):
        p_values = rng.uniform(size=count).round(2) ** 2
        expected = multipletests(p_values, method=correction)[1]
        assert statistics.adjusted(p_values, correction) == pytest.approx(expected)


# ------------------------------------------------------------------------------------------ comparisons


def test_pairs_are_compared_file_by_file():
    """Files differ far more than systems: only a paired comparison sees the difference of 0.1."""
    rng = np.random.default_rng(4)
    easy = rng.normal(0.0, 10.0, 60)
    scores = {"a": easy + 0.1 + 0.02 * rng.normal(size=60), "b": easy, "c": easy + 0.02 * rng.normal(size=60)}
    found = {(one.first, one.second): one for one in statistics.compare(scores, How(resamples=400))}
    assert list(found) == [("a", "b"), ("a", "c"), ("b", "c")]
    better = found["a", "b"]
    assert better.mean == pytest.approx(0.1, abs=0.01)
    assert 0.09 < better.low < better.mean < better.high < 0.11
    assert better.n == 60
    assert better.winner(0.05) == "a"
    assert better.winner(0.05, higher_is_better=False) == "b"
    assert found["b", "c"].winner(0.05) is None
    assert all(one.corrected >= one.p for one in found.values())


def test_bootstrap_draws_the_same_files_for_all_systems():
    table = np.random.default_rng(5).normal(size=(50, 1)) + np.array([[0.0, 2.0]])
    means = statistics.bootstrap_means(table, 100, 0)
    assert means.shape == (100, 2)
    assert means[:, 1] - means[:, 0] == pytest.approx(2.0)
    assert np.std(means[:, 0]) > 0.05


@pytest.mark.parametrize("scores", [{}, {"a": np.ones(3)}, {"a": np.ones(1), "b": np.zeros(1)}])
def test_too_little_gives_no_comparison(scores):
    assert statistics.compare(scores, How()) == []


def test_identical_systems_do_not_differ():
    (found,) = statistics.compare({"a": np.arange(9.0), "b": np.arange(9.0)}, How(resamples=50))
    assert (found.p, found.mean, found.winner(0.05)) == (1.0, 0.0, None)


# ------------------------------------------------------------------------------------------------ ranks


def test_only_significant_differences_make_a_rank():
    pairs = [pair("a", "b", 2.0, 0.2), pair("a", "c", 3.0, 0.01), pair("b", "c", 1.0, 0.04)]
    assert statistics.ranks("abc", pairs, 0.05) == {"a": 1, "b": 1, "c": 3}
    assert statistics.ranks("abc", pairs, 0.02) == {"a": 1, "b": 1, "c": 2}
    assert statistics.ranks("abc", pairs, 0.001) == {"a": 1, "b": 1, "c": 1}


def test_ranks_follow_the_metric():
    pairs = [pair("a", "b", 2.0, 0.001)]
    assert statistics.ranks("ab", pairs, 0.05, higher_is_better=False) == {"a": 2, "b": 1}


def test_mean_and_ranks_that_disagree_decide_nothing():
    """One file can carry the mean to one side while most files go to the other."""
    assert pair("a", "b", 2.0, 0.001, ranks=-0.6).winner(0.05) is None
