"""What is known of model families, and how a model of one is loaded."""
