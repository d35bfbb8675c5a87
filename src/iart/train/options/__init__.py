"""What an option file says: YAML in BasicSR's vocabulary, read strictly."""
