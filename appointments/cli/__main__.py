"""`python -m appointments.cli`, where the script is not on the path."""

from appointments.cli import main

main()
