"""A video or an image, from whatever the user hands in to the patches that the model reads; and back to a file."""
