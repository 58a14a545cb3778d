"""`finepref doctor`: versions, devices, and what is known to break."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer


def command(as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False) -> None:
    """Show what is installed and which devices are seen; exit 1 if something is broken."""
    from finepref.core.errors import CheckFailed
    from finepref.plan.environment import EXTRAS, examine

    facts, findings = examine()
    if as_json:
        print(json.dumps({**facts, "findings": [asdict(finding) for finding in findings]}))
    else:
        for name, version in facts["versions"].items():
            print(f"{name:14} {version}")
        for name, version in facts["extras"].items():
            print(f"{name:14} {version or 'not installed: ' + EXTRAS[name]}")
        for finding in findings:
            print(("ok    " if finding.good else "BAD   ") + finding.what)
            if finding.remedy:
                print(f"      -> {finding.remedy}")
    bad = [finding for finding in findings if not finding.good]
    if bad:
        raise CheckFailed(f"{len(bad)} of {len(findings)} checks failed: {bad[0].what}", remedy=bad[0].remedy)
