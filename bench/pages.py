"""Tables in Markdown, and the places in the pages of docs that a benchmark writes itself."""

import pathlib
import re


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def put_into_page(page: pathlib.Path, name: str, text: str) -> None:
    """Between `<!-- begin NAME -->` and `<!-- end NAME -->`."""
    content = page.read_text()
    pattern = re.compile(rf"(<!-- begin {name} -->\n).*?(<!-- end {name} -->)", re.DOTALL)
    if not pattern.search(content):
        raise SystemExit(f"{page}: no place for {name}")
    page.write_text(pattern.sub(lambda match: match.group(1) + text + match.group(2), content))
