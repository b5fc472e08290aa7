"""Open every page of the documentation site in headless Chromium, as wide as a screen and as a phone.

Run by ``make docs``, with tests/report among the modules. It finds links that lead nowhere, pictures that are missing,
errors of scripts, requests to other servers, and pages that are wider than a phone.
"""

import argparse
import sys
import tempfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urldefrag

from browser import CHROMIUM, Browser

WIDTHS = (1280, 390)
"""Width of a window on a screen, and of a phone, in pixels."""
FACTS = """({
    links: [...document.querySelectorAll("a[href]")].map(link => link.href),
    ids: [...document.querySelectorAll("[id]")].map(element => element.id),
    missing: [...document.images].filter(image => !image.naturalWidth).map(image => image.src),
    width: document.documentElement.scrollWidth,
    small: [...document.querySelectorAll("article p, article li")].filter(
        element => parseFloat(getComputedStyle(element).fontSize) < 12).length,
})"""
"""What is asked of a page."""


class Quiet(SimpleHTTPRequestHandler):
    """Serves files and prints nothing."""

    def log_message(self, format: str, *args: Any) -> None:
        """Leave out the line for a request."""


class Site:
    """A site that is served on this machine, and what Chromium finds on its pages.

    Args:
        folder: Folder of the built site.
        origin: Address at which it is served.
        browser: The browser that opens its pages.
    """

    def __init__(self, folder: Path, origin: str, browser: Browser) -> None:
        self.folder, self.origin, self.browser = folder, origin, browser
        self.faults: list[str] = []
        self.ids: dict[str, set[str]] = {}
        self.links: dict[str, set[str]] = {}

    def visit(self, page: str) -> None:
        """Open a page at both widths, and note its faults, links and anchors."""
        for width in WIDTHS:
            self.browser(
                "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 700
            )
            self.browser.events.clear()
            self.browser("Page.navigate", url=f"{self.origin}/{page}")
            self.browser.wait_for(f"location.href.endsWith({page!r}) && document.readyState == 'complete'")
            facts = self.browser.run(FACTS)
            where = f"{page} at {width} pixels"
            self.faults += [f"{where}: no picture {address}" for address in facts["missing"]]
            if facts["width"] > width:
                self.faults.append(f"{where}: {facts['width']} pixels wide")
            if facts["small"]:
                self.faults.append(f"{where}: {facts['small']} paragraphs in letters of less than 12 pixels")
            self.faults += [f"{where}: {complaint}" for complaint in self.complaints()]
        self.ids[page], self.links[page] = set(facts["ids"]), set(facts["links"])

    def complaints(self) -> list[str]:
        """Errors that the page reported, and requests to other servers."""
        found = []
        for event in self.browser.events:
            match event["method"], event["params"]:
                case "Network.requestWillBeSent", {"request": {"url": url}} if not url.startswith(
                    (self.origin, "data:", "blob:")
                ):
                    found.append(f"asks for {url}")
                case "Runtime.exceptionThrown", {"exceptionDetails": details}:
                    found.append(f"script failed: {details['text']}")
                case "Log.entryAdded", {"entry": {"level": "error", "text": text, **more}}:
                    found.append(f"{text} {more.get('url', '')}")
        return found

    def check_links(self) -> None:
        """Note the links to pages, files and anchors of the site that are not there."""
        for page, links in self.links.items():
            for link in sorted(links):
                address, anchor = urldefrag(link)
                if address.startswith(self.origin):
                    path = unquote(address.removeprefix(self.origin)).lstrip("/").partition("?")[0] or "index.html"
                    if not (self.folder / path).is_file():
                        self.faults.append(f"{page}: links to {path}, which is not there")
                    elif anchor and unquote(anchor) not in self.ids.get(path, {unquote(anchor)}):
                        self.faults.append(f"{page}: links to {path}, which has no anchor {anchor}")


def main() -> None:
    """Check a site; end with exit code 1 if there are faults."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("site", type=Path, help="folder of the built site")
    folder = parser.parse_args().site
    if CHROMIUM is None:
        print("Chromium is not installed, so pages are not opened. Try: apt-get install chromium", file=sys.stderr)
        return
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        browser = Browser(Path(profile))
        site = Site(folder, f"http://127.0.0.1:{server.server_port}", browser)
        pages = sorted(str(path.relative_to(folder)) for path in folder.rglob("*.html") if path.name != "404.html")
        for page in pages:
            site.visit(page)
        browser.close()
    server.shutdown()
    site.check_links()
    if site.faults:
        sys.exit("\n".join([f"{len(site.faults)} faults:", *site.faults]))
    links = sum(map(len, site.links.values()))
    print(f"{len(pages)} pages opened at {' and '.join(map(str, WIDTHS))} pixels, {links} links followed")


if __name__ == "__main__":
    main()
