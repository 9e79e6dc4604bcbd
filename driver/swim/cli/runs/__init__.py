"""What a verb does once its arguments are read. Imported only then, so that help needs neither torch nor transformers."""
