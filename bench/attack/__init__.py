"""What one hostile client does, and what it costs another one."""
