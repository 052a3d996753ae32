"""A real headless Chromium, driven through its debugging pipe: a page is opened, keys are pressed, and what it is then is asked for."""

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
PATIENCE = 60.0
KEYS = {"ArrowDown": 40, "ArrowUp": 38, "Enter": 13, "Escape": 27, "/": 191}


def program() -> str:
    """Skips the test where there is none."""
    found = next((path for path in map(shutil.which, NAMES) if path), None)
    if found is None:
        pytest.skip("no Chromium is installed (Debian: apt install chromium)")
    return found


class Chromium:
    """One tab. `asked` are the addresses that it has asked for, `said` what went wrong on the page."""

    def __init__(self, profile: Path) -> None:
        out_read, self.write = os.pipe()
        self.read, in_write = os.pipe()
        self.asked: list[str] = []
        self.said: list[str] = []
        self.number, self.rest, self.loaded = 0, b"", 0
        words = [program(), "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--remote-debugging-pipe",
                 f"--user-data-dir={profile}", "--window-size=1400,1000", "about:blank"]
        self.process = subprocess.Popen(["bash", "-c", f'exec "$@" 3<&{out_read} 4>&{in_write}', "chromium", *words], pass_fds=(out_read, in_write),
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(out_read)
        os.close(in_write)
        self.session = ""

    def __enter__(self) -> Self:
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.ask(f"{domain}.enable")
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.write)
        os.close(self.read)

    def ask(self, method: str, **params: Any) -> dict[str, Any]:
        self.number += 1
        said = {"id": self.number, "method": method, "params": params} | ({"sessionId": self.session} if self.session else {})
        os.write(self.write, json.dumps(said).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self.number:
                assert "error" not in answer, answer
                result: dict[str, Any] = answer["result"]
                return result

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self.rest:
            assert select.select([self.read], [], [], PATIENCE)[0], "Chromium says nothing"
            more = os.read(self.read, 1 << 20)
            assert more, "Chromium has ended"
            self.rest += more
        line, _, self.rest = self.rest.partition(b"\0")
        event: dict[str, Any] = json.loads(line)
        method, params = event.get("method"), event.get("params", {})
        if method == "Page.loadEventFired":
            self.loaded += 1
        elif method == "Network.requestWillBeSent":
            self.asked.append(params["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            self.said.append(params["exceptionDetails"].get("text", ""))
        elif method == "Log.entryAdded":
            self.said.append(params["entry"]["text"])
        elif method == "Page.javascriptDialogOpening":
            self.said.append(f"dialog: {params['message']}")
        return event

    def open(self, address: str) -> None:
        before = self.loaded
        is_new = "loaderId" in self.ask("Page.navigate", url=address)  # else it is another place on the same page
        while is_new and self.loaded == before:
            self._next()

    def value(self, expression: str) -> Any:
        """What a line of JavaScript says in the page."""
        found = self.ask("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def press(self, key: str) -> None:
        more = {"text": key} if len(key) == 1 else {"text": "\r"} if key == "Enter" else {}
        for kind in ("keyDown", "keyUp"):
            self.ask("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=KEYS[key], **(more if kind == "keyDown" else {}))

    def type(self, text: str) -> None:
        self.ask("Input.insertText", text=text)

    def prefer(self, scheme: str) -> None:
        self.ask("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def picture(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.ask("Page.captureScreenshot", format="png")["data"]))
