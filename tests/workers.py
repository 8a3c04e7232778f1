"""What the tests' child processes run: importable under every start method."""
