"""Pieces of a self-contained HTML page: escaping, tables, notes, tiles, the frame with its style. No scripts, no fonts.

Every function takes plain values, escapes them, and returns a string of HTML; `Raw` marks what is HTML already.
"""

from __future__ import annotations

import html as _html
import math
from collections.abc import Iterable, Sequence

STYLE = """
:root{--paper:#fbfaf7;--card:#ffffff;--ink:#1d2433;--soft:#5b6475;--line:#e3e1da;--accent:#2f5bd0;--accent-soft:#dfe7fb;
--good:#1c7d55;--bad:#b8452f;--warn:#8a6100;--warn-soft:#fdf3d7;--second:#c2571a;--third:#1c7d75;--fourth:#7d4bb0;
--fifth:#a33d6c;--sixth:#5d6b1e;--plain:#8791a5;--heat:47,91,208;--cold:194,87,26}
@media (prefers-color-scheme:dark){:root{--paper:#14171d;--card:#1c2029;--ink:#e8eaf0;--soft:#a0a8b8;--line:#323846;
--accent:#86a8ff;--accent-soft:#263250;--good:#63c79b;--bad:#f0907a;--warn:#ecc662;--warn-soft:#3a3118;--second:#f0a06a;
--third:#62c9bf;--fourth:#c09be8;--fifth:#ea8fb6;--sixth:#b9c866;--plain:#7d879a;--heat:134,168,255;--cold:240,160,106}}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,
"Helvetica Neue","DejaVu Sans",Arial,sans-serif}
main{max-width:1040px;margin:0 auto;padding:2.2rem 1.2rem 4rem}
h1{font-size:2rem;line-height:1.15;margin:0 0 .35rem;letter-spacing:-.02em}
h2{font-size:1.3rem;margin:0 0 .3rem;letter-spacing:-.01em}
h3{font-size:1.02rem;margin:1.3rem 0 .3rem}
p{margin:.4rem 0 .8rem;max-width:46rem}
.lead,.soft,figcaption{color:var(--soft)}
.lead{font-size:1.06rem;max-width:46rem}
section{background:var(--card);border:1px solid var(--line);border-radius:14px;padding:1.3rem 1.4rem;margin:1.2rem 0}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(130px,1fr));gap:.7rem;margin:1.3rem 0}
.tile{background:var(--card);border:1px solid var(--line);border-radius:12px;padding:.7rem .9rem}
.tile b{display:block;font-size:1.45rem;line-height:1.2;font-variant-numeric:tabular-nums;overflow-wrap:anywhere}
.tile span{color:var(--soft);font-size:.83rem}
.note{border-left:4px solid var(--accent);background:var(--accent-soft);border-radius:0 8px 8px 0;padding:.55rem .9rem;
margin:.7rem 0;max-width:none}
.note.warn{border-color:var(--warn);background:var(--warn-soft)}
.scroll{overflow-x:auto;-webkit-overflow-scrolling:touch}
table{border-collapse:collapse;width:100%;font-size:.92rem;font-variant-numeric:tabular-nums}
th{font-weight:600;color:var(--soft);text-align:right;font-size:.82rem;vertical-align:bottom}
th,td{padding:.36rem .6rem;border-bottom:1px solid var(--line);text-align:right;white-space:nowrap}
th.l,td.l{text-align:left}
td.w{white-space:normal;min-width:11rem}
tbody tr:last-child td{border-bottom:0}
tr.tied td:first-child{color:var(--accent);font-weight:600}
figure{margin:.8rem 0 0}
figcaption{font-size:.88rem;margin-top:.3rem;max-width:46rem}
svg{display:block;max-width:100%;height:auto}
svg text{font:12px system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",Arial,sans-serif;fill:var(--ink)}
svg .soft{fill:var(--soft)}
svg .grid{stroke:var(--line);stroke-width:1}
svg .axis{stroke:var(--soft);stroke-width:1}
.pair>div{min-width:0}
.pair{display:grid;grid-template-columns:repeat(auto-fit,minmax(320px,1fr));gap:1.2rem}
nav{display:flex;flex-wrap:wrap;gap:.3rem 1rem;font-size:.92rem}
a{color:var(--accent)}
details{margin:.8rem 0 0}
summary{cursor:pointer;color:var(--accent);font-weight:600}
.iv{display:grid;grid-template-columns:auto 1fr 3.6rem;gap:0 .8rem;align-items:center;font-size:.88rem}
.iv>span{text-align:right;width:var(--label);white-space:nowrap;overflow:hidden;text-overflow:ellipsis}
.iv>div{position:relative;height:1.55rem}
.iv>em{font-style:normal;color:var(--soft);text-align:right;font-variant-numeric:tabular-nums}
.iv s{position:absolute;top:0;bottom:0;border-left:1px solid var(--line);text-decoration:none}
.iv i{position:absolute;top:50%;height:4px;margin-top:-2px;border-radius:2px;background:var(--accent);opacity:.42}
.iv b{position:absolute;top:50%;width:10px;height:10px;margin:-5px 0 0 -5px;border-radius:50%;background:var(--accent)}
.iv.plain i,.iv.plain b{background:var(--plain)}
.iv.scale s{border:0;color:var(--soft);transform:translateX(-50%);font-size:.8rem}
.ivname{color:var(--soft);font-size:.82rem;text-align:center;max-width:none;margin:0}
code{font:.88em ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;overflow-wrap:anywhere}
footer{color:var(--soft);font-size:.85rem;margin-top:2rem;overflow-wrap:anywhere}
@media (max-width:560px){main{padding:1.2rem .7rem 3rem}section{padding:1rem .85rem;border-radius:10px}
h1{font-size:1.55rem}
.iv{grid-template-columns:1fr 3.4rem;gap:0 .5rem}.iv>span{text-align:left;width:auto;grid-column:1}
.iv>em{grid-row:1;grid-column:2}.iv>div{grid-column:1/3;height:1rem;margin-bottom:.35rem}
.pair{grid-template-columns:1fr}th,td{padding:.32rem .42rem}.wide{min-width:560px}}
@media print{body{background:#fff}section{break-inside:avoid}}
"""


class Raw(str):
    """A string that is HTML already and is not escaped again."""


def esc(value: object) -> Raw:
    """Any value as safe HTML text (also safe inside a quoted attribute)."""
    return value if isinstance(value, Raw) else Raw(_html.escape(str(value), quote=True))


def number(value: float | None, digits: int = 2, *, sign: bool = False) -> str:
    """A number with that many decimals and a real minus; a dash for None, nan and infinity."""
    if value is None or not math.isfinite(value):
        return "–"
    text = f"{value:+,.{digits}f}" if sign else f"{value:,.{digits}f}"
    if float(text.replace(",", "")) == 0:
        text = text.lstrip("+-")
    return text.replace("-", "−")


def table(
    head: Sequence[object],
    rows: Iterable[Sequence[object]],
    *,
    left: Sequence[int] = (0,),
    wrap: Sequence[int] = (),
    marked: Sequence[bool] = (),
) -> Raw:
    """A table; `left`: left-aligned columns, `wrap`: of them those that break, `marked`: bold first cells."""

    def cells(values: Sequence[object], tag: str) -> str:
        kinds = [' class="l w"' if at in wrap else " class=l" if at in left else "" for at in range(len(values))]
        return "".join(f"<{tag}{kind}>{esc(value)}</{tag}>" for kind, value in zip(kinds, values, strict=True))

    body = "".join(
        f"<tr{' class=tied' if at < len(marked) and marked[at] else ''}>{cells(row, 'td')}</tr>"
        for at, row in enumerate(rows)
    )
    return Raw(
        f"<div class=scroll><table><thead><tr>{cells(head, 'th')}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def section(title: str, *parts: str, name: str = "") -> Raw:
    """A card with a heading; parts are HTML."""
    anchor = f' id="{esc(name)}"' if name else ""
    return Raw(f"<section{anchor}><h2>{esc(title)}</h2>{''.join(parts)}</section>")


def paragraph(text: object, kind: str = "") -> Raw:
    """A paragraph; `kind` is a class such as "soft" or "lead"."""
    return Raw(f"<p{f' class={kind}' if kind else ''}>{esc(text)}</p>")


def note(text: object, *, warn: bool = False) -> Raw:
    """A remark in a coloured box."""
    return Raw(f'<p class="note{" warn" if warn else ""}">{esc(text)}</p>')


def tiles(values: Iterable[tuple[object, object]]) -> Raw:
    """Big figures with a caption each: (figure, caption)."""
    inner = "".join(
        f"<div class=tile><b>{esc(figure)}</b><span>{esc(caption)}</span></div>" for figure, caption in values
    )
    return Raw(f"<div class=tiles>{inner}</div>")


def figure(drawing: str, caption: object = "", *, wide: bool = False) -> Raw:
    """A drawing with a caption; a wide one scrolls on a phone instead of shrinking."""
    words = f"<figcaption>{esc(caption)}</figcaption>" if caption else ""
    inner = f"<div class=scroll><div class=wide>{drawing}</div></div>" if wide else drawing
    return Raw(f"<figure>{inner}{words}</figure>")


def pair(*parts: str) -> Raw:
    """Parts side by side where there is room, below each other on a phone."""
    return Raw(f"<div class=pair>{''.join(f'<div>{part}</div>' for part in parts)}</div>")


def contents(links: Iterable[tuple[str, str]]) -> Raw:
    """A line of links to the cards of this page: (name of the card, words)."""
    return Raw("<nav>" + "".join(f'<a href="#{esc(name)}">{esc(words)}</a>' for name, words in links) + "</nav>")


def details(summary: object, *parts: str) -> Raw:
    """Parts that open on a click."""
    return Raw(f"<details><summary>{esc(summary)}</summary>{''.join(parts)}</details>")


def heading(text: object) -> Raw:
    """A small heading inside a card."""
    return Raw(f"<h3>{esc(text)}</h3>")


def page(title: str, lead: object, *parts: str, footer: object = "") -> str:
    """A whole page: heading, lead, parts (HTML) and footer."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{esc(title)}</title><style>{STYLE}</style></head>\n"
        f"<body><main><header><h1>{esc(title)}</h1>{paragraph(lead, 'lead')}</header>\n"
        + "\n".join(parts)
        + f"\n<footer>{esc(footer)}</footer></main></body></html>\n"
    )
