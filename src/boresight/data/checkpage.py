"""The result of a check as one page that needs nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from boresight.data.checkshow import summary, tail
from boresight.data.show import escape, visible

if TYPE_CHECKING:
    from markupsafe import Markup

    from boresight.data.check import CheckResult

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="referrer" content="no-referrer">
<title>Data check of {{ source }}</title>
<style>
:root { --line: #8884; --dim: #666; --error: #b3261e; --warning: #8a5a00; --note: #1d5fa8; --on: #1a7431; }
@media (prefers-color-scheme: dark) {
  :root { --dim: #aaa; --error: #ff8a80; --warning: #f0b94a; --note: #82b8f5; --on: #7ddc95; }
}
body { font: 16px/1.5 system-ui, sans-serif; max-width: 56rem; margin: 0 auto; padding: 1rem; overflow-wrap: anywhere; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
article { border: 1px solid var(--line); border-left: .35rem solid; border-radius: .3rem; padding: .6rem .9rem;
  margin: .8rem 0; }
article.error { border-left-color: var(--error); } article.warning { border-left-color: var(--warning); }
article.note { border-left-color: var(--note); }
article h3 { margin: 0 0 .3rem; font-size: 1rem; }
.error b { color: var(--error); } .warning b { color: var(--warning); } .note b { color: var(--note); }
dl { display: grid; grid-template-columns: 4.5rem 1fr; gap: .15rem .6rem; margin: 0; }
dt { color: var(--dim); } dd { margin: 0; } code, pre { font: .9em ui-monospace, monospace; }
pre { white-space: pre-wrap; border: 1px solid var(--line); padding: .6rem; border-radius: .3rem; color: var(--dim); }
pre i { font-style: normal; font-weight: bold; color: var(--on); }
@media (max-width: 30rem) { dl { grid-template-columns: 1fr; } }
</style>
</head>
<body>
<h1>Data check of {{ source }}</h1>
<p><strong>{{ tail }}</strong></p>
<ul>{% for line in summary %}<li>{{ line }}</li>{% endfor %}</ul>
{% if findings %}<h2>Findings, most severe first</h2>{% endif %}
{% for f in findings %}
<article class="{{ f.severity }}" id="f{{ loop.index }}">
<h3><b>{{ f.severity }}</b> {{ f.headline|shown }}</h3>
<dl>
{% if f.examples %}<dt>rows</dt><dd>{% for source, detail in f.examples %}<code>{{ source|shown }}</code>
{%- if detail %} ({{ detail|shown }}){% endif %}{% if not loop.last %}; {% endif %}{% endfor %}</dd>{% endif %}
<dt>effect</dt><dd>{{ f.effect }}</dd><dt>mend</dt><dd>{{ f.mend }}</dd><dt>id</dt><dd><code>{{ f.id }}</code></dd>
</dl>
</article>
{% endfor %}
{% if rows %}
<h2>Rows, as they are trained on</h2>
<p>{{ legend }}</p>
{% for row in rows %}
<h3>{{ row.title|shown }}</h3>
<pre>{% for text, trained in row.pieces %}{% if trained %}<i>{{ text|seen }}</i>{% else %}{{ text|seen }}{% endif %}
{%- endfor %}</pre>
{% endfor %}
{% endif %}
<footer><p>Made by Boresight {{ version }}. This page holds everything it shows: it runs no script and asks for nothing.
</p></footer>
</body>
</html>
"""


def seen(text: str) -> Markup:
    """Escaped, its white space visible; a line may be broken behind the mark of a space, as it may at a space."""
    from markupsafe import Markup, escape

    return escape(visible(text)).replace("·", Markup("·<wbr>"))


def page(result: CheckResult) -> str:
    """The page as HTML. Text from the data is escaped, and nothing in it is invisible."""
    from jinja2 import Environment

    from boresight import __version__

    environment = Environment(autoescape=True, trim_blocks=True)
    environment.filters |= {"shown": escape, "seen": seen}
    return environment.from_string(PAGE).render(
        source=escape(result.source),
        tail=tail(result.findings),
        summary=[escape(line) for line in summary(result)],
        findings=result.findings,
        rows=result.shown,
        legend="green: trained on; grey: context only; · ↵ ⇥: white space; \\u…: invisible",
        version=__version__,
    )
