"""What a cut of SALT's ranks did, as results.json holds it."""

from evaluation.summaries import Record


class LayerCut(Record):
    """One layer: its ranks before and after, and norms as in `adapters.pruning.LayerCut`."""

    before: dict[str, int]
    svd_rank: int
    r_lora: int
    error: float
    bound: float
    norm: float


class RankCut(Record):
    """All layers, at the end of `epoch`: `percent` of all parameters are trained from there on.

    `error` is the Frobenius norm of the change of all adapted weights together, `norm` that of the weights before.
    `bound`, which `error` cannot exceed, is that of the singular values that were dropped from the changes.
    """

    epoch: int
    percent: float
    error: float
    bound: float
    norm: float
    layers: dict[str, LayerCut]
