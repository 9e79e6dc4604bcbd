"""Evaluation: answers and their scores."""
