"""HTML pages from Jinja2 templates, with style, script and charts inlined.

Templates escape every text that they insert; styles, the script, and JSON made by Jinja2's ``tojson`` are the only
markup that Python puts in. A page loads nothing, and runs no script but its own (Content Security Policy).
"""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import vl_convert
from jinja2 import Environment, PackageLoader, StrictUndefined

import ms2
from ms2.report.charts import CONFIG

TEMPLATES = Path(__file__).with_name("templates")


class Section(NamedTuple):
    """A section of a page.

    Attributes:
        title: Its heading, and its name in the list of sections.
        template: File of its template, which finds the data as ``data``.
        data: What it shows; a section without is left out.
    """

    title: str
    template: str
    data: Any

    @property
    def id(self) -> str:
        """HTML anchor of the section."""
        return self.title.lower().replace(" ", "-")


class Fact(NamedTuple):
    """A value with its name, such as the number of steps of a run.

    Attributes:
        name: What it is.
        value: Its value; None for a fact that is left out.
    """

    name: str
    value: object


@dataclass(frozen=True)
class ReproduceSection:
    """Commands that reproduce a run or a data set.

    Attributes:
        commands: Commands by their purpose.
        versions: Versions of what it was made with, as text.
    """

    commands: Mapping[str, str]
    versions: str


def render_page(template: str, kind: str, title: str, sections: Sequence[Section], **lead: Any) -> str:
    """Render a page.

    Args:
        template: File of the template.
        kind: What is reported, above the title.
        title: Name of the run or the data set.
        sections: Sections in order.
        lead: What the template shows below the title.
    """
    script = page_script()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    return (
        environment()
        .get_template(template)
        .render(
            kind=kind,
            title=title,
            sections=[section for section in sections if section.data],
            policy=policy,
            style=(TEMPLATES / "page.css").read_text(encoding="utf-8"),
            script=script,
            chart_config=CONFIG,
            version=ms2.__version__,
            **lead,
        )
        + "\n"
    )


@cache
def environment() -> Environment:
    """Build the environment of all templates: every text is escaped, and unknown names are errors."""
    made = Environment(
        loader=PackageLoader("ms2.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":"), "sort_keys": False}
    return made


@cache
def page_script() -> str:
    """Bundle the page's script with Vega, Vega-Lite and Vega-Embed (0.9 MB)."""
    bundle: str = vl_convert.javascript_bundle((TEMPLATES / "page.js").read_text(encoding="utf-8"))
    return bundle.replace("</script", r"<\/script")


def drop_empty_facts(facts: Sequence[Fact]) -> list[Fact]:
    """Drop facts without a value."""
    return [fact for fact in facts if fact.value is not None]
