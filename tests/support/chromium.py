"""A real headless Chromium, driven through its debugging pipe: opens a page, presses keys, and evaluates
JavaScript in it."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
from pathlib import Path
from typing import Any, Self

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
ANSWER_SECONDS = 60.0
"""Seconds to wait for a message from Chromium."""
KEYS = {"ArrowDown": 40, "ArrowUp": 38, "Enter": 13, "Escape": 27, "/": 191}


def chromium_path() -> str:
    """Returns the path of an installed Chromium. Skips the test if there is none."""
    found = next((path for path in map(shutil.which, NAMES) if path), None)
    if found is None:
        pytest.skip("no Chromium is installed (Debian: apt install chromium)")
    return found


class Chromium:
    """One tab. `requested`: the addresses that it has requested; `problems`: errors, log entries and dialogs
    of the page."""

    def __init__(self, profile: Path) -> None:
        out_read, self.write = os.pipe()
        self.read, in_write = os.pipe()
        self.requested: list[str] = []
        self.problems: list[str] = []
        self.number, self.rest, self.loaded = 0, b"", 0
        words = [chromium_path(), "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
                 "--no-first-run", "--remote-debugging-pipe", f"--user-data-dir={profile}",
                 "--window-size=1400,1000", "about:blank"]
        self.process = subprocess.Popen(
            ["bash", "-c", f'exec "$@" 3<&{out_read} 4>&{in_write}', "chromium", *words],
            pass_fds=(out_read, in_write), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(out_read)
        os.close(in_write)
        self.session = ""

    def __enter__(self) -> Self:
        target = self.send_command("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.send_command("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.send_command(f"{domain}.enable")
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.write)
        os.close(self.read)

    def send_command(self, method: str, **params: Any) -> dict[str, Any]:
        """Sends a command of the DevTools protocol and returns its result."""
        self.number += 1
        said = ({"id": self.number, "method": method, "params": params}
                | ({"sessionId": self.session} if self.session else {}))
        os.write(self.write, json.dumps(said).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self.number:
                assert "error" not in answer, answer
                result: dict[str, Any] = answer["result"]
                return result

    def _next(self) -> dict[str, Any]:
        """Reads one message from Chromium, records it if it is an event, and returns it."""
        while b"\0" not in self.rest:
            assert select.select([self.read], [], [], ANSWER_SECONDS)[0], "Chromium says nothing"
            more = os.read(self.read, 1 << 20)
            assert more, "Chromium has ended"
            self.rest += more
        line, _, self.rest = self.rest.partition(b"\0")
        event: dict[str, Any] = json.loads(line)
        method, params = event.get("method"), event.get("params", {})
        if method == "Page.loadEventFired":
            self.loaded += 1
        elif method == "Network.requestWillBeSent":
            self.requested.append(params["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            self.problems.append(params["exceptionDetails"].get("text", ""))
        elif method == "Log.entryAdded":
            self.problems.append(params["entry"]["text"])
        elif method == "Page.javascriptDialogOpening":
            self.problems.append(f"dialog: {params['message']}")
        return event

    def open(self, address: str) -> None:
        before = self.loaded
        # Without a loaderId, the address is an anchor on the same page, and no load event follows.
        is_new = "loaderId" in self.send_command("Page.navigate", url=address)
        while is_new and self.loaded == before:
            self._next()

    def value(self, expression: str) -> Any:
        """Returns the value of a JavaScript expression in the page."""
        found = self.send_command("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def press(self, key: str) -> None:
        more = {"text": key} if len(key) == 1 else {"text": "\r"} if key == "Enter" else {}
        for kind in ("keyDown", "keyUp"):
            self.send_command("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=KEYS[key],
                     **(more if kind == "keyDown" else {}))

    def type(self, text: str) -> None:
        self.send_command("Input.insertText", text=text)

    def prefer_colour_scheme(self, scheme: str) -> None:
        self.send_command("Emulation.setEmulatedMedia",
                          features=[{"name": "prefers-color-scheme", "value": scheme}])

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.send_command("Page.captureScreenshot", format="png")["data"]))
