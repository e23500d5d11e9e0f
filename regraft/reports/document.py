"""The frame of every HTML page: it loads nothing and runs nothing, whatever a name in it may smuggle in."""

import base64
import html
from hashlib import sha256

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="referrer" content="no-referrer">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>{style}</style></head><body><h1>{title}</h1>
{body}
</body></html>
"""


def document(title: str, body: str, style: str) -> str:
    """Return a whole page.

    Args:
        title: of the page, as text.
        body: HTML below the title.
        style: its only style sheet. Its digest is in the page's policy, so an attribute `style` does nothing.
    """
    # Nothing is loaded or run but embedded pictures and this very style sheet.
    digest = base64.b64encode(sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    return _PAGE.format(policy=policy, title=html.escape(title), style=style, body=body)
