"""Every result of a benchmark has its line in the index, and no number there that the result does not have."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

import results_index as index  # noqa: E402

from finepref.train.diagnose import FEW  # noqa: E402

FINDINGS = yaml.safe_load((ROOT / "benchmarks" / "findings.yaml").read_text(encoding="utf-8"))
NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?(?:e-?\d+)?")
NAMES = re.compile(r"\bfloat32\b|\bR2\b|\bSD1\.5\b|AGIQA-3K|\d{4}-\d{2}-\d{2}-[a-z-]+")


def test_the_index_is_that_of_the_results() -> None:
    """Every result has its line, every line its result; the page was written after the last of them."""
    names = [result.name for result in index.results()]
    assert sorted(FINDINGS) == sorted(names)
    assert index.PAGE.read_text(encoding="utf-8") == index.page(), "run python benchmarks/results_index.py"


def test_one_file_a_benchmark_and_date() -> None:
    """Files bear the date on which they were made; a folder has rows only."""
    for result in index.results():
        if result.files[0].is_dir():
            assert {path.suffix for path in result.files[0].rglob("*") if path.is_file()} == {".json"}, result.name
            continue
        assert index.DATED.fullmatch(result.name), result.name
        assert {path.suffix for path in result.files} <= {".md", ".json"}, result.name
        data = result.data().get("data", {})
        made = data.get("created") or data.get("provenance", {}).get("created")
        assert made is None or made.startswith(result.name[:10]), result.name


def test_a_seed_more_is_a_line_more() -> None:
    """Rows of the study lie one seed (or point of the grid) a line: more of them change no line that is there."""
    for path in (ROOT / "benchmarks" / "results" / "study").rglob("*.json"):
        text = path.read_text(encoding="utf-8")
        lines = re.findall(r'^ *"(\d+)": (\{.*\}),?$', text, re.MULTILINE)
        data = json.loads(text)
        assert {key: json.loads(row) for key, row in lines} == data.get("seeds", data.get("grid", {})), path.name


def test_findings_have_the_results_numbers() -> None:
    """A number that a line does not take from the file stands in the result, its page or its command."""
    for result in index.results():
        finding = FINDINGS[result.name]
        pages = [path for path in result.files if path.is_file()]
        pages += [ROOT / finding["page"]] if "page" in finding else []
        known = "".join(path.read_text(encoding="utf-8") for path in pages) + result.command()
        numbers = {found.replace(",", "") for found in NUMBER.findall(known)}
        said = NAMES.sub("", re.sub(r"\{\{.*?\}\}", "", finding["finds"], flags=re.DOTALL))
        missing = [found for found in NUMBER.findall(said) if found.replace(",", "") not in numbers]
        assert not missing, (result.name, missing)
        assert finding.get("command") or result.command(), f"{result.name}: no command"


def test_what_is_said_of_few_pairs_is_what_the_rows_say() -> None:
    """`align` says that with so many pairs or fewer every run that was tried left the base as it was."""
    rows = [json.loads(path.read_text()) for path in (ROOT / "benchmarks" / "results" / "small-data").glob("*.json")]
    assert {row["kept"] for row in rows if row["job"]["pairs"] <= FEW} == {0}
    assert min(row["job"]["pairs"] for row in rows if row["kept"]) > FEW
