"""Programs that serve one ONNX model with other people's servers. Each runs alone, in an environment of its own."""
