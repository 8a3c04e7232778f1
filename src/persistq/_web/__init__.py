"""What is shown in a browser: a page of all queues under some folders, and numbers for monitoring.

Rooms: `server` answers, `report` writes the page to a file, `looks` looks for both, `history` and
`summary` say what the looks mean, `page`, `charts`, `design` and `metrics` put it into words.
"""
