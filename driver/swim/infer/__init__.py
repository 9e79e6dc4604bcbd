"""Answers of a model about videos: loading, generating, and many of them without loss."""
