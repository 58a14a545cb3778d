"""What is said of a column of text at once is what is said of each of its cells."""

from __future__ import annotations

import pyarrow as pa

from finepref.core.text import MISSING, fault_of_prompt, is_missing
from finepref.formats.tables import are_missing, are_no_prompts

EVERY = [chr(number) for number in range(0x3100) if not 0xD800 <= number < 0xE000] + ["\ufeff", "\U0001f600"]


def test_missing_and_faulty_cells() -> None:
    texts = [f"{before}{each}{after}" for before, after in (("", ""), ("a", "b"), ("a ", " b")) for each in EVERY]
    texts += [f"{each}{word}{each}" for word in MISSING for each in (*EVERY[:0xB0], "\u2003", "\u3000", "\u200b")]
    texts += [word.upper() for word in MISSING]
    column = pa.array(texts, pa.string())
    assert are_missing(column).to_pylist() == [is_missing(each) for each in texts]
    assert are_no_prompts(column).to_pylist() == [bool(fault_of_prompt(each)) for each in texts]
