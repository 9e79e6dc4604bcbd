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
"""The vision tower's attention without flash-attn: few calls for many windows.

A tower attends within windows (of 64 patches) or within frames. One call of `scaled_dot_product_attention` for each is
20,224 calls for 16 steps of 720p. Windows of one length need one call; on a GPU torch's own variable-length kernel takes
all of them at once.
"""

from dataclasses import dataclass

import torch
from torch.utils.weak import WeakTensorKeyDictionary


try:
    from torch.nn.attention.varlen import varlen_attn
except ImportError:  # torch before 2.10
    varlen_attn = None


@dataclass
class _Windows:
    """The windows of one packed sequence. lengths: of each, on the host.

    groups: (length L, int64[G * L], the patches of the G windows of that length). back: int64[S], where each patch of the
    groups' outputs, one behind the other, belongs. Both on the device. version: of the bounds, which tells whether
    they were changed in place since.
    """

    lengths: list[int]
    groups: list[tuple[int, torch.Tensor]]
    back: torch.Tensor
    version: int | None


# Every layer gets the same tensor of window bounds: it is copied to the host once, not once per layer.
_known = WeakTensorKeyDictionary()


def window_attention(
    attend,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    cu_seqlens: torch.Tensor,
    scaling: float,
    implementation: str,
) -> torch.Tensor:
    """[1, S, heads, D]: full attention within each window of a packed sequence.

    attend: function of (query, key, value), each [G, heads, L, D], that returns [G, L, heads, D].
    query, key, value: [1, heads, S, D]. cu_seqlens: int[W + 1], 0, the end of each window, the last of them S.
    implementation: "eager" keeps L x L weights, so it takes one window at a time; "sdpa" on a GPU in 16 bits goes through
    `torch.nn.attention.varlen` where torch has it.
    """
    windows = _windows_of(cu_seqlens)
    if implementation == "sdpa" and _varlen_takes(query):
        packed = (part[0].transpose(0, 1) for part in (query, key, value))
        bounds, longest = cu_seqlens.to(torch.int32), max(windows.lengths)
        return varlen_attn(*packed, bounds, bounds, longest, longest, scale=scaling)[None]
    if implementation == "eager" or len(windows.groups) == len(windows.lengths):
        parts = zip(*(part.split(windows.lengths, dim=2) for part in (query, key, value)))
        return torch.cat([attend(*part) for part in parts], dim=1)
    return _one_call_per_length(attend, query, key, value, windows)


def _varlen_takes(query: torch.Tensor) -> bool:
    """Whether torch's variable-length flash attention computes this: it needs 16 bits and an Ampere GPU or newer."""
    if varlen_attn is None or not query.is_cuda or torch.version.hip is not None:
        return False
    right_type = query.dtype in (torch.float16, torch.bfloat16)
    return right_type and query.shape[-1] % 8 == 0 and torch.cuda.get_device_capability(query.device) >= (8, 0)


def _windows_of(cu_seqlens: torch.Tensor) -> _Windows:
    version = None if cu_seqlens.is_inference() else cu_seqlens._version
    if cu_seqlens not in _known or _known[cu_seqlens].version != version:
        lengths = cu_seqlens.diff().cpu()
        starts = lengths.cumsum(0) - lengths
        places = {
            length: (starts[lengths == length][:, None] + torch.arange(length)).flatten()
            for length in lengths.unique().tolist()
        }
        groups = [(length, place.to(cu_seqlens.device)) for length, place in places.items()]
        back = torch.cat(list(places.values())).argsort().to(cu_seqlens.device)
        _known[cu_seqlens] = _Windows(lengths.tolist(), groups, back, version)
    return _known[cu_seqlens]


def _one_call_per_length(attend, query, key, value, windows: _Windows) -> torch.Tensor:
    outputs = []
    for length, place in windows.groups:
        parts = (
            part[0].index_select(1, place).unflatten(1, (-1, length)).transpose(0, 1) for part in (query, key, value)
        )
        outputs.append(attend(*parts).flatten(0, 1))
    return torch.cat(outputs).index_select(0, windows.back)[None]
