"""Backbones run on packed sequences, their adapters, the heads on top, and the bundle that holds a trained model."""
