"""Without supervision tensors the fork is upstream to the bit: logits, loss, gradients and generated tokens.

Upstream is its own modeling file, taken out of the pinned source archive that the fork's build keeps, and loaded beside
the fork's.
"""

import importlib.util
import sys
import tarfile
from pathlib import Path

import pytest
import torch
import transformers

from .inputs import (
    FAMILIES,
    Spec,
    family,
    make_batch,
    make_tiny_config,
    make_tiny_model,
    of_family,
    without_supervision,
)

CACHE = Path(__file__).resolve().parents[2] / "transformers" / ".cache"

TEXT = [Spec(None, before=4, after=9), Spec(None, before=1, after=6)]
IMAGES = [Spec("image", (1, 3, 5), before=4, after=7), Spec("image", (1, 2, 2), before=2, after=5)]
VIDEOS = [
    Spec("video", (4, 3, 2), before=4, after=7),
    Spec("video", (2, 2, 2), before=2, after=5, seconds_per_step=2.0),
]


@pytest.fixture(scope="module", params=FAMILIES)
def upstream(request, tmp_path_factory):
    """Upstream's own modeling module of each family, which models and batches are of."""
    modeling = f"models/{request.param}/modeling_{request.param}"
    release = transformers.__version__.partition("+")[0]
    path = CACHE / f"transformers-{release}.tar.gz"  # beside it may lie that of an earlier release
    if not path.exists():
        pytest.skip(f"no upstream source archive in {CACHE}; the fork's build keeps it there")
    with tarfile.open(path) as archive:
        (name,) = [name for name in archive.getnames() if name.split("/", 1)[-1] == f"src/transformers/{modeling}.py"]
        source = archive.extractfile(name).read()
    path = tmp_path_factory.mktemp("upstream") / "unpatched.py"
    path.write_bytes(source)
    full_name = f"transformers.{modeling.replace('/', '.')}_unpatched"
    spec = importlib.util.spec_from_file_location(full_name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[full_name] = module
    spec.loader.exec_module(module)
    with of_family(request.param):
        yield module
    del sys.modules[full_name]


def model_of(upstream, attention: str):
    """Upstream's model with the weights of `make_tiny_model`."""
    kind = getattr(upstream, family().model_class.__name__)
    theirs = kind._from_config(make_tiny_config(), attn_implementation=attention).eval()
    theirs.load_state_dict(make_tiny_model().state_dict())
    assert type(theirs).__module__ == upstream.__name__
    return theirs


@pytest.fixture(params=["sdpa", "eager"])
def models(request, upstream):
    """(fork, upstream) with equal weights."""
    return make_tiny_model(attn_implementation=request.param), model_of(upstream, request.param)


def with_positions(model, batch):
    names = (
        "input_ids",
        "attention_mask",
        "mm_token_type_ids",
        "image_grid_thw",
        "video_grid_thw",
        "second_per_grid_ts",
    )
    positions, _ = model.model.get_rope_index(**{name: batch[name] for name in names if name in batch})
    return batch | {"position_ids": positions}


def batch_of(name, padding_side, model):
    batch = without_supervision(make_batch({"text": TEXT, "images": IMAGES, "videos": VIDEOS}[name], padding_side))
    return with_positions(model, batch) if name == "videos" else batch


def test_upstream_really_is_unpatched(upstream):
    fork = sys.modules[family().model_class.__module__]
    source, patched = (Path(module.__file__).read_text() for module in (upstream, fork))
    assert "supervis" not in source and "attention_rows" not in source
    assert "supervised_forward" in patched


@pytest.mark.parametrize("padding_side", ["right", "left"])
@pytest.mark.parametrize("name", ["text", "images", "videos"])
def test_logits_loss_and_gradients_are_upstreams_to_the_bit(models, name, padding_side):
    batch = batch_of(name, padding_side, models[0])
    outputs = [model.train()(**batch) for model in models]
    assert torch.equal(outputs[0].logits, outputs[1].logits)
    assert torch.equal(outputs[0].loss, outputs[1].loss) and outputs[0].loss > 0
    assert outputs[0].keys() == outputs[1].keys()
    for output in outputs:
        output.loss.backward()
    compared = 0
    for (parameter, ours), (_, theirs) in zip(models[0].named_parameters(), models[1].named_parameters()):
        assert (ours.grad is None) == (theirs.grad is None), parameter
        if ours.grad is not None:
            assert torch.equal(ours.grad, theirs.grad), parameter
            compared += int(ours.grad.abs().max() > 0)
    assert compared >= len(list(models[0].model.language_model.parameters()))


@pytest.mark.parametrize("name", ["text", "images", "videos"])
def test_attentions_and_hidden_states_are_upstreams_to_the_bit(upstream, name):
    ours = make_tiny_model(attn_implementation="eager")
    theirs = model_of(upstream, "eager")
    batch = batch_of(name, "left", ours)
    with torch.no_grad():
        outputs = [model(**batch, output_attentions=True, output_hidden_states=True) for model in (ours, theirs)]
    for field, count in (("attentions", 4), ("hidden_states", 5)):
        found, expected = (output[field] for output in outputs)
        assert len(found) == len(expected) == count
        assert all(torch.equal(one, other) for one, other in zip(found, expected))


@pytest.mark.parametrize("use_cache", [True, False], ids=["cache", "no cache"])
@pytest.mark.parametrize("sampled", [False, True], ids=["greedy", "sampled"])
@pytest.mark.parametrize("name", ["text", "images", "videos"])
def test_generated_tokens_are_upstreams(models, name, sampled, use_cache, monkeypatch):
    ours, theirs = models
    batch = {k: v for k, v in batch_of(name, "left", ours).items() if k not in ("labels", "position_ids")}
    if name == "videos":  # the same positions for both: the fork's rule
        monkeypatch.setattr(type(theirs.model), "get_rope_index", type(ours.model).get_rope_index)
    generated = []
    for model in models:
        torch.manual_seed(0)
        options = {"max_new_tokens": 8, "min_new_tokens": 8, "do_sample": sampled, "use_cache": use_cache}
        output = model.generate(**batch, **options, output_logits=True, return_dict_in_generate=True)
        assert (output.cache is not None) == use_cache
        generated.append((output.sequences, torch.stack(output.logits)))
    assert generated[0][0].shape[1] == batch["input_ids"].shape[1] + 8
    assert torch.equal(generated[0][0], generated[1][0]) and torch.equal(generated[0][1], generated[1][1])


def test_upstream_places_text_inside_a_video(upstream):
    """Why the positions are patched: the day this fails, patch 0003 can go (see its Drop-when). Qwen3-VL tells the time
    in words and needs no patch."""
    if family().time_words is not None:
        pytest.skip("each step of a video has a place of its own")
    batch = without_supervision(make_batch([Spec("video", (16, 2, 3), before=1, after=2)]))
    names = ("input_ids", "attention_mask", "mm_token_type_ids", "video_grid_thw", "second_per_grid_ts")
    model, theirs = make_tiny_model(), model_of(upstream, "sdpa")
    last = [
        m.model.get_rope_index(**{name: batch[name] for name in names})[0][:, 0, -1].tolist() for m in (model, theirs)
    ]
    # the block starts at 2, its last step at 2 + 60; the vision end and two words follow
    assert last == [[65, 65, 65], [7, 7, 7]]
