"""One owner per exchanged file: its columns and keys are written as words in `formats/` alone.

Vocabulary: fields of the dataclasses of `formats/` and its tuples named COLUMNS or KEYS, as far as they can only mean a
column: words of several parts, such as pair_id, and PLAIN. A word counts where it names a column or key: as a
subscript, in `.get`, `.pop`, `.column`, `.field` and the like, before `in`, as a key of a dict, in a list or tuple.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[2] / "src" / "finepref"
ACCESS = {"get", "pop", "setdefault", "column", "field", "append_column", "drop_columns", "select", "sort_by", "equal"}
PLAIN = {"fingerprint", "skipped"}
OTHERS = {
    ("study/demo.py", "win_rate"),  # summary.json of the demo
    ("study/demo.py", "peak_memory_mb"),
    ("lab/model.py", "fingerprint"),  # lab.json of the lab's models
    ("collect/texts.py", "both_bad"),  # a word of the voter's page
    ("core/outfolders.py", "fingerprint"),  # finepref.json of every folder
}
"""(file, word) where the word is a key of a file that is not exchanged."""
OWNERS = ("formats/", "core/provenance.py")  # the record of provenance lies in every file; core cannot import formats


def is_dataclass(node: ast.AST) -> bool:
    return isinstance(node, ast.ClassDef) and any("dataclass" in ast.unparse(d) for d in node.decorator_list)


def strings(node: ast.AST | None) -> list[str]:
    """The texts in a list, tuple or set."""
    elements = node.elts if isinstance(node, ast.List | ast.Tuple | ast.Set) else []
    return [item.value for item in elements if isinstance(item, ast.Constant) and isinstance(item.value, str)]


def declared(tree: ast.Module) -> Iterator[str]:
    """Names of columns and keys that a module of `formats/` declares."""
    for node in tree.body:
        if is_dataclass(node):
            yield from (
                item.target.id
                for item in node.body
                if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)
            )
        targets = node.targets if isinstance(node, ast.Assign) else []
        for pair in ast.walk(node):  # (name, type), as schemas list them
            if isinstance(pair, ast.Tuple) and len(pair.elts) == 2 and "pa." in ast.unparse(pair.elts[1]):
                yield from strings(pair)
        if any(isinstance(target, ast.Name) and target.id in ("COLUMNS", "KEYS") for target in targets):
            yield from strings(node.value)


def vocabulary() -> dict[str, set[str]]:
    """Distinctive word -> the modules of `formats/` that declare it."""
    found: dict[str, set[str]] = {}
    for path in sorted((PACKAGE / "formats").glob("*.py")):
        for word in declared(ast.parse(path.read_text(encoding="utf-8"))):
            if "_" in word.strip("_") or word in PLAIN:
                found.setdefault(word, set()).add(path.stem)
    return found


def used(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """(word, line) of every text that is used as the name of a column or key."""
    for node in ast.walk(tree):
        named: list[ast.expr | None] = []
        if isinstance(node, ast.Subscript):
            named = [node.slice]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in ACCESS:
            named = list(node.args)
        elif isinstance(node, ast.Dict):
            named = list(node.keys)
        elif isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.In | ast.NotIn):
            named = [node.left]
        for item in named:
            if isinstance(item, ast.Constant) and isinstance(item.value, str):
                yield item.value, item.lineno
        if isinstance(node, ast.expr):
            yield from ((word, node.lineno) for word in strings(node))


def offences() -> dict[str, list[str]]:
    """File -> "line word" of every word of the vocabulary outside `formats/`."""
    known = vocabulary()
    found: dict[str, list[str]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        where = path.relative_to(PACKAGE).as_posix()
        if not where.startswith(OWNERS):
            for word, line in used(ast.parse(path.read_text(encoding="utf-8"))):
                if word in known and (where, word) not in OTHERS:
                    found.setdefault(where, []).append(f"{line} {word} (formats/{', '.join(sorted(known[word]))})")
    return found


def test_columns_and_keys_have_one_owner() -> None:
    """No other module spells a column or a key of an exchanged file: it uses the record and the reader."""
    assert not (wrong := offences()), "\n".join(f"{at}:{line}" for at, lines in wrong.items() for line in lines)


def test_the_vocabulary_is_that_of_the_files() -> None:
    """One word of each file that has an owner, so that an empty vocabulary cannot pass."""
    wanted = {
        "pair_id": {"signals", "rewards"},
        "image_sha256": {"manifest", "scores", "rewards"},
        "used_in_training": {"comparison"},
        "margin_0": {"signals"},
    }
    known = vocabulary()
    assert all(owners <= known.get(word, set()) for word, owners in wanted.items())
