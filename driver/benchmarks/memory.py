"""Memory of training, model by model: weights, gradients and optimiser states, computed from each model's shapes.

    python driver/benchmarks/memory.py

Prints a Markdown table in GB, of one process: of its GPU, or of host memory where the states are offloaded. The vision tower
is frozen, LoRA has r = 16. No weights are needed: models are made on torch's meta device from the sizes below, which are those
of the models' config.json. Activations come on top. The last line is JSON.
"""

import argparse
import json
import logging
from collections.abc import Iterator

import torch
from peft import get_peft_model

from swim.models.family import Family, family_named
from swim.train.config import LoraOptions
from swim.train.estimate import Parallelism, estimate, numbers_of
from swim.train.model import lora_config
from swim.train.parameters import choose_parts

GB = 1e9
GPUS = 8
BFLOAT16, FLOAT32 = 2, 4

# name: (hidden, intermediate, layers, heads, key-value heads, vocabulary, tied embeddings, the tower's own)
_OLD = {"depth": 32, "hidden_size": 1280, "num_heads": 16}
_SMALL = {"depth": 24, "hidden_size": 1024, "intermediate_size": 4096, "num_heads": 16}
_SMALL |= {"deepstack_visual_indexes": [5, 11, 17]}
_LARGE = {"depth": 27, "hidden_size": 1152, "intermediate_size": 4304, "num_heads": 16}
_LARGE |= {"deepstack_visual_indexes": [8, 16, 24]}
SIZES = {
    "qwen2_5_vl": {
        "3B": (2048, 11008, 36, 16, 2, 151936, True, _OLD | {"intermediate_size": 3420}),
        "7B": (3584, 18944, 28, 28, 4, 152064, False, _OLD | {"intermediate_size": 3420}),
        "32B": (5120, 27648, 64, 40, 8, 152064, False, _OLD | {"intermediate_size": 3456}),
        "72B": (8192, 29568, 80, 64, 8, 152064, False, _OLD | {"intermediate_size": 3456}),
    },
    "qwen3_vl": {
        "2B": (2048, 6144, 28, 16, 8, 151936, True, _SMALL),
        "4B": (2560, 9728, 36, 32, 8, 151936, True, _SMALL),
        "8B": (4096, 12288, 36, 32, 8, 151936, False, _LARGE),
        "32B": (5120, 25600, 64, 64, 8, 151936, False, _LARGE),
    },
}
# name: (how the run is shared, bytes of a weight, LoRA)
WAYS = {
    "full, ZeRO-3, offload": (Parallelism(GPUS, 3, offload_optimizer=True, offload_weights=True), BFLOAT16, False),
    "full, ZeRO-3": (Parallelism(GPUS, 3), BFLOAT16, False),
    "full, ZeRO-2": (Parallelism(GPUS, 2), BFLOAT16, False),
    "full, FSDP2, float32": (Parallelism(GPUS, fsdp=True), FLOAT32, False),
    "LoRA, one GPU": (Parallelism(), BFLOAT16, True),
    "LoRA, ZeRO-3": (Parallelism(GPUS, 3), BFLOAT16, True),
}


def make_model(family: Family, size: tuple):
    """The model on the meta device."""
    hidden, intermediate, layers, heads, kv_heads, vocabulary, tied, vision = size
    text = {
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "vocab_size": vocabulary,
    }
    config = family.config_class(
        text_config=text, vision_config=vision | {"out_hidden_size": hidden}, tie_word_embeddings=tied
    )
    with torch.device("meta"):
        return family.model_class(config)


def rows() -> Iterator[dict]:
    for model_type, sizes in SIZES.items():
        family = family_named(model_type)
        for name, size in sizes.items():
            model = make_model(family, size)
            choose_parts(model, ["language_model"])
            full = numbers_of(model)
            adapted = numbers_of(get_peft_model(model, lora_config(LoraOptions(r=16), model)))
            row = {"model": f"{family.title} {name}", "parameters": sum(count for count, _, _ in full)}
            for way, (sharing, size_bytes, lora) in WAYS.items():
                counted = adapted if lora else full  # PEFT keeps adapters in float32
                numbers = [(n, FLOAT32 if lora and learns else size_bytes, learns) for n, _, learns in counted]
                needs = estimate(numbers, sharing, adapter=lora)
                row[way] = (needs.weights + needs.gradients + needs.optimizer) / GB
                row[f"{way}: disk"] = needs.checkpoint / GB
            yield row


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    logging.disable(logging.WARNING)
    found = list(rows())
    print(f"| | parameters | {' | '.join(WAYS)} | checkpoint, full, ZeRO-3 |\n|---|---|{'---|' * (len(WAYS) + 1)}")
    for row in found:
        cells = [f"{row[way]:,.1f}" for way in (*WAYS, "full, ZeRO-3: disk")]
        print(f"| {row['model']} | {row['parameters'] / GB:.2f} B | {' | '.join(cells)} |")
    print(json.dumps({"unit": "GB of one process", "rows": found}))


if __name__ == "__main__":
    main()
