import pytest
import torch
from search_bridges import first_coordinate, gaussian_roll, zeros

from sbflow.algorithm import SchrodingerBridgeFlow
from sbflow.network import MLP
from sbflow.process import Brownian
from sbflow.search import BestOfN, Paths, ZeroOrder, bridge_roll, rescore
from sbflow.verifier import Counting, NegativeSquaredDistance, RankEnsemble

FULL = {"search_steps": 20, "baseline": False}
# drift evaluations per input of searches in 20 steps
COSTS = [
    (BestOfN(16, **FULL), 320),
    (BestOfN(64, **FULL), 1280),
    (BestOfN(16, search_steps=5, baseline=False), 16 * 5 + 20),
    (ZeroOrder(4, 15, **FULL), 1220),
    (ZeroOrder(2, 30, **FULL), 1220),
    (ZeroOrder(2, 3, search_steps=6, baseline=False), 7 * 6 + 20),
    (Paths(4, 4, 5, **FULL), 292),
    (Paths(4, 4, 5, renoise=2, **FULL), 388),
    (Paths(2, 4, 2, **FULL), 212),
    (Paths(2, 4, 2, renoise=1, **FULL), 284),
    (Paths(1, 8, 2, **FULL), 210),
    (Paths(8, 2, 5, **FULL), 312),
    (Paths(4, 2, 5, **FULL), 156),
    (Paths(2, 4, 4, renoise=2, **FULL), 224),
    (Paths(3, 2, 6, start=1, renoise=4, **FULL), 3 * (1 + 2 * (1 + 6 + 1 + 4 + 6 + 1 + 4 + 6 + 1 + 4 + 1))),
    (Paths(2, 3, 2, search_steps=6, baseline=False), 2 * (2 + 3 * (3 + 2)) + 20),
    (Paths(3, 2, 50, **FULL), 60),
]
SEARCHES = [
    BestOfN(5, search_steps=8),
    BestOfN(5, search_steps=3),
    ZeroOrder(2, 3, search_steps=8),
    ZeroOrder(2, 3, search_steps=3),
    Paths(2, 3, 2, search_steps=8),
    Paths(2, 3, 2, renoise=1, search_steps=8),
    Paths(2, 3, 1, renoise=1, search_steps=4),
]


def name(search):
    options = {key: value for key, value in vars(search).items() if value is not None}
    return f"{type(search).__name__}-{'-'.join(map(str, options.values()))}"


@pytest.mark.parametrize(("search", "expected"), COSTS, ids=lambda one: name(one) if hasattr(one, "steps") else None)
def test_the_cost_is_the_formula_and_what_was_counted(search, expected):
    roll, verifier = gaussian_roll(20), Counting(first_coordinate)
    result = search(roll, zeros(2, 1), verifier)
    assert search.evaluations(20) == result.drift_evaluations == roll.evaluations / 2 == expected
    assert result.verifier_evaluations == verifier.evaluations / 2
    assert result.baseline is None and result.baseline_score is None


@pytest.mark.parametrize(
    "search",
    [
        BestOfN(1),
        ZeroOrder(3, 0),
        Paths(1, 1, 3),
        BestOfN(1, search_steps=9),
        ZeroOrder(3, 0, search_steps=9),
        Paths(1, 1, 2, search_steps=9),
    ],
    ids=name,
)
@pytest.mark.parametrize("last_noise", [True, False])
def test_a_search_without_choice_is_the_plain_translation_bit_by_bit(search, last_noise):
    flow = SchrodingerBridgeFlow(MLP((3,), hidden=(8,), num_directions=2), Brownian(0.7), (3,), last_noise=last_noise)
    for parameter in list(flow.ema.module.network.parameters())[-2:]:
        torch.nn.init.normal_(parameter)
    x, seeds = torch.randn(4, 3), [5, 6, 6, 9]
    plain = flow.eval().translate(x, "backward", num_steps=9, method="euler", seed=seeds)
    roll = bridge_roll(flow.ema.module, flow.process, direction="backward", num_steps=9, last_noise=last_noise)
    result = search(roll, x, first_coordinate, seed=seeds)
    assert torch.equal(result.samples, plain) and torch.equal(result.baseline, plain)
    assert torch.equal(result.score, plain[:, 0]) and torch.equal(result.baseline_score, plain[:, 0])


@pytest.mark.parametrize("search", SEARCHES, ids=name)
def test_results_do_not_depend_on_the_batch(search):
    x, seeds = torch.randn(6, 2, dtype=torch.float64), [3, 1, 4, 1, 5, 9]
    whole = search(gaussian_roll(8), x, NegativeSquaredDistance(), seed=seeds)
    for rows in (1, 7, 64):
        search.max_rows = rows
        try:
            pieces = search(gaussian_roll(8), x, NegativeSquaredDistance(), seed=seeds)
        finally:
            search.max_rows = None
        for one, other in zip(whole, pieces, strict=True):
            assert torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other
    alone = search(gaussian_roll(8), x[3:4], NegativeSquaredDistance(), seed=seeds[3:4])
    assert torch.equal(alone.samples, whole.samples[3:4])


@pytest.mark.parametrize("search", SEARCHES, ids=name)
def test_a_search_finds_better_ones_and_reports_their_scores(search):
    x = torch.randn(40, 2, dtype=torch.float64)
    result = search(gaussian_roll(8), x, first_coordinate, seed=1)
    assert torch.equal(result.score, result.samples[:, 0].float())
    assert torch.equal(result.baseline_score, result.baseline[:, 0].float())
    gain = (result.score - result.baseline_score).double()
    assert gain.mean() > 5 * gain.std() / len(gain) ** 0.5
    if search.search_steps == 8:
        assert torch.equal(result.score, result.scores.amax(1))


@pytest.mark.parametrize("search", [BestOfN(6, search_steps=8), ZeroOrder(2, 4, search_steps=8)], ids=name)
def test_a_search_that_holds_the_plain_translation_never_gets_worse(search):
    result = search(gaussian_roll(8), zeros(60, 2), first_coordinate)
    assert (result.score >= result.baseline_score).all() and (result.score > result.baseline_score).any()


@pytest.mark.parametrize("search", SEARCHES, ids=name)
def test_a_verifier_that_says_nothing_changes_nothing(search):
    for nothing in (torch.nan, -torch.inf, 3.0):
        silent = search(gaussian_roll(8), zeros(3, 2), lambda x_in, x_out, score=nothing: x_out[:, 0] * 0 + score)
        assert silent.samples.isfinite().all()
        if not isinstance(search, Paths) or not search.renoise:
            torch.testing.assert_close(silent.samples, silent.baseline)


def test_a_score_that_is_not_a_number_never_wins():
    def broken(x_in, x_out):
        return torch.where(x_out[:, 0] > 0, torch.nan, x_out[:, 0])

    result = BestOfN(16, search_steps=8)(gaussian_roll(8), zeros(50, 1), broken)
    assert (result.samples[:, 0] < 0).float().mean() > 0.8
    assert (result.score[result.samples[:, 0] > 0] == -torch.inf).all()


def test_the_verifier_sees_float32_without_gradient_and_not_clamped():
    seen = []

    def verifier(x_in, x_out):
        seen.append((x_in, x_out))
        return x_out.sum(1)

    x = torch.full((3, 2), 40.0, dtype=torch.float64, requires_grad=True)
    result = BestOfN(2, search_steps=4)(gaussian_roll(4), x, verifier)
    assert all(one.dtype == torch.float32 and not one.requires_grad for pair in seen for one in pair)
    assert all((x_in == 40).all() and x_out.max() > 2 for x_in, x_out in seen)
    assert result.samples.dtype == torch.float64 and not result.samples.requires_grad


def test_rankings_need_no_common_scale():
    def far(x_in, x_out):
        return -1e6 * (x_out[:, 1] - 1) ** 2

    def cubed(x_in, x_out):
        return -1e-3 * ((x_out[:, 1] - 1) ** 2) ** 3

    x = zeros(30, 2)
    for search in (BestOfN(8, search_steps=6), ZeroOrder(3, 3, search_steps=6), Paths(2, 3, 2, search_steps=6)):
        found = search(gaussian_roll(6), x, RankEnsemble([first_coordinate, far]))
        same = search(gaussian_roll(6), x, RankEnsemble([lambda a, b: b[:, 0].exp(), cubed]))
        assert torch.equal(found.samples, same.samples)
        assert torch.equal(found.score + found.baseline_score, torch.ones(30)) and found.score.mean() > 0.6
        gain = found.samples - found.baseline
        assert gain[:, 0].mean() > 0.1 and ((found.samples[:, 1] - 1) ** 2 < (found.baseline[:, 1] - 1) ** 2).sum() > 15


@pytest.mark.parametrize("steps", [6, 20])
@pytest.mark.parametrize("search", [BestOfN, ZeroOrder, Paths])
def test_a_budget_is_used_up_and_never_exceeded(search, steps):
    for budget in (200, 333):
        one = search(budget=budget, search_steps=steps)
        cost = one.evaluations(20)
        another = {BestOfN: steps, ZeroOrder: 2 * steps, Paths: Paths(2, **FULL | {"search_steps": steps})._each(20)}
        assert budget - another[search] < cost <= budget
    with pytest.raises(ValueError, match=r"budget must be at least \d+ drift evaluations for this search, got 9"):
        search(budget=9)(gaussian_roll(20), zeros(1, 1), first_coordinate)


def test_the_default_search_takes_a_quarter_of_the_steps_and_over_paths_all_of_them():
    assert [Paths().steps(k) for k in (1, 8, 30)] == [1, 8, 30]
    assert [BestOfN().steps(k) for k in (1, 4, 8, 20, 30, 100)] == [1, 4, 5, 5, 8, 25]


def test_a_held_out_verifier_tells_luck_from_gain():
    noise = torch.Generator().manual_seed(0)

    def noisy(x_in, x_out):
        return x_out[:, 0] + 3 * torch.randn(len(x_out), generator=noise)

    x = zeros(100, 1)
    lucky = BestOfN(16, search_steps=8)(gaussian_roll(8), x, noisy)
    checked = rescore(lucky, x, first_coordinate)
    assert (lucky.score - checked.score).mean() > 1 and checked.inflation > 1
    assert "of which a held-out verifier confirms" in checked.warning
    honest = BestOfN(16, search_steps=8)(gaussian_roll(8), x, first_coordinate)
    checked = rescore(honest, x, lambda x_in, x_out: x_out[:, 0] + 5)
    assert checked.warning is None and abs(checked.inflation) < 1e-5
    assert torch.equal(checked.baseline_score, honest.baseline_score + 5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: BestOfN(0), "num_candidates must be at least 1, got 0"),
        (lambda: BestOfN(3, budget=100), "give one of num_candidates, budget, got num_candidates=3 and budget=100"),
        (lambda: ZeroOrder(0), "num_neighbours must be at least 1, got 0"),
        (lambda: ZeroOrder(2, -1), "num_rounds must be at least 0, got -1"),
        (lambda: ZeroOrder(radius=0.0), r"radius must lie in \(0, 1\], got 0.0"),
        (lambda: Paths(2, 0), "branches must be at least 1, got 0"),
        (lambda: Paths(renoise=-1), "renoise must be at least 0, got -1"),
        (lambda: Paths(2, budget=100), "give one of width, budget"),
        (lambda: BestOfN(max_rows=0), "max_rows must be at least 1, got 0"),
    ],
)
def test_wrong_options_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_wrong_calls_are_refused():
    roll, x = gaussian_roll(4), zeros(3, 2)
    with pytest.raises(ValueError, match="search_steps must be at most the 4 steps, got 5"):
        BestOfN(search_steps=5)(roll, x, first_coordinate)
    with pytest.raises(ValueError, match="x0 must hold at least one input"):
        BestOfN()(roll, x[:0], first_coordinate)
    with pytest.raises(ValueError, match=r"a tensor of shape \[24\], got \[24, 1\]"):
        BestOfN()(roll, x, lambda x_in, x_out: x_out[:, :1])
    with pytest.raises(ValueError, match="got float"):
        BestOfN()(roll, x, lambda x_in, x_out: 1.0)
