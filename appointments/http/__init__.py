"""The way in over HTTP, and all that one process serves: the API, its OpenAPI document, health, figures, the console.

A request comes through `connection` (its head) and `border` (its body, faults, the end of the process) to a route:
`commands`, `reads`, `streams`, `receiving`, `reconciliations`, `health`. `asking` reads its headers, `strict_json` its
body, `answers` and `problems` write what goes back. Nothing here decides anything: the desk does. See docs/http.md.
"""
