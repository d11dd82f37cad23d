"""The way from the legacy system to this one: records, backfill, shadow, split. Each step can be taken back."""
