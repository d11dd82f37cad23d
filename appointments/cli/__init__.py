"""The command line: what is typed becomes a command or a question; answers come as text for people or as JSON."""


def main() -> None:
    """The entry point of `appointments`."""
    from appointments.cli.app import app  # what is only asked for its help need not load at import

    app()
