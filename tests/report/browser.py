"""Chromium without a window, driven over the DevTools protocol."""

import fcntl
import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
AS_3_AND_4 = (
    "import os, sys; os.dup2(int(sys.argv[1]), 3); os.dup2(int(sys.argv[2]), 4); os.execv(sys.argv[3], sys.argv[3:])"
)


class Browser:
    """Chromium without a window, driven over two pipes: messages of its DevTools protocol, with a zero after each."""

    def __init__(self, profile: Path) -> None:
        pipes = [os.pipe(), os.pipe()]
        self.to, self.come = pipes[0][1], pipes[1][0]
        ends = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (pipes[0][0], pipes[1][1])]
        options = [
            "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
            "--hide-scrollbars", "--remote-debugging-pipe", f"--user-data-dir={profile}",
        ]  # fmt: skip
        self.process = subprocess.Popen(
            [sys.executable, "-c", AS_3_AND_4, *map(str, ends), str(CHROMIUM), *options],
            pass_fds=ends,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for end in (*ends, pipes[0][0], pipes[1][1]):
            os.close(end)
        self.rest, self.number, self.events = b"", 0, list[dict[str, Any]]()
        self.session: dict[str, str] = {}
        self.scripts = True
        target = self("Target.createTarget", url="about:blank")["targetId"]
        self.session = {"sessionId": self("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]}
        for domain in ("Page", "Runtime", "Log", "Network"):
            self(f"{domain}.enable")

    def __call__(self, method: str, **params: Any) -> Any:
        """What a method of the protocol returns."""
        self.number += 1
        self._send({"id": self.number, "method": method, "params": params})
        answer = self._wait(lambda message: message.get("id") == self.number)
        assert "error" not in answer, answer
        return answer["result"]

    def _send(self, message: dict[str, Any]) -> None:
        os.write(self.to, json.dumps(message | self.session).encode() + b"\0")

    def _wait(self, wanted: Callable[[dict[str, Any]], bool], seconds: float = 60) -> dict[str, Any]:
        until = time.monotonic() + seconds
        while True:
            while b"\0" in self.rest:
                text, _, self.rest = self.rest.partition(b"\0")
                message = json.loads(text)
                if "method" in message:
                    self.events.append(message)
                if wanted(message):
                    return message
            assert select.select([self.come], [], [], max(0, until - time.monotonic()))[0], "waited too long"
            part = os.read(self.come, 2**20)
            assert part, "Chromium has ended"
            self.rest += part

    def open(self, path: Path, width: int = 1280, scheme: str = "light") -> None:
        """Load a page, and forget what happened before."""
        self("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 700)
        self("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.events.clear()
        self("Page.navigate", url=path.resolve().as_uri())
        self._wait(lambda message: message.get("method") == "Page.loadEventFired")
        if self.scripts:
            self.wait_for("[...document.querySelectorAll('.plot')].every(e => 'drawn' in e.dataset || !e.clientWidth)")

    def wait_for(self, condition: str, seconds: float = 30) -> None:
        """Wait until an expression is true."""
        until = time.monotonic() + seconds
        while not self.run(condition):
            assert time.monotonic() < until, f"waited too long for {condition}; {self.complaints()}"
            time.sleep(0.02)

    def allow_scripts(self, allowed: bool) -> None:
        """Whether pages may run scripts of their own."""
        self.scripts = allowed
        self("Emulation.setScriptExecutionDisabled", value=not allowed)

    def run(self, script: str) -> Any:
        """The value of an expression."""
        answer = self("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def point(self, selector: str, click: bool = False) -> None:
        """Move the pointer to the middle of an element."""
        x, y = self.run(
            f"(e => {{ e.scrollIntoView({{block: 'center', behavior: 'instant'}}); const r = e.getBoundingClientRect();"
            f" return [r.x + r.width / 2, r.y + r.height / 2] }})(document.querySelector({json.dumps(selector)}))"
        )
        if self.scripts:  # the page has to have heard of the scrolling
            self.run("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
        self("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
        for kind in ("mousePressed", "mouseReleased") if click else ():
            self("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def focus(self, selector: str, index: int = 0) -> None:
        """Focus one of the elements that match, and wait until the page has scrolled there."""
        self.run(f"document.querySelectorAll({json.dumps(selector)})[{index}].focus()")
        self.run("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def press(self, key: str) -> None:
        """Press and release a key."""
        for kind in ("keyDown", "keyUp"):
            self(
                "Input.dispatchKeyEvent",
                type=kind,
                key=key,
                code=key,
                windowsVirtualKeyCode=27 if key == "Escape" else 0,
            )

    def visible(self, selector: str) -> int:
        """Number of elements that are displayed."""
        return self.run(
            f"[...document.querySelectorAll({json.dumps(selector)})].filter(e => e.getClientRects().length).length"
        )

    def complaints(self) -> list[str]:
        """Errors, warnings, and requests for anything but the page itself."""
        kinds = ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded")
        found = [json.dumps(event["params"]) for event in self.events if event["method"] in kinds]
        asked = [e["params"]["request"]["url"] for e in self.events if e["method"] == "Network.requestWillBeSent"]
        assert sum(url.startswith("file:") for url in asked) == 1
        return found + [url for url in asked if not url.startswith(("file:", "data:"))]

    def close(self) -> None:
        """End Chromium, and wait until it has."""
        self.session = {}
        self._send({"id": 0, "method": "Browser.close"})
        self.process.wait(30)
        os.close(self.to)
        os.close(self.come)
