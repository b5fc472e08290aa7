"""Hooks of the documentation site: pages from outside of docs/, notebooks with their outputs, links to the checkout.

MkDocs calls the functions ``on_...`` (https://www.mkdocs.org/dev-guide/plugins/#events).
"""

import hashlib
import logging
import os
import posixpath
import re
import sys
import tempfile
from pathlib import Path

import nbformat
from jupyter_client.manager import AsyncKernelManager
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from nbclient import NotebookClient

ROOT = Path(__file__).parents[1]
CACHE = ROOT / ".cache" / "notebooks"
"""Notebooks with their outputs, by a hash of what these depend on."""
OUTSIDE = {"README.md": "index.md", "CONTRIBUTING.md": "CONTRIBUTING.md", "CHANGELOG.md": "CHANGELOG.md"}
"""Pages at the top of the checkout, and their places on the site; what is in README is on the first page."""
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s#]+)((?:#[\w-]*)?)\)")
logger = logging.getLogger("mkdocs.hooks.docs")


@event_priority(100)  # before mkdocs-jupyter, which makes pages of all notebooks that it finds
def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are elsewhere in the checkout, and the notebooks with their outputs."""
    for name, place in OUTSIDE.items():
        if name == place:
            files.append(File.generated(config, place, content=(ROOT / name).read_text(encoding="utf-8")))
    for notebook in sorted((ROOT / "notebooks").glob("*.ipynb")):
        files.append(File(f"notebooks/{notebook.name}", str(run(notebook)), config.site_dir, config.use_directory_urls))
    return files


def run(path: Path) -> Path:
    """Run a notebook, unless it was run before with the same code and number of steps; with 0 steps, run none.

    Returns:
        A folder in which it lies with its outputs, at the place that it has on the site.
    """
    steps = os.environ.get("MS2_NOTEBOOK_STEPS", "")
    content = hashlib.sha256(path.read_bytes() + Path(__file__).read_bytes() + steps.encode())
    for file in sorted((ROOT / "src").rglob("*.py")):
        content.update(file.read_bytes())
    folder = CACHE / content.hexdigest()[:16]
    kept = folder / "notebooks" / path.name
    if not kept.exists():
        logger.info("Running %s", path.name)
        notebook = nbformat.read(path, as_version=4)
        for cell in notebook.cells:
            if cell.cell_type == "markdown":
                cell.source = with_site_links(cell.source, f"notebooks/{path.name}")
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as work:
            if steps != "0":
                NotebookClient(notebook, timeout=600, kernel_manager_class=ThisPython).execute(cwd=work)
        nbformat.write(notebook, kept)
    return folder


class ThisPython(AsyncKernelManager):
    """Starts kernels of the interpreter that builds the site, whatever kernels are installed."""

    def format_kernel_cmd(self, extra_arguments: list[str] | None = None) -> list[str]:
        return [sys.executable, "-m", "ipykernel_launcher", "-f", self.connection_file]


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let links to files of the checkout lead to their places on the site, or name the file where it has none."""
    return with_site_links(markdown, page.file.src_uri)


def with_site_links(markdown: str, page: str) -> str:
    """Rewrite the links of a page that lead out of docs/.

    Args:
        markdown: The page's text.
        page: Its place in docs/, or that which it has on the site.

    Returns:
        The text, whose links lead to pages of the site; a link to another file of the checkout is its path instead.
    """
    outside = page.startswith("notebooks/") or page in OUTSIDE
    folder = posixpath.dirname(page) if outside else posixpath.join("docs", posixpath.dirname(page))

    def link(found: re.Match[str]) -> str:
        picture, text, target, anchor = found.groups()
        if re.match(r"\w+:", target):
            return found[0]
        path = posixpath.normpath(posixpath.join(folder, target))
        if path.startswith("docs/"):
            place = path.removeprefix("docs/")
        elif path in OUTSIDE:
            place = OUTSIDE[path]
        elif path == "notebooks":
            place = "notebooks/01_grammar_to_image.ipynb"
        elif path.startswith("notebooks/"):
            place = path
        else:
            name = text.strip("`") if text.strip("`").startswith(path) else f"{text} (`{path}`)"
            return f"`{name}`" if name == path else name
        relative = posixpath.relpath(place, posixpath.dirname(page) or ".")
        if page.startswith("notebooks/"):  # mkdocs-jupyter leaves links of notebooks as they are
            relative = re.sub(r"\.(md|ipynb)$", ".html", relative)
        return f"{picture}[{text}]({relative}{anchor})"

    return LINK.sub(link, markdown)
