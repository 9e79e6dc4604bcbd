"""The cost law, watched: what a supervised step allocates, which operations run, what waits for the device."""

from collections import Counter

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers.attention_supervision import batch as batch_file
from transformers.attention_supervision import forward, plan

from .inputs import IGNORE, VOCABULARY, Spec, make_batch, make_tiny_config, make_tiny_model, without_supervision

pytestmark = pytest.mark.usefixtures("each_family")
LAYERS = [1, 3]
# 24 visual tokens and a few hundred words: a square of the length is larger than anything that grows with it.
LONG = Spec("video", (2, 3, 4), before=200, after=220, tags={1: 0, 2: 0, 40: 1})
SHORT = Spec("image", (1, 2, 2), before=30, after=40, tags={3: 0})
BATCHES = {"one sample": [LONG], "padded": [LONG, SHORT]}


def make_model():
    return make_tiny_model(make_tiny_config({"layers": LAYERS})).train()


def text_only(batch: dict) -> dict:
    return batch | {"mask_index": torch.zeros_like(batch["mask_index"])}


def tensors_of(tree) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


class Allocations(TorchDispatchMode):
    """Every new storage that an operation returns, as (elements, last size of its tensor). Views and expanded tensors
    have no storage of their own and do not count."""

    def __init__(self):
        super().__init__()
        self.found = []
        self.bytes = 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        known = {tensor.untyped_storage()._cdata for tensor in tensors_of((args, kwargs))}
        output = operation(*args, **(kwargs or {}))
        for tensor in tensors_of(output):
            storage = tensor.untyped_storage()
            if storage._cdata not in known:
                self.found.append((storage.nbytes() // tensor.itemsize, tensor.shape[-1] if tensor.ndim else 1))
                self.bytes += storage.nbytes()
        return output


def allocations_of(batch: dict) -> Allocations:
    """What one forward and backward allocates."""
    model = make_model()
    with Allocations() as watched:
        model(**batch).loss.backward()
    return watched


@pytest.mark.parametrize("specs", BATCHES.values(), ids=BATCHES)
def test_nothing_of_the_lengths_square_is_allocated_beyond_stocks(specs):
    batch = make_batch(specs)
    square = batch["input_ids"].shape[1] ** 2
    found, stock = (
        Counter(elements for elements, _ in allocations_of(inputs).found if elements >= square)
        for inputs in (batch, without_supervision(batch))
    )
    assert found - stock == Counter()
    assert (len(stock) > 0) == (len(specs) > 1)  # stock's SDPA turns padding into masks of that size


def test_eager_attention_would_be_seen():
    batch = make_batch([LONG])
    model = make_model()
    model.set_attn_implementation("eager")
    with Allocations() as watched:
        model(**batch).loss.backward()
    square = batch["input_ids"].shape[1] ** 2
    assert sum(elements >= square for elements, _ in watched.found) > 4


@pytest.mark.parametrize("specs", BATCHES.values(), ids=BATCHES)
def test_labelled_positions_alone_are_projected(specs):
    batch = make_batch(specs)
    labelled = int((batch["labels"][:, 1:] != IGNORE).sum())

    def widest(watched):
        return max(elements for elements, last in watched.found if last == VOCABULARY)

    assert widest(allocations_of(batch)) == labelled * VOCABULARY
    assert widest(allocations_of(without_supervision(batch))) == batch["input_ids"].numel() * VOCABULARY


def test_supervision_allocates_in_proportion_to_the_length():
    """The bytes on top of text-only training double with the sequence, and double with the rows: O(rows * S)."""

    def extra_bytes(words: int, tagged: int) -> int:
        batch = make_batch([Spec("video", (2, 3, 4), before=words, after=40, tags=dict.fromkeys(range(tagged), 0))])
        return allocations_of(batch).bytes - allocations_of(text_only(batch)).bytes

    base, longer, more = extra_bytes(400, 8), extra_bytes(800, 8), extra_bytes(400, 16)
    assert base > 0 and longer < 2.1 * base and more < 2.1 * base


class LayerOperations(TorchDispatchMode):
    """The operations that run inside of each decoder layer's forward, in order, with the shapes they return."""

    def __init__(self, model):
        super().__init__()
        layers = model.model.language_model.layers
        self.of_layer = [[] for _ in layers]
        self.current = None
        for number, layer in enumerate(layers):
            layer.register_forward_pre_hook(lambda *_, number=number: self._enter(number))
            layer.register_forward_hook(lambda *_: self._enter(None))

    def _enter(self, number):
        self.current = number

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        output = operation(*args, **(kwargs or {}))
        if self.current is not None:
            shapes = tuple(tuple(tensor.shape) for tensor in tensors_of(output))
            self.of_layer[self.current].append((operation.name(), shapes))
        return output


def test_unsupervised_layers_do_no_extra_work():
    """They run stock's operations and no other, so their backward is stock's too."""
    batch, model, stock = make_batch(BATCHES["padded"]), make_model(), make_model()
    watched, expected = LayerOperations(model), LayerOperations(stock)
    with watched:
        model(**batch)
    with expected:
        stock(**without_supervision(batch), use_cache=False)
    for number, (ours, theirs) in enumerate(zip(watched.of_layer, expected.of_layer, strict=True)):
        assert theirs
        assert (ours == theirs) == (number not in LAYERS), number


# Operations whose result the host has to wait for on a GPU.
WAITING = {"aten::_local_scalar_dense", "aten::nonzero", "aten::is_nonzero", "aten::equal", "aten::masked_select"}
WAITING |= {"aten::_unique2", "aten::unique_consecutive", "aten::unique_dim", "aten::repeat_interleave.Tensor"}


class HostWaits(TorchDispatchMode):
    """Counts where a GPU would make the host wait, seen from a CPU, and the plan's copies to the host.

    Every tensor counts as one of the device, except those that descend from the plan's copy while the plan is made.
    """

    def __init__(self, monkeypatch, batch: dict):
        super().__init__()
        self.waits, self.copies = [], 0
        self.planning = False
        self.kept = tensors_of(batch)  # alive, so that no storage is reused
        self.of_device = {tensor.untyped_storage()._cdata for tensor in self.kept}
        make_plan, to_host = forward.plan_supervision, batch_file.to_host

        def counted_plan(*arguments):
            self.planning = True
            try:
                return make_plan(*arguments)
            finally:
                self.planning = False

        def counted_copy(tensors):
            self.copies += 1
            with torch.utils._python_dispatch._disable_current_modes():
                return to_host(tensors)

        monkeypatch.setattr(forward, "plan_supervision", counted_plan)
        for file in (batch_file, plan):
            monkeypatch.setattr(file, "to_host", counted_copy)

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        given = tensors_of((args, kwargs))
        of_device = not self.planning or any(t.untyped_storage()._cdata in self.of_device for t in given)
        by_mask = operation.name().startswith("aten::index") and any(
            t.dtype == torch.bool for t in tensors_of(args[1:2])
        )
        if of_device and (operation.name() in WAITING or by_mask):
            self.waits.append(operation.name())
        output = operation(*args, **(kwargs or {}))
        if of_device and self.planning:
            self.kept.extend(tensors_of(output))
            self.of_device.update(tensor.untyped_storage()._cdata for tensor in tensors_of(output))
        return output


@pytest.mark.parametrize("specs", BATCHES.values(), ids=BATCHES)
def test_supervision_waits_for_the_device_once(specs, monkeypatch):
    """Given position_ids and the vision output, which are stock's own waits, one copy to the host is all it adds."""
    model, batch = make_model(), make_batch(specs)
    names = (
        "input_ids",
        "attention_mask",
        "mm_token_type_ids",
        "image_grid_thw",
        "video_grid_thw",
        "second_per_grid_ts",
    )
    batch["position_ids"], _ = model.model.get_rope_index(**{name: batch[name] for name in names if name in batch})
    seen = {"video": model.model.get_video_features(batch.pop("pixel_values_videos"), batch["video_grid_thw"])}
    if "pixel_values" in batch:
        seen["image"] = model.model.get_image_features(batch.pop("pixel_values"), batch["image_grid_thw"])
    batch["mm_encoder_outputs"] = seen
    with HostWaits(monkeypatch, batch) as stock:
        model.model(**{k: v for k, v in without_supervision(batch).items() if k != "labels"}, use_cache=False)
    with HostWaits(monkeypatch, batch) as supervised:
        output = model(**batch)
    assert float(output.mask_loss.detach()) > 0
    assert Counter(supervised.waits) - Counter(stock.waits) == Counter()
    assert supervised.copies == 1
