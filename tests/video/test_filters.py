"""PyAV's FFmpeg has few filters; every one that is used must be among them."""

import re
from pathlib import Path

from av.filter import filters_available

import iart

SOURCES = Path(iart.__file__).parent.rglob("*.py")


def test_every_filter_is_there():
    texts = [text for text in (path.read_text() for path in SOURCES) if "filter" in text]
    used = {
        name
        for text in texts
        for name in re.findall(
            r'(?:\.add\(\s*|\.link_nodes\(\s*|(?<!dtype\()\[\()"([a-z0-9_]+)"', text
        )
    }
    assert {"scdet", "bwdif", "fieldmatch", "setfield", "crop"} <= used
    assert used <= set(filters_available)
