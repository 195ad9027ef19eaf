"""The protocols that a load can speak. Each says how to ask, and what its replies mean."""
