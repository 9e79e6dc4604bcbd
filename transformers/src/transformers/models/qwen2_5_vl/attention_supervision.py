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
"""Attention supervision for Qwen2.5-VL.

Everything else is in `transformers/attention_supervision/`, which knows no family. To supervise another family, write a
file like this one and patch its decoder as modeling_qwen2_5_vl.py is patched.
"""

from functools import partial

from ...attention_supervision import Adapter, forward
from ...attention_supervision.vision import encode_vision, find_visual_tokens


# an image or a video is one run of its placeholder token
ADAPTER = Adapter(find_visual_tokens, encode_vision)
supervised_forward = partial(forward.supervised_forward, ADAPTER)
log_attention_maps = partial(forward.log_attention_maps, ADAPTER)
