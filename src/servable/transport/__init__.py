"""SOCKETS <-> BYTES: HTTP/1.1 and HTTP/2 in both roles, and the sockets they run on."""
