"""The outbox: subscribers are told what happens to appointments, at least once, each appointment's events in order."""
