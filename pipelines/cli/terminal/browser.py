"""Opens a file in the user's browser, where there is a display to open it on."""

from __future__ import annotations

import webbrowser
from contextlib import suppress
from pathlib import Path


def open_in_browser(path: Path) -> bool:
    """Opens a file and returns True, if there is a browser with a window of its own. A browser that would
    take this terminal (lynx, w3m) is left alone."""
    with suppress(webbrowser.Error, OSError):
        browser = webbrowser.get()
        if type(browser) is not webbrowser.GenericBrowser:
            return browser.open(path.resolve().as_uri())
    return False
