"""Numbers computed by official code or in 40 digits, file by file, case by case.

The folder is FINEPREF_GOLDEN_DIR (default tests/goldens). A file needs an adapter of its name in tests/oracle/adapters;
without one it fails, except `eval_*` files, which are skipped by name. An adapter is a module with either

    outputs(case, meta) -> {name: number | list | str | array}     compared with the case's outputs
    tolerance(case, name) -> (rtol, atol)                           optional; default (1e-9, 0)
    IGNORED = {names that are not outputs}                          optional

or `check(case, meta)`, which asserts by itself. `case` has its tensor names replaced by the tensors; for a file without
a list of cases it is the whole content and `meta` is empty.
"""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

FOLDER = Path(os.environ.get("FINEPREF_GOLDEN_DIR") or Path(__file__).parents[1] / "goldens")
ADAPTERS = Path(__file__).parent / "adapters"
METHOD_FILES = {
    "arena",
    "composed_reconstructions",
    "diffusers_dpo",
    "diffusion_dpo",
    "diffusion_kto",
    "dspo",
    "forward_noising",
    "inpo_inversion_official",
    "mapo",
    "sdpo",
    "sft",
    "smpo_inversion_official",
    "smpo_inversion_paper",
    "smpo_weights",
}


def _resolve(value: Any, tensors: dict[str, Any]) -> Any:
    if isinstance(value, str) and value in tensors:
        return tensors[value]
    if isinstance(value, dict):
        return {key: _resolve(inner, tensors) for key, inner in value.items()}
    return value


def _cases() -> Iterator[Any]:
    for path in sorted(FOLDER.glob("*.json")):
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content.get("cases"), list):
            yield pytest.param(path.stem, content, {}, id=path.stem)
            continue
        tensors = content.get("tensors", {})
        for number, case in enumerate(content["cases"]):
            case = dict(case, inputs=_resolve(case.get("inputs", {}), tensors))
            name = f"{path.stem}-{case.get('name', number)}"
            yield pytest.param(path.stem, case, content.get("meta", {}), id=name)


def _compare(name: str, found: Any, wanted: Any, rtol: float, atol: float) -> None:
    if wanted is None or isinstance(wanted, str | bool):
        assert found == wanted, f"{name}: {found!r} is not {wanted!r}"
        return
    if isinstance(wanted, dict):
        assert set(found) == set(wanted), name
        for key, value in wanted.items():
            _compare(f"{name}[{key}]", found[key], value, rtol, atol)
        return
    expected = np.asarray(wanted, dtype=np.float64)
    values = np.asarray(found, dtype=np.float64)
    assert values.shape == expected.shape, f"{name}: shape {values.shape} is not {expected.shape}"
    np.testing.assert_allclose(values, expected, rtol=rtol, atol=atol, err_msg=name)


@pytest.mark.parametrize(("file", "case", "meta"), list(_cases()))
def test_golden(file: str, case: dict[str, Any], meta: dict[str, Any]) -> None:
    """Every output of every case, at the file's tolerance."""
    if not (ADAPTERS / f"{file}.py").exists():
        if file.startswith("eval_"):
            pytest.skip(f"{file}: its scorers have no adapter")
        pytest.fail(f"{file}.json has no adapter in {ADAPTERS.name}/")
    adapter = importlib.import_module(f"adapters.{file}")
    if hasattr(adapter, "check"):
        adapter.check(case, meta)
        return
    assert "outputs" in case, f"{file}.json has no list of cases with outputs"
    wanted = {name: value for name, value in case["outputs"].items() if name not in getattr(adapter, "IGNORED", ())}
    found = adapter.outputs(case, meta)
    missing = set(wanted) - set(found)
    assert not missing, f"the adapter does not compute {sorted(missing)}"
    assert wanted, "nothing to compare"
    for name, value in wanted.items():
        rtol, atol = adapter.tolerance(case, name) if hasattr(adapter, "tolerance") else (1e-9, 0.0)
        _compare(name, found[name], value, rtol, atol)


def test_every_method_file_is_here() -> None:
    """The folder holds the 14 method files, each with at least one case; the default folder may not lose one."""
    present = {path.stem for path in FOLDER.glob("*.json")}
    assert present, f"no golden file in {FOLDER}"
    if "FINEPREF_GOLDEN_DIR" not in os.environ:
        assert present >= METHOD_FILES, sorted(METHOD_FILES - present)
    counted = {param.values[0] for param in _cases()}
    assert counted == present, f"files without cases: {sorted(present - counted)}"
