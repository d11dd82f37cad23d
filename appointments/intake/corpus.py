"""A corpus of real iCalendar files: those that two libraries of the lock ship with their own tests.

Exports of calendar programs (Google, Thunderbird, Evolution, Outlook, Etar), examples of the RFCs, and the broken files
of bug reports and fuzzers. They come with the installed packages, so that the same files are there for everybody.
"""

from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

CORPUS_PACKAGES = {"icalendar": "tests", "recurring_ical_events": "test"}
"""Import name of each package, and the folder in it that holds the files."""


def corpus() -> tuple[Path, ...]:
    """Every `.ics` file of the installed packages, sorted by package and path; raises FileNotFoundError for none."""
    found = tuple(path for package, folder in CORPUS_PACKAGES.items() for path in sorted(_files(package, folder)))
    if not found:
        raise FileNotFoundError(f"no .ics files in {', '.join(CORPUS_PACKAGES)}: installed without their tests?")
    return found


def corpus_versions() -> dict[str, str]:
    """The version of each package that the files come from."""
    return {package: version(package) for package in CORPUS_PACKAGES}


def _files(package: str, folder: str) -> list[Path]:
    spec = find_spec(package)
    roots = () if spec is None else spec.submodule_search_locations or ()
    return [path for root in roots for path in (Path(root) / folder).rglob("*.ics") if path.is_file()]
