"""What stands before and after a model: image resizing, tokens, labels, normalizers. For transforms and clients."""
