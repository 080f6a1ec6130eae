"""A drawn graph on torch's own modules and functions: what `to_torch` returns and `to_source` prints."""
