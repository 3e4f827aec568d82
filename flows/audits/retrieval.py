"""Does a retriever know items, or text, of rows that judge? What a sequential run was fitted on."""

from collections.abc import Iterator

import numpy as np

from ctr_models.sequential.text import fit_text, item_vectors
from flows.audits import Audited


def retriever_of_everything(audited: Audited) -> Iterator[str]:
    """A sequential run that has learned ids of items which occur in no training row."""
    if audited.sequences is None:
        return
    known = set(audited.sequences.items[: audited.sequences.n_known + 1])
    for name, run in audited.retrievers.items():
        if more := set(run.items) - known:
            yield f"retriever {name!r}: knows {len(more)} items of no training row, as {min(more)!r}"


def reduction_of_everything(audited: Audited) -> Iterator[str]:
    """A sequential run whose text was centred, or turned, by more than the texts of items in training rows."""
    for name, run in audited.retrievers.items():
        feature = audited.snapshot.features.get(run.init.feature_set) if run.init else None
        if audited.sequences is None or run.init is None or run.reduction is None or feature is None:
            continue
        read = run.lineage["features"][feature.name]["content_hash"]  # type: ignore[index]
        if read != feature.manifest["content_hash"]:  # trained before the newest texts were written
            continue
        stored, width = item_vectors(feature, audited.sequences.items), run.options.width
        fitted = fit_text(
            stored, run.init, audited.sequences, width=width, catalogue=audited.dataset.items, encoder=feature.encoder
        ).items
        reduced = run.reduction.apply(stored.vectors[fitted.known])
        again = fitted.vectors[fitted.known]
        # Axes may change sign between two fits; what the items' distances are may not.
        ours, theirs = reduced @ reduced[:256].T, again @ again[:256].T
        if ours.shape != theirs.shape or np.abs(ours - theirs).max() > 1e-2 * max(1e-6, np.abs(theirs).max()):
            yield f"retriever {name!r}: {feature.name} was reduced by more than the texts of items in training rows"


CHECKS = (retriever_of_everything, reduction_of_everything)
