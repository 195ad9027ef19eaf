"""Servable takes a trained model and makes it a fast, verified, measured service."""
