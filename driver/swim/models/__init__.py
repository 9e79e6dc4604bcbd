"""What is known of model families, and how a model of one is loaded."""

# model_type in a checkpoint's config.json: the module here of that name holds its FAMILY. Here, so that help need not import
# them. The demo's own is the first.
MODEL_TYPES = ("qwen2_5_vl", "qwen3_vl")
