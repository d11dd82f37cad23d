"""What one process serves over HTTP: whether it lives and is ready, its figures, and the console."""
