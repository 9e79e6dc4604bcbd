"""From raw maps to what is drawn: normalisation, and what the colours mean."""

import numpy as np
import torch

from swim.attention.maps import TINY, Reading, fuse
from swim.attention.paint import Scale

_WILD = 4  # times what 99 % of the cells stay below
NORMALISATIONS = {
    "share": "share of the clip's attention",
    "clipped": "share of the clip's attention, colours end at 99 % of the cells",
    "relative": "times the mean of all words after the video",
}


def heat_of(maps: torch.Tensor, words: int, normalisation: str, model_config=None) -> tuple[torch.Tensor, torch.Tensor]:
    """(float32[Q, T, H, W] of all layers fused, float32[Q, L, T, H, W] of each) of the first `words` maps.

    maps: float32[Q + B, L, T, H, W]; for "relative" the B behind the words are those of `behind_visual`, else B may be 0.
    """
    heat = fuse(maps, model_config)
    layer_heat = maps / maps.sum((2, 3, 4), keepdim=True).clamp_min(TINY)
    if normalisation == "relative":
        return relative(heat, words), relative(layer_heat, words)
    return heat[:words], layer_heat[:words]


def relative(maps: torch.Tensor, words: int) -> torch.Tensor:
    """The first `words` maps, divided by the mean of the others: what every word looks at, such as a sink, becomes 1.

    A tenth of a uniform map on both sides keeps cells that nothing looks at from becoming large.
    """
    floor = 0.1 / maps.shape[-3:].numel()
    return (maps[:words] + floor) / (maps[words:].mean(0) + floor)


def behind_visual(model_config, reading: Reading) -> list[tuple[int, int]]:
    """The span of every token after the visual block, each alone."""
    ids = reading.inputs["input_ids"][0]
    visual = torch.tensor([model_config.image_token_id, model_config.video_token_id])
    last = int(torch.isin(ids, visual).nonzero()[-1])
    return [(place, place + 1) for place in range(last + 1, len(ids))]


def choose_normalisation(heats: list[torch.Tensor]) -> str:
    """ "share", or "clipped" where one wild cell, such as an attention sink, would leave all others dark."""
    values = torch.cat([heat.flatten() for heat in heats]).numpy()
    return "clipped" if values.max() > _WILD * np.quantile(values, 0.99) else "share"


def colour_scale(heats: list[torch.Tensor], normalisation: str, of_layers: bool = False) -> Scale:
    """One scale for everything in a picture."""
    values = torch.cat([heat.flatten() for heat in heats]).numpy()
    highest = np.quantile(values, 0.99) if normalisation == "clipped" else values.max()
    label = NORMALISATIONS[normalisation]
    return Scale(label.replace("attention", "attention in a layer") if of_layers else label, float(highest) or 1.0)
