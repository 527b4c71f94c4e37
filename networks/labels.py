"""Label names to positions."""

from collections.abc import Sequence

from utils.errors import UserError


def label_indices(labels: Sequence[str], known: Sequence[str]) -> list[int]:
    """The position of each label in `known`.

    Raises:
        UserError: a label that is not in `known`.
    """
    for label in labels:
        if label not in known:
            raise UserError(f"label '{label}' is unknown to this model; it knows {', '.join(known)}")
    return [known.index(label) for label in labels]
