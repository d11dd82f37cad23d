"""The files of one read model in its folder: `<projection>-<version>-<generation>.db`, the highest is the one in use.

A new generation gets a name that was never used, so that no write-ahead log of another file is taken for its own.
"""

import os
import re
from pathlib import Path

BUILDING = "*.building"
"""What is filled by a rebuild, or was left by one that was killed."""


class Generations:
    """Which file is in use, and how another takes its place; safe for several processes."""

    def __init__(self, folder: Path, name: str, version: int) -> None:
        self.folder, self._name, self._version = folder, name, version
        self._known = re.compile(rf"{re.escape(name)}-(\d+)-(\d+)\.db(-wal|-shm)?")

    def current(self) -> tuple[int, int]:
        """The newest generation and its inode; (0, 0) when there is none."""
        while generation := self._newest():
            try:
                return generation, self.path(generation).stat().st_ino
            except FileNotFoundError:  # swept since, so there is a newer one
                continue
        return 0, 0

    def path(self, generation: int) -> Path:
        """The file of a generation."""
        return self._in_folder(f"{self._name}-{self._version}-{generation}.db")

    @property
    def building(self) -> Path:
        """Where the next generation is filled before anybody sees it."""
        return self._in_folder(f"{self._name}-{self._version}.building")

    def begin(self, generation: int) -> None:
        """Make an empty generation, unless somebody has; the older ones go."""
        self.path(generation).touch()
        self.sweep()

    def publish(self) -> None:
        """What was built becomes the newest generation, all at once; the older ones go."""
        with self.building.open("rb") as built:
            os.fsync(built.fileno())
        generation = self._newest() + 1
        while not _linked(self.building, self.path(generation)):
            generation += 1
        self.building.unlink()
        self.sweep()

    def sweep(self) -> None:
        """Delete what is older than the file in use. A process that still reads it reads on until its next call."""
        newest = (self._version, self._newest())
        for file in self.folder.iterdir():
            found = self._known.fullmatch(file.name)
            if found and (int(found[1]), int(found[2])) < newest:
                file.unlink(missing_ok=True)

    def _in_folder(self, name: str) -> Path:
        self.folder.mkdir(parents=True, exist_ok=True)
        return self.folder / name

    def _newest(self) -> int:
        try:
            found = [self._known.fullmatch(name) for name in os.listdir(self.folder)]
        except FileNotFoundError:
            return 0
        return max((int(one[2]) for one in found if one and int(one[1]) == self._version and not one[3]), default=0)


def _linked(file: Path, name: Path) -> bool:
    """Unlike a rename, a link never takes the place of what somebody else has made meanwhile."""
    try:
        os.link(file, name)
    except FileExistsError:
        return False
    return True
