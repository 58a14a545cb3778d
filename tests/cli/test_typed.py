"""Options as typed: one of one value that is given twice is refused; one at fault is named as it stood there."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from finepref.cli.main import build, main
from finepref.cli.typed import as_typed, refuse_repeats
from finepref.core.errors import InputError


@pytest.mark.parametrize(
    "words",
    [
        "signals v.csv --kind fused --rewards a --rewards b --out o", "arena v.csv --out a --out=b",
        "compare d --baseline a --baseline b", "lab study -c a --config b", "train -c a --out x --out y",
        "export r --format merged --format kohya --out o", "lab votes --seed 1 --seed 2",
    ],
)  # fmt: skip
def test_twice(words: str) -> None:
    with pytest.raises(InputError, match="it is given twice, and takes one value"):
        refuse_repeats(build(), words.split())


@pytest.mark.parametrize(
    "words",
    [
        "signals v.csv --kind fused --kind smoothed --out o", "train -c a -c b --out o", "demo --quick --quick",
        "generate --model a=b --model c=d --out o", "arena v.csv -- --out --out", "train -c a t.s=1 t.s=2",
    ],
)  # fmt: skip
def test_once(words: str) -> None:
    refuse_repeats(build(), words.split())


@pytest.mark.parametrize(
    ("words", "where", "said"),
    [
        ("signals v.csv --kind=kto --out o", "kind kto", "--kind kto: "),
        ("signals v.csv -k kto --out o", "kind", "kind: "),  # no such option: the label stays
        ("generate --model a=b --batch-size 3 --out o", "batch size", "--batch-size: "),
        ("generate --model a=b --out o", "batch size", "batch size: "),  # not typed
        ("train -c a --out o", "config", "-c: "),
        ("train --config a --out o", "config", "--config: "),
        ("train -c a --out o -- --resume", "resume", "resume: "),
        ("lab votes --seed 1 --out o", "seed", "--seed: "),
    ],
)
def test_at_fault(words: str, where: str, said: str) -> None:
    assert as_typed(InputError("it is wrong", where=where, remedy="mend it"), build(), words.split()) == (
        f"{said}it is wrong; mend it"
    )


def test_a_file_is_no_option() -> None:
    error = InputError("it is wrong", where=Path("out"))
    assert as_typed(error, build(), ["train", "-c", "a", "--out", "o"]) == "out: it is wrong"


def test_said_by_the_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["finepref", "signals", "votes.csv", "--kind", "nonsense", "--out", "o.parquet"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("finepref: --kind: unknown kind of signal 'nonsense'; ")
