"""Values as JSON that may stand inside a script element, whatever text they hold.

Owns the escapes and the size: what is measured here is what the page holds.
"""

from __future__ import annotations

import json
import re

from markupsafe import Markup

# What could end the element or a line of it, and halves of characters, which no file can hold.
UNSAFE = re.compile("[<>&'\u2028\u2029\ud800-\udfff]")


def page_json(value: object) -> Markup:
    """`value` as compact JSON; every other character stays as it is."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return Markup(UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", text))


def page_bytes(value: object) -> int:
    """How many bytes of a page `page_json` takes."""
    return len(page_json(value).encode())
