"""The type checker of the test suite: beartype, where an int is a float as in PEP 484."""

from __future__ import annotations

from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))
