"""One click on A in a process of its own: the event comes on standard input, what the user was told goes out as JSON.

Part of the harness, not of A: it stands for the page that A runs in, so it notes an exception that A lets through.
"""

import json
import sys
import time

from Shared.legacy.front import on_click

if __name__ == "__main__":
    event = json.load(sys.stdin)
    began = time.perf_counter()
    try:
        told = on_click(event, sys.argv[1])
    except Exception as fault:
        told = {"told": "exception", "detail": type(fault).__name__}
    print(json.dumps(told | {"duration_ms": round((time.perf_counter() - began) * 1_000)}))
