"""Where the time of one model goes: by operation, by function, by line, and what it takes of the machine meanwhile."""
