"""The templates of the page and of figures."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import jinja2
    import markupsafe

HERE = Path(__file__).parent


def environment() -> "jinja2.Environment":
    """Escapes what it is given; a missing value is an error."""
    import jinja2

    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["breakable"] = _breakable
    return made


def style() -> "markupsafe.Markup":
    """Colours and sizes, for the page and for figures alike."""
    import markupsafe

    return markupsafe.Markup((HERE / "page.css").read_text("utf-8"))


def _breakable(text: str) -> "markupsafe.Markup":
    """A name that may be broken behind its separators, so that it does not widen a column."""
    import markupsafe

    for separator in "_./":
        text = text.replace(separator, f"{separator}\u200b")
    return markupsafe.escape(text).replace("\u200b", markupsafe.Markup("<wbr>"))
