"""Frozen hidden states kept on disk, embedding, prediction and screening."""
