"""WebDAV requests and multistatus answers that a CalDAV listing needs (RFC 4918, 4791, 6578).

Answers are read as a stream of elements: no tree is built, however long they are, and a document type is refused, so
that no entity is ever resolved.
"""

import re
from dataclasses import dataclass, field
from urllib.parse import unquote
from xml.parsers import expat
from xml.sax.saxutils import escape

from providers.exchange import Answer
from providers.outcomes import printable

XML = {"Content-Type": "application/xml; charset=utf-8"}
NAME_MAX = 1_024
DEPTH_MAX = 100
_HEAD = '<?xml version="1.0" encoding="utf-8"?>'
_PRECONDITION = re.compile(rb"<(?:\w+:)?error\b[^>]*>\s*<(?:\w+:)?([A-Za-z-]{1,60})")
_NAMES = 'xmlns:D="DAV:" xmlns:C="urn:ietf:params:xml:ns:caldav"'
ETAGS = f"{_HEAD}<D:propfind {_NAMES}><D:prop><D:getetag/></D:prop></D:propfind>".encode()


class BadMultistatus(ValueError):
    """The answer is no multistatus that can be read."""


@dataclass(frozen=True, slots=True)
class Resource:
    """One member of a collection; `body` is there where it was asked for."""

    name: str
    etag: str | None
    body: str | None = None


@dataclass(frozen=True)
class Changes:
    """What a collection holds, or what changed in it since a token."""

    present: tuple[Resource, ...]
    gone: tuple[str, ...] = ()
    token: str | None = None
    truncated: bool = False
    """The server cut the answer short: there is more after `token` now."""


def sync_request(token: str | None) -> bytes:
    """The body of a sync-collection REPORT (RFC 6578, 3.2); without a token it asks for everything."""
    return (
        f"{_HEAD}<D:sync-collection {_NAMES}><D:sync-token>{escape(token or '')}</D:sync-token>"
        "<D:sync-level>1</D:sync-level><D:prop><D:getetag/></D:prop></D:sync-collection>"
    ).encode()


def multiget_request(paths: tuple[str, ...]) -> bytes:
    """The body of a calendar-multiget REPORT (RFC 4791, 7.9) for these paths."""
    hrefs = "".join(f"<D:href>{escape(path)}</D:href>" for path in paths)
    return (
        f"{_HEAD}<C:calendar-multiget {_NAMES}><D:prop><D:getetag/><C:calendar-data/></D:prop>{hrefs}"
        "</C:calendar-multiget>"
    ).encode()


def read_multistatus(answer: Answer) -> Changes:
    """Read a multistatus answer; raises `BadMultistatus`."""
    reader = _Reader()
    try:
        reader.parser.Parse(answer.body, True)
        return reader.changes()
    except (expat.ExpatError, ValueError) as fault:
        raise BadMultistatus(printable(str(fault))) from fault


def precondition(answer: Answer) -> str:
    """The name of the precondition that a DAV:error body tells, or nothing."""
    told = _PRECONDITION.search(answer.body[:4_096])
    return told[1].decode() if told else ""


@dataclass(slots=True)
class _Response:
    """One DAV:response as far as it has been read."""

    hrefs: list[str] = field(default_factory=list)
    status: str = ""
    properties: dict[str, str] = field(default_factory=dict)
    has_propstat: bool = False


class _Reader:
    """Takes from the stream of elements what a listing needs, and lets the rest go."""

    def __init__(self) -> None:
        self.parser = expat.ParserCreate(namespace_separator=" ")
        self.parser.buffer_text = True
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self.parser.CharacterDataHandler = self._characters
        self.parser.StartDoctypeDeclHandler = self._doctype
        self._above: list[str] = []
        self._text: list[str] = []
        self._response = _Response()
        self._present: list[Resource] = []
        self._gone: list[str] = []
        self._token: str | None = None
        self._cut = self._is_multistatus = False

    def changes(self) -> Changes:
        """What the answer told. Raises `ValueError` for one that is no multistatus."""
        if not self._is_multistatus:
            raise ValueError("the answer holds no multistatus")
        if self._cut and self._token is None:
            raise ValueError("the answer was cut short, and does not say where it goes on")
        return Changes(tuple(self._present), tuple(self._gone), self._token, self._cut)

    def _start(self, tag: str, _attributes: dict[str, str]) -> None:
        if len(self._above) >= DEPTH_MAX:
            raise ValueError("the answer is nested too deep")
        if tag == "DAV: multistatus":
            self._is_multistatus = True
        elif tag == "DAV: response":
            self._response = _Response()
        elif tag == "DAV: propstat":
            self._response.has_propstat = True
        self._above.append(tag)
        self._text.clear()

    def _characters(self, text: str) -> None:
        self._text.append(text)

    def _end(self, tag: str) -> None:
        self._above.pop()
        text = "".join(self._text)
        self._text.clear()
        match self._above[-1] if self._above else "", tag:
            case "DAV: multistatus", "DAV: sync-token":
                self._token = text.strip() or None
            case "DAV: multistatus", "DAV: response":
                self._take(self._response)
            case "DAV: response", "DAV: href":
                self._response.hrefs.append(text.strip())
            case "DAV: response", "DAV: status":
                self._response.status = text
            case "DAV: prop", _ if text:
                self._response.properties[tag] = text

    def _take(self, response: _Response) -> None:
        status = response.status.split()[1:2] or ["200"]
        names = [name for name in map(_name, response.hrefs) if name]
        match status[0]:
            case "200" | "201" | "207":  # SOGo says 201 for what is new
                etag = response.properties.get("DAV: getetag", "").strip() or None
                body = response.properties.get("urn:ietf:params:xml:ns:caldav calendar-data")
                self._present.extend(Resource(name, etag, body) for name in names)
            case "404" | "410":
                self._gone.extend(names)
            case "507" if not response.has_propstat:  # RFC 6578, 3.6
                self._cut = True
            case other:
                raise ValueError(f"the answer tells {other} of {', '.join(response.hrefs)}")

    def _doctype(self, *_: object) -> None:
        raise ValueError("the answer has a document type, which no multistatus needs")


def _name(href: str) -> str:
    """The last segment of a path, decoded only then; empty for a collection, which is none of its members.

    Empty too for a name beyond the port's limit: it cannot be ours, and must not hide the others.
    """
    name = unquote(href.rpartition("/")[2])
    return name if len(name) <= NAME_MAX else ""
