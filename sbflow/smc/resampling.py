"""Resampling schemes: from log-weights to the indices of the ancestors.

All are unbiased, E[count of i] = m W_i for m draws, and choose no particle of weight zero. The variance of an average
over the resampled particles falls from multinomial over residual and stratified to systematic and SSP. Sums are float64
throughout: in float32 the cumulative sum of 2·10⁶ weights is off by 10⁻⁴, and can end below the last point.

References:
    Chopin & Papaspiliopoulos, An Introduction to Sequential Monte Carlo, 2020, chapter 9.
    Gerber, Chopin, Whiteley, "Negative association, ordering and convergence of resampling methods", 2019.
"""

from typing import Literal, Protocol, get_args, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

__all__ = [
    "Resampling",
    "Scheme",
    "killing",
    "multinomial",
    "resampling_scheme",
    "residual",
    "ssp",
    "stratified",
    "systematic",
]

Scheme = Literal["multinomial", "residual", "stratified", "systematic", "ssp", "killing"]
"""Names of the schemes."""


@runtime_checkable
class Resampling(Protocol):
    """Chooses ancestors in proportion to weights, row by row."""

    def __call__(
        self, log_weights: Float[Tensor, "r n"], generator: torch.Generator | None = None, num: int | None = None
    ) -> Int[Tensor, "r m"]:
        """Draw ancestors.

        Args:
            log_weights: need not be normalised; each row must have a finite maximum.
            generator: source of the uniforms.
            num: ancestors per row, m; n by default.
        """


def resampling_scheme(name: Scheme) -> Resampling:
    """Scheme of that name.

    Raises:
        ValueError: there is none.
    """
    schemes: dict[str, Resampling] = {
        "multinomial": multinomial,
        "residual": residual,
        "stratified": stratified,
        "systematic": systematic,
        "ssp": ssp,
        "killing": killing,
    }
    if name not in schemes:
        raise ValueError(f"resampling scheme must be one of {', '.join(get_args(Scheme))}; got {name!r}")
    return schemes[name]


def multinomial(
    log_weights: Float[Tensor, "r n"], generator: torch.Generator | None = None, num: int | None = None
) -> Int[Tensor, "r m"]:
    """Independent draws, listed in order; see `Resampling`."""
    rows, n = log_weights.shape
    sums = _poisson_sums((rows, (num or n) + 1), log_weights, generator)
    return _invert(log_weights, sums[:, :-1] / sums[:, -1:])


def stratified(
    log_weights: Float[Tensor, "r n"], generator: torch.Generator | None = None, num: int | None = None
) -> Int[Tensor, "r m"]:
    """One point in each of m equal strata of the cumulative weights; see `Resampling`."""
    rows, n = log_weights.shape
    m = num or n
    expected = _cumulative(log_weights, m)
    whole = expected.floor().nan_to_num_(0).clamp_(0, m - 1).long()
    u = _uniforms((rows, m), log_weights, generator).clamp_(max=_below_one(m))
    return _list(whole + (u.gather(-1, whole) < expected - whole), m)


def systematic(
    log_weights: Float[Tensor, "r n"], generator: torch.Generator | None = None, num: int | None = None
) -> Int[Tensor, "r m"]:
    """One uniform per row, m equidistant points on the cumulative weights; see `Resampling`.

    Each particle is chosen ⌊m W⌋ or ⌈m W⌉ times.
    """
    rows, n = log_weights.shape
    m = num or n
    u = _uniforms((rows, 1), log_weights, generator).clamp_(max=_below_one(m))
    # point i + u lies below an expected number c of ancestors for ⌈c − u⌉ of all i
    return _list(_cumulative(log_weights, m).sub_(u).ceil_().long(), m)


def residual(
    log_weights: Float[Tensor, "r n"], generator: torch.Generator | None = None, num: int | None = None
) -> Int[Tensor, "r m"]:
    """⌊m W⌋ copies of each particle, the rest by independent draws from what is left; see `Resampling`."""
    rows, n = log_weights.shape
    m = num or n
    copies, left = _whole_and_left(log_weights, m)
    certain = copies.sum(-1, keepdim=True)
    # m points for every row, of which the first m − certain are in order and uniform
    sums = _poisson_sums((rows, m + 1), log_weights, generator)
    drawn = _invert(left.log(), sums[:, :-1] / sums.gather(-1, m - certain))
    place = _indices(m, log_weights) - certain
    return torch.where(place < 0, _list(copies.cumsum(-1), m), drawn.gather(-1, place.clamp_min(0)))


def ssp(
    log_weights: Float[Tensor, "r n"], generator: torch.Generator | None = None, num: int | None = None
) -> Int[Tensor, "r m"]:
    """Srinivasan sampling process; see `Resampling`.

    Each particle is chosen ⌊m W⌋ or ⌈m W⌉ times and the counts are negatively associated, which makes the scheme
    consistent whatever the order of the particles. The fractions are rounded in pairs up a binary tree, in log₂ n
    rounds, and not one after the other.
    """
    m = num or log_weights.shape[-1]
    copies, fraction = _whole_and_left(log_weights, m)
    survivor = _indices(fraction.shape[-1], fraction).expand_as(copies)
    while fraction.shape[-1] > 1:
        fraction, survivor, winner = _play(fraction, survivor, generator)
        # a winner is rounded up; where a pair has none, the row's first particle gains nothing
        copies = copies.scatter_add(-1, winner.clamp_min(0), (winner >= 0).long())
    # the fractions of a row add up to a whole number, so that what is left is 0 or 1 but for rounding
    return _list(copies.scatter_add(-1, survivor, (fraction > 0.5).long()).cumsum(-1), m)


def killing(
    log_weights: Float[Tensor, "r n"], generator: torch.Generator | None = None, num: int | None = None
) -> Int[Tensor, "r m"]:
    """A particle stays with probability W / max W and is otherwise replaced by an independent draw; see `Resampling`.

    Raises:
        ValueError: ``num`` is given and not n, since every particle either stays or is replaced.
    """
    rows, n = log_weights.shape
    if num not in (None, n):
        raise ValueError(f"killing replaces particles one by one: num must be {n}, got {num}")
    uniforms = _uniforms((rows, 2 * n), log_weights, generator)
    stays = uniforms[:, :n] < torch.exp(log_weights.double() - log_weights.double().amax(-1, keepdim=True))
    return torch.where(stays, _indices(n, log_weights), _invert(log_weights, uniforms[:, n:]))


def _play(
    fraction: Float[Tensor, "r n"], index: Int[Tensor, "r n"], generator: torch.Generator | None
) -> tuple[Float[Tensor, "r m"], Int[Tensor, "r m"], Int[Tensor, "r p"]]:
    """Round one of each pair up or down and leave the other to the next round, with the rest of their sum.

    Returns:
        fractions and indices of those left, m = ⌈n / 2⌉; and the index rounded up in each of the p = ⌊n / 2⌋ pairs, or
        −1 where one was rounded down.
    """
    paired = fraction.shape[-1] // 2 * 2
    (p, q), (i, j) = (part[:, :paired].reshape(len(part), -1, 2).unbind(-1) for part in (fraction, index))
    total = p + q
    up = total >= 1
    # p is kept from being rounded down in proportion to p, and rounded up in proportion to what q lacks to 1
    chance = torch.where(up, (1 - q) / (2 - total), p / torch.where(total > 0, total, 1.0))
    first = _uniforms(p.shape, p, generator) < chance
    chosen, other = torch.where(first, i, j), torch.where(first, j, i)
    rest = torch.cat([torch.where(up, total - 1, total), fraction[:, paired:]], -1)
    left = torch.cat([torch.where(up, other, chosen), index[:, paired:]], -1)
    return rest, left, torch.where(up, chosen, -1)


def _whole_and_left(log_weights: Float[Tensor, "r n"], m: int) -> tuple[Int[Tensor, "r n"], Float[Tensor, "r n"]]:
    """Whole and fractional part of the expected counts m W."""
    expected = m * log_weights.double().softmax(-1).nan_to_num_(0)
    # m · (1 / m) may round to just under 1, which would leave equal weights to chance
    whole = (expected * (1 + 1e-12)).floor()
    return whole.long(), (expected - whole).clamp_min(0)


def _list(upper: Int[Tensor, "r n"], m: int) -> Int[Tensor, "r m"]:
    """List m ancestors in order, given how many of them come from each particle or one before it.

    The last particle has what is missing: nothing, unless all weights of a row are zero or the sum of its copies is
    less than m. In a time linear in n + m, where a search would take log n times as long.
    """
    rows, n = upper.shape
    # sums in parallel may round against their order, and those of a row without weight are no numbers
    upper = upper.clamp(0, m).cummax(-1).values
    upper[:, -1] = m
    copies = upper.diff(prepend=upper.new_zeros(rows, 1))
    listed = torch.repeat_interleave(copies.flatten(), output_size=rows * m).reshape(rows, m)
    return listed - n * _indices(rows, upper)[:, None]


def _indices(n: int, like: Tensor) -> Int[Tensor, " n"]:
    return torch.arange(n, device=like.device)


def _uniforms(shape: tuple[int, ...], like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Uniforms in [0, 1) in float64, drawn on the device of the generator."""
    device = like.device if generator is None else generator.device
    return torch.rand(*shape, dtype=torch.float64, device=device, generator=generator).to(like.device)


def _poisson_sums(shape: tuple[int, int], like: Tensor, generator: torch.Generator | None) -> Float[Tensor, "r k"]:
    """First k times of Poisson processes: divided by the k-th, the others are k − 1 uniforms in order."""
    # the least uniform above 0, so that the first time is not 0
    return _uniforms(shape, like, generator).clamp_(min=2**-54).log_().neg_().cumsum_(-1)


def _below_one(m: int) -> float:
    """The largest u for which m − u is told from m − 1 whatever was rounded before."""
    return 1 - m * 2**-50


def _cumulative(log_weights: Float[Tensor, "r n"], total: int) -> Float[Tensor, "r n"]:
    """Sums of the weights up to each particle, in float64, as shares of a total; NaN in a row without weight."""
    log_weights = log_weights.double()
    sums = (log_weights - log_weights.amax(-1, keepdim=True)).exp_().cumsum_(-1)
    return sums.div_(sums[:, -1:] / total)


def _invert(log_weights: Float[Tensor, "r n"], points: Float[Tensor, "r m"]) -> Int[Tensor, "r m"]:
    """Index of the weight under each point of [0, 1)."""
    cumulative = _cumulative(log_weights, 1)
    # a point that rounds to 1 would select the last particle even if its weight is zero
    points = points.clamp(max=1 - 2**-53)
    # no index n, not even in a row whose weights are all zero and whose sums are therefore NaN
    return torch.searchsorted(cumulative, points.contiguous(), right=True).clamp(max=log_weights.shape[-1] - 1)
