"""The paper's prompts, the same in training and evaluation, and the letters of options."""

from collections.abc import Iterable

SYSTEM_PROMPT = (
    "You are Qwen, a helpful assistant with global scene understanding, capable of grounding user-specified text to the "
    "corresponding object instance in the image and providing fine-grained analysis based on visual evidence."
)
# Bench-Q; the options stand one per line.
BENCH_Q_PROMPT = "{question}\n{options}\nAnswer with the option's letter from the given choices directly."
# Captions of named objects; {visual} is "video" or "image".
CAPTION_PROMPT = "Please describe the {subject} in the {visual} in one sentence."
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def bench_q_prompt(question: str, options: Iterable[str], prompt: str = BENCH_Q_PROMPT) -> str:
    """A question of Bench-Q as a model is asked it."""
    return prompt.format(question=question, options="\n".join(letter_options(options)))


def letter_options(options: Iterable[str]) -> list[str]:
    """The options as "(A) a helmet", whether they bring their letters or not."""
    return [
        option if option.lstrip()[:1] == "(" else f"({letter}) {option}" for letter, option in zip(LETTERS, options)
    ]
