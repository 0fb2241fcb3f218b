"""The verifier as a search sees it: candidates of an input are compared with each other."""

import torch
from jaxtyping import Float
from torch import Tensor

from sbflow.verifier import RankEnsemble, Verifier, mean_rank

__all__ = ["Judge"]


class Judge:
    """Asks a verifier about the candidates of each input, in float32 and without gradients.

    Args:
        verifier: any verifier; an ensemble of rankings is asked for all of its members.
        x_in: inputs.
        max_rows: results shown to the verifier at once; all by default.
    """

    def __init__(self, verifier: Verifier, x_in: Float[Tensor, "n *event"], *, max_rows: int | None = None) -> None:
        self.verifier = verifier
        self.x_in = x_in
        self.max_rows = max_rows
        self.evaluations = 0

    @torch.no_grad()
    def __call__(self, candidates: Float[Tensor, "n candidates *event"]) -> Float[Tensor, "n candidates m"]:
        """What each of the m verifiers says of each candidate; what is not a number counts as the worst.

        Raises:
            ValueError: a verifier does not return one score per row.
        """
        n, count = candidates.shape[:2]
        self.evaluations += n * count
        x_in = self.x_in.repeat_interleave(count, 0).float()
        rows = self.max_rows or n * count
        pairs = zip(torch.split(x_in, rows), torch.split(candidates.flatten(0, 1).float(), rows), strict=True)
        # a rollout in half precision does not make a judge in half precision
        with torch.autocast(candidates.device.type, enabled=False):
            columns = torch.cat([self._columns(*pair) for pair in pairs])
        columns = columns.nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf)
        return torch.unflatten(columns, 0, (n, count))

    def _columns(self, x_in: Tensor, x_out: Tensor) -> Tensor:
        if isinstance(self.verifier, RankEnsemble):
            columns = self.verifier.columns(x_in, x_out)
        else:
            columns = _one_per_row(self.verifier(x_in, x_out), len(x_out))[:, None]
        return columns.to(x_out)

    def preference(self, columns: Float[Tensor, "n candidates m"]) -> Float[Tensor, "n candidates"]:
        """One number per candidate, larger is better: the score, or the mean rank among the candidates."""
        return mean_rank(columns) if isinstance(self.verifier, RankEnsemble) else columns[:, :, 0]


def _one_per_row(scores: object, n: int) -> Tensor:
    if not isinstance(scores, Tensor) or scores.shape != (n,):
        got = list(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
        raise ValueError(f"verifier must return one score per row, a tensor of shape [{n}], got {got}")
    return scores
