"""What an appointment is: commands, events, state, legal moves. Pure: no clock, no chance, no IO, no logging."""
