"""A million fuzzed frames and a hundred thousand mutated requests: nothing may be raised, kept or left open."""
