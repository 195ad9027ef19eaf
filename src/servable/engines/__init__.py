"""COMPUTE: one file per framework behind one contract, imported on first load."""
