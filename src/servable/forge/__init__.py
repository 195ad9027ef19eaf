"""Artifact to artifact: export, convert, freeze, quantize, compress, tune; each step verified against its source."""
