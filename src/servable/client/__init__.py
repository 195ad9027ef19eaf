"""The SDK: one async client over any wire, and a synchronous one generated from it."""
