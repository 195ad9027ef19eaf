"""BYTES <-> MEANING: two-way codecs without I/O, shared by the server, the client and the lab."""
