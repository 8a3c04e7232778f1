"""A whole job in one call: `run`."""
