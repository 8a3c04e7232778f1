"""The folder queues and their parts: names, control files, what waits, and recovery."""
