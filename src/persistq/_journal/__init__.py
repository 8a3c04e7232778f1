"""PersistentQueue and its parts: text, files, runs of a job, and the queue between processes."""
