"""The text prompt: CLIP's features of the labels, or learned embeddings."""
