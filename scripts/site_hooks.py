"""What the site has beside the pages of docs/: the reference, written from the code, and files that pages link to.

A page may link to a file of the repository outside docs/, such as a result. The site then holds that file, at its path.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

import site_reference
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
LINK = re.compile(r"(?<=\]\()(?!\w+:|#|/)([^)\s#]+)")
RESULTS = ROOT / "benchmarks" / "results"


def on_files(files: Files, config: Any) -> Files:
    """Add the generated pages, every dated result, and what pages link to outside docs/."""
    for name, text in site_reference.pages(ROOT).items():
        files.append(File.generated(config, name, content=text))
    wanted = {path.relative_to(ROOT).as_posix() for path in RESULTS.glob("*.*")}
    for page in files.documentation_pages():
        targets = (_leads_to(page.src_uri, link) for link in LINK.findall(page.content_string))
        wanted |= {target for target in targets if target}
    for name in sorted(wanted):
        files.append(File.generated(config, name, abs_src_path=str(ROOT / name)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links that lead in or out of docs/ lead to the same file in the site."""
    here = posixpath.dirname(page.file.src_uri)

    def inside(link: re.Match[str]) -> str:
        target = _leads_to(page.file.src_uri, link[1])
        return posixpath.relpath(target.removeprefix("docs/"), here or ".") if target else link[1]

    return LINK.sub(inside, markdown)


def _leads_to(page: str, link: str) -> str | None:
    """The file of the repository that a link of a page leads to, where one of the two is in docs/ and the other not."""
    place = page if page.startswith("benchmarks/") else f"docs/{page}"
    target = posixpath.normpath(posixpath.join(posixpath.dirname(place), link))
    across = place.startswith("docs/") != target.startswith("docs/") and not target.startswith("..")
    return target if across and (ROOT / target).is_file() else None
