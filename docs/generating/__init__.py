"""What `docs/generate.py` draws the longer parts with, one module for each source that it reads."""
