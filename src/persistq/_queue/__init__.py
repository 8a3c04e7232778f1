"""`PersistentQueue`: a carrier of messages, and the journal of what became of them."""
