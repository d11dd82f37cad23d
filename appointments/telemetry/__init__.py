"""What the running process tells of itself: traces that leave it, and figures that a scraper takes. Decides nothing."""
