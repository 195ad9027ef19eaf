"""DESCRIPTORS: our own message definitions in a descriptor pool of our own."""
