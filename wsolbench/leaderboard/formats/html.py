"""HTML: one file that needs no other, every text escaped by jinja2."""

from __future__ import annotations

from wsolbench.leaderboard.tables.sheets import Document, Signs

SIGNS = Signs(best="Bold:", second="Underlined:")

_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{{ document.title }}</title>
<style>
body { font: 14px/1.4 system-ui, sans-serif; margin: 2em; color: #222; }
h1 { font-size: 1.5em; } h2 { font-size: 1.1em; margin: 2em 0 .4em; }
div.wide { overflow-x: auto; }
table { border-collapse: collapse; border-top: 2px solid; border-bottom: 2px solid; white-space: nowrap; }
th, td { padding: .2em .8em .2em 0; text-align: right; vertical-align: baseline; }
th { border-bottom: 1px solid; font-weight: 600; }
th.text, td.text { text-align: left; }
small, p { color: #666; } p { max-width: 75em; margin: .3em 0; }
tr.muted td { color: #888; }
b { color: #000; } tr:hover td { background: #f4f4f4; }
</style>
<h1>{{ document.title }}</h1>
{% if document.command %}<pre>{{ document.command }}</pre>
{% endif -%}
{% if not document.sheets %}<p>{{ document.empty }}</p>
{% else %}<p>{{ legend }}</p>
{% endif -%}
{% for sheet in document.sheets %}
<h2>{{ sheet.title.replace(" | ", " · ") }}</h2>
<div class="wide"><table>
<thead><tr>{% for head in sheet.heads %}<th class="{{ head.kind }}">{{ head }}</th>{% endfor %}</tr></thead>
<tbody>
{% for line in sheet.lines -%}
<tr{% if line.muted %} class="muted"{% endif %}>
{%- for field in line.fields -%}
<td class="{{ sheet.heads[loop.index0].kind }}">
{%- if "best" in field.marks %}<b>{{ field.text }}</b>
{%- elif "second" in field.marks %}<u>{{ field.text }}</u>
{%- else %}{{ field.text }}{% endif %}
{%- if "tied" in field.marks %}{{ signs.tied }}{% endif %}
{%- if field.detail %} <small>{{ field.detail }}</small>{% endif -%}
</td>
{%- endfor %}</tr>
{% endfor -%}
</tbody></table></div>
{% for note in sheet.notes %}<p>{{ note }}.</p>
{% endfor -%}
{% endfor -%}
</html>
"""


def to_html(document: Document) -> str:
    """A document as one self-contained page."""
    from jinja2 import Environment, StrictUndefined

    template = Environment(autoescape=True, undefined=StrictUndefined, keep_trailing_newline=True).from_string(_PAGE)
    return template.render(document=document, legend=" ".join(document.legend(SIGNS)), signs=SIGNS)
