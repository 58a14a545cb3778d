"""Which rule chooses the sets of a study."""

from __future__ import annotations

from collections.abc import Sequence

from finepref.collect.chooser import Chooser
from finepref.collect.informed_choice import InformedChoice
from finepref.collect.plain_choice import FewestFirst
from finepref.core.rng import numpy_generator
from finepref.formats.answers import PictureRow
from finepref.formats.collection import CollectionRecord


def chooser_of(pictures: Sequence[PictureRow], about: CollectionRecord) -> Chooser:
    """The rule that a study names."""
    if about.choice == "fewest-first":
        return FewestFirst(pictures, images=about.images, chance=numpy_generator(about.seed, "sets"))
    return InformedChoice(pictures, about)
