"""A `JoinableQueue` that outlives the kill of any process: how messages get from one to another."""
