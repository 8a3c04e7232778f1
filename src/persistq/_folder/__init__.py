"""The folder queues and their parts: names, control files, what waits, and recovery."""

from __future__ import annotations

import logging

# What a library logs is the application's to show, or not: without this, warnings are printed.
logging.getLogger("persistq").addHandler(logging.NullHandler())
