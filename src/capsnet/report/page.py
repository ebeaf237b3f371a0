"""Render sections as one HTML file with embedded pictures, without scripts."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

from capsnet.report.style import Picture

STYLE = """
:root { color-scheme: light dark; --page: #ffffff; --text: #1f2328; --soft: #59636e; --line: #d1d9e0;
  --panel: #f6f8fa; --link: #0a5fb4; }
@media (prefers-color-scheme: dark) { :root { --page: #0f1419; --text: #e6edf3; --soft: #9aa7b4;
  --line: #303a45; --panel: #171d24; --link: #6cb6ff; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--text);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
main { max-width: 76rem; margin: 0 auto; padding: 1.5rem clamp(1rem, 4vw, 2.5rem) 4rem; }
h1 { font-size: clamp(1.4rem, 4vw, 2rem); line-height: 1.2; margin: .5rem 0; overflow-wrap: anywhere; }
h2 { font-size: 1.25rem; margin: 2.8rem 0 .5rem; padding-top: 1rem; border-top: 1px solid var(--line); }
p { max-width: 46rem; margin: .5rem 0; overflow-wrap: anywhere; }
nav { display: flex; flex-wrap: wrap; gap: .2rem 1.1rem; margin: 1rem 0; }
a { color: var(--link); }
.lead { font-size: 1.15rem; }
.pictures { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 21rem), 1fr));
  gap: 1rem; align-items: start; margin: 1rem 0; }
figure { margin: 0; min-width: 0; }
figure.wide { grid-column: 1 / -1; max-width: 56rem; }
.sheet { background: #fff; border: 1px solid var(--line); border-radius: .6rem; padding: .6rem;
  overflow-x: auto; }
.sheet img { display: block; margin: 0 auto; max-width: 100%; height: auto; }
.wide .sheet img { min-width: 40rem; }
figcaption { color: var(--soft); font-size: .875rem; margin-top: .35rem; }
.table { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; font-size: .95rem; font-variant-numeric: tabular-nums; }
th, td { text-align: left; vertical-align: top; padding: .3rem 1.2rem .3rem 0;
  border-bottom: 1px solid var(--line); overflow-wrap: anywhere; }
tbody th { font-weight: 400; color: var(--soft); white-space: nowrap; }
thead th { font-weight: 600; }
footer { margin-top: 3rem; color: var(--soft); font-size: .875rem; }
@media (prefers-color-scheme: dark) { .sheet { background: #e9edf1; } .sheet img { mix-blend-mode: multiply; } }
@media print { .sheet { border: 0; } figure, table { break-inside: avoid; } nav { display: none; } }
"""


@dataclass(frozen=True)
class Section:
    """Hold a headline, sentences, figures and a table. `render` escapes all text."""

    title: str
    text: Sequence[str] = ()
    pictures: Sequence[Picture] = ()
    table: Sequence[tuple[str, ...]] = ()
    """Rows; the first row is the header unless `facts` is set."""
    facts: bool = False
    """Whether the table has names and values, without a header."""
    notes: Sequence[str] = field(default=())
    """Sentences below the figures."""

    @property
    def anchor(self) -> str:
        """Return the id that links to this section use."""
        return "".join(letter if letter.isalnum() else "-" for letter in self.title.lower())


def render(title: str, lead: str, sections: Sequence[Section], footer: str) -> str:
    """Render the page as HTML."""
    links = "\n".join(f'<a href="#{escape(part.anchor)}">{escape(part.title)}</a>' for part in sections)
    body = "\n".join(_section(part) for part in sections)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{escape(title)}</title>
<style>{STYLE}</style>
</head>
<body>
<main>
<h1>{escape(title)}</h1>
<p class="lead">{escape(lead)}</p>
<nav aria-label="Sections">
{links}
</nav>
{body}
<footer>{escape(footer)}</footer>
</main>
</body>
</html>
"""


def _section(part: Section) -> str:
    lines = [f'<section id="{escape(part.anchor)}">', f"<h2>{escape(part.title)}</h2>"]
    lines += [f"<p>{escape(text)}</p>" for text in part.text]
    if part.pictures:
        lines += ['<div class="pictures">', *map(_figure, part.pictures), "</div>"]
    if part.table:
        lines.append(_table(part.table, part.facts))
    lines += [f"<p>{escape(text)}</p>" for text in part.notes]
    return "\n".join([*lines, "</section>"])


def _figure(picture: Picture) -> str:
    width, height = picture.size
    data = b64encode(picture.png).decode("ascii")
    caption = f"<figcaption>{escape(picture.caption)}</figcaption>" if picture.caption else ""
    return (
        f'<figure{" class=wide" if picture.wide else ""}><div class="sheet"><img src="data:image/png;base64,{data}" '
        f'alt="{escape(picture.alt)}" width="{width}" height="{height}"></div>{caption}</figure>'
    )


def _table(rows: Sequence[tuple[str, ...]], facts: bool) -> str:
    head = (
        "" if facts else f"<thead><tr>{''.join(f'<th>{escape(cell)}</th>' for cell in rows[0])}</tr></thead>"
    )
    body = "".join(
        f"<tr><th scope=row>{escape(row[0])}</th>{''.join(f'<td>{escape(cell)}</td>' for cell in row[1:])}</tr>"
        for row in (rows if facts else rows[1:])
    )
    return f'<div class="table"><table>{head}<tbody>{body}</tbody></table></div>'
