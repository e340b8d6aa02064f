"""Says which folds and cases for validation a list gives, if the split of the recipe does not use them."""

from __future__ import annotations

import attrs

from trainkit import some_of
from trainkit_segmentation.cases.case import CaseList
from trainkit_segmentation.splits.kind import Split
from trainkit_segmentation.splits.listed import Listed


def with_listed_folds_named(listing: CaseList, split: Split) -> CaseList:
    """Return a list of cases with a note or doubt on the folds that it gives, if the split does not use them."""
    if not listing.folds or isinstance(split, Listed):
        return listing
    held_out = [case for case, fold in listing.folds.items() if fold == "val"]
    if held_out:
        doubt = (
            f"the list has {len(held_out)} case{'s' * (len(held_out) != 1)} for validation, {some_of(held_out)}, which "
            'the split of the recipe may train on; set split = { use = "listed" }'
        )
        return attrs.evolve(listing, doubts=(*listing.doubts, doubt))
    folds = some_of([str(fold) for fold in sorted(set(listing.folds.values()), key=str)])
    note = f'the list has folds ({folds}), which are not used; split = {{ use = "listed", fold = 0 }} holds one out'
    return attrs.evolve(listing, notes=(*listing.notes, note))
