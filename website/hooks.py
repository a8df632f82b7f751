"""Hooks of MkDocs: pages from the code, and of linked files outside `docs/`.

Links such as `../configs/x.yaml` work on a forge as they are; here they lead to a page
that shows the file, so that the site is complete without one.
"""

import os
import pathlib
import posixpath
import re
import sys
from collections.abc import Iterator
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, InclusionLevel

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "website"))

import reference  # noqa: E402

_LINK = re.compile(r"(\]\()([^)\s#]+)((?:#[^)\s]*)?\))")
_NAME_OF_PAGE = re.compile(r"\[[\w/]+\.md\]\(([\w./]+\.md)")
_FOREIGN = re.compile(
    r"""<(?:script|img|iframe|video|link(?=[^>]*stylesheet))\b[^>]*"""
    r"""\b(?:src|href)=["']?(https?://[^"'\s>]+)"""
)
# Documents of the project that are pages of the site, by their place there.
_DOCUMENTS = {
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "CHANGELOG.md": "changelog.md",
    "benchmarks/README.md": "benchmarks.md",
}
_LANGUAGES = {".py": "python", ".yaml": "yaml", ".sh": "shell", ".cfg": "ini"}

# Place on the site to place in the repository, of pages that are not below docs/.
_origin: dict[str, str] = {}


def on_files(files: Any, config: Any) -> Any:
    """Adds the generated pages."""
    _origin.clear()
    in_nav = {
        "reference/command_line.md": reference.command_line(),
        "reference/configuration.md": reference.configuration(),
        "datasets/index.md": _index_of_data_sets(),
    }
    pages = reference.python_pages()
    in_nav |= {f"reference/python/{name}": text for name, text in pages.items()}
    for path, place in (_DOCUMENTS | _data_sets()).items():
        in_nav[place] = _document(path)
        _origin[place] = path
    for place, text in in_nav.items():
        files.append(File.generated(config, place, content=text))
    for path in sorted(_linked_files()):
        place = _place(path)
        _origin[place] = path
        files.append(
            File.generated(
                config,
                place,
                content=_source_page(path),
                inclusion=InclusionLevel.NOT_IN_NAV,
            )
        )
    return files


def on_config(config: Any) -> Any:
    """Lists the generated pages of a folder where `nav` names the folder."""
    names = reference.python_pages()
    pages = {
        "reference/python/": [f"reference/python/{name}" for name in names],
        "datasets/": ["datasets/index.md", *sorted(_data_sets().values())],
    }
    config.nav = _with_folders(config.nav, pages)
    return config


def _with_folders(nav: Any, pages: dict[str, list[str]]) -> Any:
    if isinstance(nav, str):
        return pages.get(nav, nav)
    if isinstance(nav, list):
        return [_with_folders(one, pages) for one in nav]
    return {title: _with_folders(below, pages) for title, below in nav.items()}


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Turns links to files of the repository into links to their pages.

    A link that is called by the name of its file gets the title of the page.
    """
    here = _repository_path(page.file.src_uri)

    def titled(match: re.Match) -> str:
        place = posixpath.normpath(posixpath.join(posixpath.dirname(here), match[1]))
        title = re.match(r"# (.+)\n", (ROOT / place).read_text(encoding="utf-8"))
        return f"[{title[1]}]({match[1]}" if title else match[0]

    def rewritten(match: re.Match) -> str:
        before, target, after = match.groups()
        path = _repository_file(here, target)
        if path is None or (here.startswith("docs/") and path.startswith("docs/")):
            return match[0]
        start = posixpath.dirname(page.file.src_uri)
        return before + posixpath.relpath(_place(path), start or ".") + after

    return _LINK.sub(rewritten, _NAME_OF_PAGE.sub(titled, markdown))


def on_post_page(output: str, page: Any, **_: Any) -> str:
    """Refuses a page that would load something from elsewhere."""
    if found := _FOREIGN.search(output):
        raise PluginError(f"{page.file.src_uri}: loads {found[1]} from elsewhere")
    return output


def _repository_path(place: str) -> str:
    return _origin.get(place, f"docs/{place}")


def _repository_file(here: str, target: str) -> str | None:
    """The file or folder in the repository that a page's link names, if any."""
    if "://" in target or target.startswith(("mailto:", "/")):
        return None
    path = posixpath.normpath(posixpath.join(posixpath.dirname(here), target))
    return path if not path.startswith("..") and (ROOT / path).exists() else None


def _place(path: str) -> str:
    """Place on the site of a file or folder of the repository."""
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    if path == "README.md":
        return "index.md"
    if path == "datasets":
        return "datasets/index.md"
    known = _DOCUMENTS | _data_sets()
    for candidate in (path, f"{path}/README.md"):
        if candidate in known:
            return known[candidate]
    return f"sources/{path}.md"


def _data_sets() -> dict[str, str]:
    found = sorted((ROOT / "datasets").glob("*/README.md"))
    return {
        f"datasets/{path.parent.name}/README.md": f"datasets/{path.parent.name}.md"
        for path in found
    }


def _document(path: str) -> str:
    """A document of the project; those of data sets have no heading of their own."""
    text = (ROOT / path).read_text(encoding="utf-8")
    name = pathlib.PurePath(path).parent.name
    return text if text.startswith("# ") else f"# {name}\n\n{text}"


def _index_of_data_sets() -> str:
    lines = []
    for path, place in sorted(_data_sets().items()):
        name = pathlib.PurePath(place).stem
        text = (ROOT / path).read_text(encoding="utf-8")
        paragraph = text.partition("\n\n")[0] if not text.startswith("# ") else ""
        sentence = re.split(r"(?<=[.:;]) ", " ".join(paragraph.split()))[0]
        summary = sentence.rstrip(":;.")
        lines.append(f"| [{name}]({name}.md) | {summary} |")
    return (
        "# Data sets\n\nOne page for each builder: size, licence, selections, "
        "protocol. [Data: from annotations and media to training](../data.md) has the "
        "commands.\n\n"
        "| builder | |\n| --- | --- |\n" + "\n".join(lines) + "\n"
    )


def _linked_files() -> Iterator[str]:
    """Linked files and folders outside `docs/` that are no pages yet."""
    sources = {f"docs/{p.name}": p for p in (ROOT / "docs").glob("*.md")}
    sources |= {path: ROOT / path for path in _DOCUMENTS | _data_sets()}
    found = set()
    for here, path in sources.items():
        for match in _LINK.finditer(path.read_text(encoding="utf-8")):
            target = _repository_file(here, match[2])
            if target and _place(target).startswith("sources/"):
                found.add(target)
    yield from found


def _source_page(path: str) -> str:
    full = ROOT / path
    if full.is_dir():
        names = sorted(os.listdir(full))
        return f"# {path}\n\n" + "\n".join(f"- `{name}`" for name in names) + "\n"
    text = full.read_text(encoding="utf-8")
    language = _LANGUAGES.get(full.suffix, "text")
    return f"# {path}\n\n````{language}\n{text}````\n"
