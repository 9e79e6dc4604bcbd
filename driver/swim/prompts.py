"""The paper's prompts, the same in training and evaluation."""

SYSTEM_PROMPT = (
    "You are Qwen, a helpful assistant with global scene understanding, capable of grounding user-specified text to the "
    "corresponding object instance in the image and providing fine-grained analysis based on visual evidence."
)
# Bench-Q; the options stand one per line.
BENCH_Q_PROMPT = "{question}\n{options}\nAnswer with the option's letter from the given choices directly."
