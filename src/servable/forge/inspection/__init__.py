"""What an artifact consists of, read from its files without running anything of it."""
