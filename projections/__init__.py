"""What is known: views that are folded from the log and can be thrown away."""
