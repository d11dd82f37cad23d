"""WebDAV requests and multistatus answers that a CalDAV listing needs (RFC 4918, 4791, 6578).

Answers are parsed by the `caldav` library, which knows the ways servers bend them; it resolves no entities.
"""

import re
from dataclasses import dataclass
from types import SimpleNamespace
from xml.sax.saxutils import escape

from caldav.response import DAVResponse

from providers.exchange import Answer
from providers.outcomes import printable

XML = {"Content-Type": "application/xml; charset=utf-8"}
NAME_MAX = 1_024
_HEAD = '<?xml version="1.0" encoding="utf-8"?>'
_PRECONDITION = re.compile(rb"<(?:\w+:)?error\b[^>]*>\s*<(?:\w+:)?([A-Za-z-]{1,60})")
_NAMES = 'xmlns:D="DAV:" xmlns:C="urn:ietf:params:xml:ns:caldav"'
ETAGS = f"{_HEAD}<D:propfind {_NAMES}><D:prop><D:getetag/></D:prop></D:propfind>".encode()


class BadMultistatus(ValueError):
    """The answer is no multistatus that can be read."""


@dataclass(frozen=True)
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
    try:
        response = DAVResponse(_as_response(answer))
        # the library takes any XML, and reads a whole calendar that is empty out of an error page
        if response.tree is None or next(response.tree.iter("{DAV:}multistatus"), None) is None:
            raise ValueError("the answer holds no multistatus")
        parsed = response.parse_sync_collection()
        present = tuple(
            Resource(_name(item.href), item.etag, item.calendar_data) for item in parsed.changed if _name(item.href)
        )
        gone = tuple(_name(href) for href in parsed.deleted if _name(href))
        return Changes(present, gone, parsed.sync_token, parsed.truncated)
    except Exception as fault:  # the library raises lxml's, its own and assertion errors
        raise BadMultistatus(printable(str(fault))) from fault


def precondition(answer: Answer) -> str:
    """The name of the precondition that a DAV:error body tells, or nothing."""
    told = _PRECONDITION.search(answer.body[:4_096])
    return told[1].decode() if told else ""


def _as_response(answer: Answer) -> SimpleNamespace:
    headers = {"Content-Type": "application/xml"}  # so that a body without XML is an error, not a log line
    return SimpleNamespace(headers=headers, status_code=answer.status, content=answer.body, text="", reason="")


def _name(href: str) -> str:
    """The last segment of a path (decoded already); empty for a collection, which is none of its members.

    Empty too for a name beyond the port's limit: it cannot be ours, and must not hide the others.
    """
    name = href.rpartition("/")[2]
    return name if len(name) <= NAME_MAX else ""
