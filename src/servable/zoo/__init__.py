"""The example models: seeded builders to SavedModel and ONNX."""
