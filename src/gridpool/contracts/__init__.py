"""The rules members trade by: one file, one market or register."""
