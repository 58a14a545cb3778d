"""`finepref doctor`: versions, devices, and what is known to break."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer


def command(as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False) -> None:
    """What is installed, which devices are seen, what to do.

    Exit 1 if something is broken.
    """
    from finepref.core.errors import CheckFailed
    from finepref.core.terminal import folded_text, table_lines
    from finepref.plan.environment import EXTRAS, examine

    facts, findings = examine()
    if as_json:
        print(json.dumps({**facts, "findings": [asdict(finding) for finding in findings]}))
    else:
        print("\n".join(table_lines(("what", "version"), [*facts["versions"].items()], bare=True)))
        rows = [
            (name, found or "missing", "" if found else f"'finepref[{EXTRAS[name][0]}]'", EXTRAS[name][1])
            for name, found in facts["extras"].items()
        ]
        print("\n".join(["", *table_lines(("package", "version", "pip install", "for"), rows), ""]))
        for finding in findings:
            print(folded_text(("ok    " if finding.good else "BAD   ") + finding.what, indent="      "))
            if finding.remedy:
                print(folded_text(f"      -> {finding.remedy}", indent="   "))
    bad = [finding for finding in findings if not finding.good]
    if bad:
        raise CheckFailed(f"{len(bad)} of {len(findings)} checks failed: {bad[0].what}", remedy=bad[0].remedy)
