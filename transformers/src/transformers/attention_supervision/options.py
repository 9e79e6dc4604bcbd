# Copyright 2026 The SWIM authors.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""The options of the attention loss, and their checks."""

import difflib
import math
from dataclasses import asdict, dataclass, fields

from .losses import LOSSES


PRESETS = {
    "paper": {"fusion": "mean", "query": "token", "causal": True, "eps": "auto"},
    "release": {"fusion": "product", "query": "previous", "causal": False, "eps": 1e-6},
}
CHOICES = {"preset": tuple(PRESETS), "fusion": ("mean", "product"), "query": ("token", "previous")}


@dataclass
class AttentionSupervisionConfig:
    """Options of the attention loss; saved with a checkpoint as the plain dict `config.attention_supervision`.

    preset: "paper" or "release"; fills every option below that is left None.
    layers: indices of the supervised decoder layers; None is every fifth from 2 (28 layers: 2, 7, 12, 17, 22, 27).
    fusion: "mean" or "product" of the layers' rows.
    query: "token", the noun token's own row, or "previous", the row of the position that predicts it.
    causal: False leaves the text after the query in the softmax's denominator, as the released code did.
    loss: "bce", "dice", "iou", "focal" or "kl", see `losses`; or several with their weights, such as {"bce": 1, "dice": 0.5}.
    focal_gamma: how much less a cell counts that is nearly right, in "focal".
    eps: a number added where sums and ranges are divided by, or "auto": 1/K, so that the loss means the same at any K.
    text_loss_weight: weight of the text loss in `loss`.
    mask_loss_weight: weight of the mask loss in `loss`.

    Raises ValueError for an unknown preset, option or value.
    """

    preset: str = "paper"
    layers: list[int] | None = None
    fusion: str | None = None
    query: str | None = None
    causal: bool | None = None
    eps: float | str | None = None
    loss: str | dict[str, float] = "bce"
    focal_gamma: float = 2.0
    text_loss_weight: float = 0.05
    mask_loss_weight: float = 1.0

    def __post_init__(self):
        require(self.preset in PRESETS, f"preset: expected one of {sorted(PRESETS)}, found {self.preset!r}")
        for option, value in PRESETS[self.preset].items():
            if getattr(self, option) is None:
                setattr(self, option, value)
        for option, allowed in CHOICES.items():
            value = getattr(self, option)
            require(value in allowed, f"{option}: expected one of {list(allowed)}, found {value!r}")
        require(isinstance(self.causal, bool), f"causal: expected true or false, found {self.causal!r}")
        require(
            self.eps == "auto" or (_is_number(self.eps) and self.eps >= 0),
            f'eps: expected "auto" or a number of at least 0, found {self.eps!r}',
        )
        self._check_loss()
        for option in ("focal_gamma", "text_loss_weight", "mask_loss_weight"):
            value = getattr(self, option)
            require(_is_number(value) and value >= 0, f"{option}: expected a number of at least 0, found {value!r}")
        if self.layers is not None:
            valid = isinstance(self.layers, (list, tuple)) and all(type(layer) is int for layer in self.layers)
            require(valid and len(self.layers) > 0, f"layers: expected a list of layer indices, found {self.layers!r}")
            require(len(set(self.layers)) == len(self.layers), f"layers: an index stands twice in {self.layers!r}")
            self.layers = list(self.layers)

    def _check_loss(self):
        names = list(self.loss) if isinstance(self.loss, dict) else [self.loss]
        for name in names:
            known = isinstance(name, str) and name in LOSSES
            require(known, f"loss: expected one of {list(LOSSES)}, or several with their weights, found {name!r}")
        require(len(names) > 0, "loss: expected at least one with its weight, found {}")
        for name, weight in self.losses.items():
            require(_is_number(weight) and weight > 0, f"loss: expected a weight above 0 for {name}, found {weight!r}")

    @property
    def losses(self) -> dict[str, float]:
        """The weight of each loss in the mask loss, by name."""
        return self.loss if isinstance(self.loss, dict) else {self.loss: 1.0}

    @classmethod
    def from_dict(cls, options: dict | None) -> "AttentionSupervisionConfig":
        """The options of `config.attention_supervision`. Raises ValueError for a key that does not exist."""
        options = dict(options or {})
        known = [field.name for field in fields(cls)]
        unknown = sorted(set(options) - set(known))
        close = difflib.get_close_matches(unknown[0], known, n=1) if unknown else []
        meant = f", did you mean {close[0]!r}?" if close else ""
        require(not unknown, f"unknown option {', '.join(unknown)}{meant}; the options are {', '.join(known)}")
        return cls(**options)

    def to_dict(self) -> dict:
        return asdict(self)

    def layers_of(self, num_layers: int) -> tuple[int, ...]:
        """The supervised layers of a model with `num_layers` decoder layers. Raises ValueError beyond the model."""
        layers = range(2, num_layers, 5) if self.layers is None else self.layers
        outside = [layer for layer in layers if not 0 <= layer < num_layers]
        require(
            len(layers) > 0 and not outside,
            f"layers: expected indices from 0 to {num_layers - 1} for a model of {num_layers} layers, "
            f"found {outside or 'none'}",
        )
        return tuple(layers)


def _is_number(value) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def require(condition: bool, message: str):
    """Raises ValueError with the message unless the condition holds."""
    if not condition:
        raise ValueError(f"attention_supervision: {message}")
