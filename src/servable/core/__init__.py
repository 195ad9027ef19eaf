"""MEANING: tensors, signatures, messages and errors. Knows no wire, no framework and no socket."""
