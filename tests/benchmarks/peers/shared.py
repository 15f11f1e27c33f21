"""What each of the compared apps returns: the same JSON, and a page of one size."""

ROLES = ("analyst", "editor", "reader")
REPORT = {"report": "sales", "rows": [{"month": n, "cents": 100 * n} for n in range(6)]}
PLACES = ("home", "about", "help")
FILES = ("icon.svg", "one.css", "two.css", "three.css")
_HEAD = "".join(f'<link href="/static/{file}">\n' for file in FILES)
_LAYOUT = f"""<!doctype html><html lang="en"><head>
<title>{{% block title %}}{{% endblock %}} · {{{{ name }}}}</title>
{_HEAD}</head><body><nav>
{{% for place in places %}}<a href="{{{{ place }}}}">{{{{ place }}}}</a>
{{% endfor %}}</nav>
MESSAGES
{{% block content %}}{{% endblock %}}</body></html>"""
_PAGE = (
    '{% extends "layout.html" %}{% block title %}{{ title }}{% endblock %}'
    "{% block content %}<h1>{{ title }}</h1>" + "x" * 1200 + "{% endblock %}"
)
JINJA_PAGES = {"layout.html": _LAYOUT.replace("MESSAGES", ""), "page.html": _PAGE}
DJANGO_PAGES = {
    "layout.html": _LAYOUT.replace(
        "MESSAGES", "{% for message in messages %}<p>{{ message }}</p>{% endfor %}"
    ),
    "page.html": _PAGE,
}
