"""Studies: the same training repeated with one thing changed at a time."""
