"""Writes the generated parts of the documents: tables and diagrams drawn from the code and the data files.

`python docs/generate.py` rewrites them in place between their markers; `--check` changes nothing and exits 1 when one
is out of date. A part stands between `<!-- generated: NAME -->` and `<!-- /generated -->`; each must stand somewhere.
"""

import argparse
import ast
import inspect
import itertools
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from generating import evidence, interfaces, levels, over_http, requirements
from generating.markdown import one_line, table
from pydantic import SecretStr
from pydantic.fields import FieldInfo

from domain import errors, events, labels, lifecycle, provider

ROOT = Path(__file__).resolve().parents[1]
PART = re.compile(r"(<!-- generated: ([a-z-]+) -->\n)(?:(?!<!-- generated: ).)*?(<!-- /generated -->)", re.DOTALL)

MEANINGS = {
    "provider_name": "The name under which the provider is recorded, logged and called back.",
    "provider_username": "User name for CalDAV; wins over the one in `provider`.",
    "provider_password": "Password for CalDAV; wins over the one in `provider`.",
    "callback_listen": "Address and port on which callbacks are received.",
    "tenant": "The tenant of commands and reads that name none.",
    "actor": "Who asks, where a command names nobody.",
    "attempts_max": "Attempts of one step in all, the first included.",
    "call_timeout_ms": "The time limit of one call.",
    "backoff_ms": "The wait after the first failed attempt; it doubles after each further one.",
    "backoff_max_ms": "The cap of that wait.",
    "jitter": "The share of the wait that a hash of the operation may take off.",
    "deadline_ms": "The deadline of a whole booking, counted from the command; a booking may set its own.",
    "cleanup_ms": "The budget for cleaning up, counted from the decision to give up.",
    "settle_ms": 'How long after the last unknown answer a "not found" is believed.',
    "poll_ms": "The time between two looks at a pending booking, where the provider names none.",
    "breaker_failures_max": "Failures in a row after which the breaker opens.",
    "breaker_open_ms": "How long it stays open before one probe is let through.",
    "concurrency": "Calls at once to one target.",
    "tenant_concurrency": "Calls at once to one target for one tenant.",
    "log_file": "Where log lines go; unset: standard error.",
    "log_level": "With no `log_file` and the level `info`, only warnings and errors are printed.",
}
"""What a setting means, for those whose field carries no docstring in `appointments/settings.py`."""


def attribute_docs(source: type) -> dict[str, str]:
    """The docstrings below annotated fields of a class, which Python itself does not keep."""
    (body,) = (node.body for node in ast.parse(inspect.getsource(source)).body if isinstance(node, ast.ClassDef))
    found = {}
    for field, text in itertools.pairwise(body):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(text, ast.Expr):
            found[field.target.id] = one_line(ast.literal_eval(text.value))
    return found


# -- the life cycle ----------------------------------------------------------------------------------------------


def edges() -> list[tuple[str, str, str]]:
    """Every move that changes the state: (from, event, to)."""
    return [
        (str(state), event.type.rpartition(".")[0], str(after))
        for state, moves in lifecycle.MOVES.items()
        for event, after in moves.items()
        if after is not state
    ]


def lifecycle_diagram() -> str:
    """The moves that change the state, as text."""
    lines, width = [], max(len(event) for _, event, _ in edges())
    for state in lifecycle.State:
        found = [(event, after) for before, event, after in edges() if before == state]
        ended = "   (ended)" if state in lifecycle.ENDED else ""
        lines.append(f"{state}{ended}")
        for n, (event, after) in enumerate(found, start=1):
            branch = "└──" if n == len(found) else "├──"
            lines.append(f"  {branch} {event} {'─' * (width - len(event))}──▶ {after}")
    return "```text\n" + "\n".join(lines) + "\n```"


def lifecycle_picture() -> str:
    """The same moves for viewers that draw Mermaid."""
    lines = [f"    {before} --> {after}: {event}" for before, event, after in edges()]
    ends = [f"    {state} --> [*]" for state in lifecycle.State if state in lifecycle.ENDED]
    return "```mermaid\nstateDiagram-v2\n    [*] --> init\n" + "\n".join(lines + ends) + "\n```"


def lifecycle_moves() -> str:
    """The whole table of moves: a row for each event, a column for each state."""
    states = tuple(lifecycle.State)
    kinds = (*events.FACTS, *events.DECISIONS)

    def cell(state: lifecycle.State, event: type[events.Event]) -> str:
        after = lifecycle.MOVES[state].get(event)
        return "" if after is None else "·" if after is state else f"→ {after}"

    rows = [(f"`{kind.type.rpartition('.')[0]}`", *(cell(state, kind) for state in states)) for kind in kinds]
    return table(("event \\ state", *map(str, states)), rows)


def lifecycle_states() -> str:
    """The states with their phases."""
    groups = (
        ("forward", lifecycle.FORWARD),
        ("backward", lifecycle.BACKWARD),
        ("ended", lifecycle.ENDED),
        ("settled", lifecycle.SETTLED),
    )
    rows = [
        (f"`{state}`", f"`{lifecycle.PHASES[state]}`", ", ".join(name for name, group in groups if state in group))
        for state in lifecycle.State
    ]
    return table(("state", "phase", "groups"), rows)


# -- vocabularies ------------------------------------------------------------------------------------------------


def event_types() -> str:
    """Every stored event type."""
    groups = (("fact", events.FACTS), ("decision", events.DECISIONS), ("other stream", events.OUTSIDE_APPOINTMENTS))
    rows = [(f"`{kind.type}`", group, one_line(kind.__doc__)) for group, kinds in groups for kind in kinds]
    return table(("stored type", "kind", "meaning"), rows)


def outcomes() -> str:
    """Every answer that the provider port knows."""
    writes, reads = provider.WriteOutcome.__args__, provider.ReadOutcome.__args__
    kinds = dict.fromkeys((*writes, *reads))
    rows = [
        (f"`{kind.__name__}`", " and ".join(n for n, k in (("write", writes), ("read", reads)) if kind in k), doc(kind))
        for kind in kinds
    ]
    return table(("outcome", "answers a", "meaning"), rows)


def doc(kind: type) -> str:
    """A class's docstring in one line."""
    return one_line(kind.__doc__)


def capabilities() -> str:
    """What a provider declares."""
    docs = attribute_docs(provider.Capabilities)
    fields = provider.Capabilities.model_fields
    return table(
        ("capability", "default", "meaning"), ((f"`{n}`", f"`{f.default}`", docs[n]) for n, f in fields.items())
    )


def conformance_checks() -> str:
    """The promises that the conformance suite checks."""
    from providers.conformance_checks import CHECKS

    return table(("check", "promise"), ((f"`{name}`", one_line(check.__doc__)) for name, check in CHECKS.items()))


def refusals() -> str:
    """Every refusal: nothing is recorded."""
    rows = [(f"`{kind.problem}`", str(kind.status), doc(kind)) for kind in errors.CommandRefused.__subclasses__()]
    return table(("problem", "status", "meaning"), rows)


def action_labels() -> str:
    """The closed list of labels of the legacy front end."""
    return table(("label", "command"), ((f"`{label}`", f"`{name}`") for label, name in labels.LABELS.items()))


# -- settings and cases ------------------------------------------------------------------------------------------


def settings() -> str:
    """Every setting with its default and limits."""
    from appointments.settings import Settings

    docs = MEANINGS | attribute_docs(Settings)
    rows = [
        (f"`{name}`", f"`APPOINTMENTS_{name.upper()}`", default(field), limits(field), docs[name])
        for name, field in Settings.model_fields.items()
    ]
    return table(("setting", "environment variable", "default", "limits", "meaning"), rows)


def default(field: FieldInfo) -> str:
    """A field's default as a reader writes it."""
    value: Any = field.get_default(call_default_factory=True)
    if isinstance(value, SecretStr):
        return "(a fixed word)"
    return "(unset)" if value is None else f"`{value}`"


def limits(field: FieldInfo) -> str:
    """A field's numeric limits, or its pattern or choices."""
    found: dict[str, Any] = {}
    for rule in field.metadata:
        for name in ("ge", "gt", "le", "pattern"):
            if getattr(rule, name, None) is not None:
                found[name] = getattr(rule, name)
    if "pattern" in found:
        return f"`{found['pattern']}`"
    if "le" in found:
        return f"{found['ge']:,} to {found['le']:,}" if "ge" in found else f"over {found['gt']:,}, to {found['le']:,}"
    choices = getattr(field.annotation, "__args__", ())
    return ", ".join(f"`{c}`" for c in choices) if choices and all(isinstance(c, str) for c in choices) else ""


def cases() -> str:
    """The canonical cases: what is sent, what the provider does, what must come."""
    data = json.loads((ROOT / "data" / "test_data.json").read_text(encoding="utf-8"))
    expected = json.loads((ROOT / "data" / "expected_postchange.json").read_text(encoding="utf-8"))["cases"]
    head = (
        "case",
        "commands",
        "settings",
        "provider is told to",
        "state",
        "reason",
        "creates/attempts/retries",
        "live",
    )
    rows = [_case(case, expected[case["id"]]) for case in data["cases"]]
    common = ", ".join(f"`{name}` {value}" for name, value in data["settings"].items())
    return f"Settings unless a case says otherwise: {common}.\n\n{table(head, rows)}"


def _case(case: dict[str, Any], want: dict[str, Any]) -> tuple[str, ...]:
    creates = want["provider_calls"].get("create", 0)
    extra = "".join(f"; refused {refusal}" for refusal in want.get("refusals", ()))
    return (
        f"{case['id']} {case['title']}",
        ", ".join(
            send["command"] + (f" at {send['at_ms']} ms" if send.get("at_ms") else "") for send in case["commands"]
        ),
        ", ".join(f"`{name}` {value}" for name, value in case.get("settings", {}).items()),
        "; ".join(_script(script) for script in case.get("scripts", ())) or "answer at once",
        want["state"] + extra,
        want["reason"] or "",
        f"{creates}/{want['attempts']}/{want['retries']}",
        str(want["live_bookings"]),
    )


def _script(script: dict[str, Any]) -> str:
    behavior = dict(script["behavior"])
    mode = behavior.pop("mode", "…")
    words = ", ".join(f"{name} {value}" for name, value in behavior.items())
    times = script.get("times", 1)
    often = "always" if times == -1 else "once" if times == 1 else f"{times} times"
    return f"{script['match'].get('op', 'any')}: {mode}" + (f" ({words})" if words else "") + f", {often}"


PARTS: dict[str, Callable[[], str]] = {
    "lifecycle-diagram": lifecycle_diagram,
    "lifecycle-picture": lifecycle_picture,
    "lifecycle-moves": lifecycle_moves,
    "lifecycle-states": lifecycle_states,
    "event-types": event_types,
    "outcomes": outcomes,
    "capabilities": capabilities,
    "conformance-checks": conformance_checks,
    "refusals": refusals,
    "action-labels": action_labels,
    "settings": settings,
    "cases": cases,
    "interface-commands": interfaces.commands,
    "interface-events": interfaces.events,
    "interface-outcomes": interfaces.outcomes,
    "interface-results": interfaces.results,
    "http-routes": over_http.routes,
    "roles": over_http.roles,
    "http-problems": over_http.problems,
    "http-limits": over_http.limits,
    "test-table": evidence.test_table,
    "controls": evidence.controls,
    "criteria": evidence.criteria,
    "service-levels": levels.service_levels,
    "requirements": requirements.requirement_table,
}


def documents() -> list[Path]:
    """Every document that may hold a generated part."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def filled(text: str) -> str:
    """A document's text with every generated part as it must be now; KeyError for a part that nobody makes."""
    return PART.sub(lambda part: f"{part[1]}{PARTS[part[2]]()}\n{part[3]}", text)


def main(arguments: list[str]) -> int:
    """Write what is out of date, or with `--check` tell it; the exit code is 1 when something is left to do."""
    parser = argparse.ArgumentParser(description="Write the generated parts of the documents.")
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 when a part is out of date")
    check = parser.parse_args(arguments).check
    left, unplaced = 0, set(PARTS)
    for path in documents():
        before = path.read_text(encoding="utf-8")
        unplaced -= {part[2] for part in PART.finditer(before)}
        after = filled(before)
        if before != after:
            print(f"{'out of date' if check else 'written'}: {path.relative_to(ROOT)}")
            if check:
                left += 1
            else:
                path.write_text(after, encoding="utf-8")
    for name in sorted(unplaced):
        print(f"between no two markers of any document: {name}")
    return int(left + len(unplaced) > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
