"""How an appointment gets done: declared sagas, the pure process manager, breaker and limits, the runtime."""
