"""Exactly the tokens of a tagged phrase name its instance, with the tiny and with the real tokenizer."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoConfig, AutoProcessor

from swim.data.chat import ChatText, Mention
from swim.data.collator import SwimCollator
from swim.data.records import parse_record
from swim.data.sample import GridMasks, Sample
from swim.data.tokens import (
    IGNORE,
    answer_tokens,
    decode_with_ends,
    instance_tokens,
    place_in_expanded,
    tokens_of,
)
from swim.errors import DataError
from swim.models import MODEL_TYPES
from swim.video.clip import Clip

FULL = {"segmentation": {"size": [56, 56], "counts": [0, 56 * 56]}}


def sample_of(
    texts: list[str], instances: int, mentions=None, frames: int = 2, image: bool = False, cell: int = 28
) -> Sample:
    """A sample of black frames of 2 x 2 cells whose masks are full."""
    raw = {
        "index": "videorefer_test",
        "image" if image else "video": "none",
        "conversations": [{"from": ("human", "gpt")[n % 2], "value": text} for n, text in enumerate(texts)],
        "annotation": [{"0": FULL}] * instances,
    }
    record = parse_record(raw if mentions is None else raw | {"mentions": mentions}, "here", ".")
    pixels = torch.zeros(frames, 3, 2 * cell, 2 * cell, dtype=torch.uint8)
    clip = Clip(pixels, list(range(frames)), frames, 1.0, 56, 56)
    steps = (frames + 1) // 2
    masks = GridMasks(np.ones((instances, steps, 2, 2), np.float32), np.ones((instances, steps), bool))
    return Sample(record, clip, masks if instances else None)


@pytest.fixture(params=MODEL_TYPES)
def model_type(request):
    return request.param


@pytest.fixture
def tiny(tiny_model_dirs, model_type):
    return collator_of(tiny_model_dirs[model_type])


@pytest.fixture
def real(real_processor_dirs, model_type):
    return collator_of(real_processor_dirs[model_type])


def collator_of(folder) -> SwimCollator:
    return SwimCollator(AutoProcessor.from_pretrained(folder), AutoConfig.from_pretrained(folder))


def shown(collator, batch, number: int = 0) -> list[str]:
    """Each turn's tokens as one line, `token:instance` for those that name one, `_` for a leading space.

    Outside the turns' texts nothing may name an instance, nor may what tells the time of a step.
    """
    tokenizer = collator.processor.tokenizer
    tokens = tokenizer.convert_ids_to_tokens(batch["input_ids"][number].tolist())
    named = batch["ins_contents_labels"][number].tolist()
    lines, line, inside = [], [], False
    assert set(named[: 1 + max(place for place, token in enumerate(tokens) if token == "<|vision_end|>")]) == {IGNORE}
    for place, (token, instance) in enumerate(zip(tokens, named)):
        if token == "<|vision_end|>" or tokens[place - 2 : place + 1] in (
            ["<|im_start|>", "assistant", "Ċ"],
            ["<|im_start|>", "user", "Ċ"],
        ):
            inside = True
            line = []
        elif token == "<|im_end|>":
            lines += [" ".join(line)] if inside else []
            inside = False
        elif inside and token not in ("<|vision_start|>", "<|video_pad|>", "<|image_pad|>"):
            readable = token.replace("Ġ", "_").replace("Ċ", "\\n")
            line.append(readable if instance == IGNORE else f"{readable}:{instance}")
            continue
        assert instance == IGNORE, (place, token)
    return lines


# name: (texts, instances, mentions, lines with the tiny tokenizer, lines with the real one)
CASES = {
    "an untagged word before, another behind": (
        ["Is a dog near the <ins>dog</ins>?", "The <ins>dog</ins> barks at a dog."], 1, None,
        ["I s _a _do g _ n e a r _the _do:0 g:0 ?", "The _do:0 g:0 _b a r k s _ at _a _do g ."],
        ["Is _a _dog _near _the _dog:0 ?", "The _dog:0 _b arks _at _a _dog ."],
    ),
    "several mentions of one instance": (
        ["Describe the <ins>red circle</ins>.", "The <ins>red circle</ins> is a Red Circle. <ins>Red circle</ins>!"], 1, None,
        ["D es cribe _the _red:0 _circle:0 .", "The _red:0 _circle:0 _is _a _ R ed _ C ir cle . _ R:0 ed:0 _circle:0 !"],
        ["Describe _the _red:0 _circle:0 .", "The _red:0 _circle:0 _is _a _Red _Circle . _Red:0 _circle:0 !"],
    ),
    "two instances of the same noun": (
        ["A <ins>dog</ins> and a <ins>dog</ins>?", "dog, dog"], 2, None,
        ["A _do:0 g:0 _and _a _do:1 g:1 ?", "d o g , _do g"],
        ["A _dog:0 _and _a _dog:1 ?", "dog , _dog"],
    ),
    "the same noun with mentions": (
        ["A <ins>dog</ins> and a <ins>dog</ins>?", "<ins>dog</ins>"], 2, [0, 1, 1],
        ["A _do:0 g:0 _and _a _do:1 g:1 ?", "d:1 o:1 g:1"],
        ["A _dog:0 _and _a _dog:1 ?", "dog:1"],
    ),
    "tags in the answer only": (
        ["What is it?", "A <ins>dog</ins>."], 1, None,
        ["What _is _ it ?", "A _do:0 g:0 ."],
        ["What _is _it ?", "A _dog:0 ."],
    ),
    "punctuation": (
        ['Is it the (<ins>dog</ins>), "<ins>cat</ins>"?', "<ins>dog</ins>'s <ins>cat</ins>."], 2, None,
        ['I s _ it _the _ ( d:0 o:0 g:0 ) , _ " c:1 at:1 " ?', "d:0 o:0 g:0 ' s _c:1 at:1 ."],
        ['Is _it _the _( dog:0 ), _" cat:1 "?', "dog:0 's _cat:1 ."],
    ),
    "capitals and parts of words": (
        ["<ins>DOG</ins> or <ins>Dog</ins>s?", "a <ins>dog</ins>house"], 1, None,
        ["D:0 O:0 G:0 _o r _ D:0 o:0 g:0 s ?", "a _do:0 g:0 h ou s e"],
        ["DOG:0 _or _Dogs:0 ?", "a _dog:0 house"],
    ),
    "chinese": (  # with a space in front the real tokenizer makes three tokens of the one character
        ["描述<ins>狗</ins>和<ins>猫</ins>。", "这只 <ins>狗</ins>很小。"], 2, None,
        ["æ ı ı è ¿ ° ç:0 ĭ:0 Ĺ:0 å Ĵ Į ç:1 Į:1 «:1 ã Ģ Ĥ", "è ¿ Ļ å ı ª _ ç:0 ĭ:0 Ĺ:0 å ¾ Ī å ° ı ã Ģ Ĥ"],
        ["æııè¿° çĭĹ:0 åĴĮ çĮ«:1 ãĢĤ", "è¿Ļåıª _ç:0 ĭ:0 Ĺ:0 å¾Īå°ı ãĢĤ"],
    ),
    "emoji": (
        ["The <ins>🐶</ins> and 🎉<ins>👩‍🚀</ins>x?", "<ins>🐶</ins>"], 2, None,
        ["The _ ð:0 Ł:0 Ĳ:0 ¶:0 _and _ ð Ł İ ī ð:1 Ł:1 ĳ:1 ©:1 â:1 Ģ:1 į:1 ð:1 Ł:1 ļ:1 Ģ:1 x ?", "ð:0 Ł:0 Ĳ:0 ¶:0"],
        ["The _ðŁ:0 Ĳ:0 ¶:0 _and _ðŁ İ ī ðŁĳ©:1 âĢ:1 į:1 ðŁļĢ:1 x ?", "ðŁĲ¶:0"],
    ),
    "tags at both ends": (
        ["<ins>dog</ins> sits by <ins>cat</ins>", "<ins>cat</ins> by <ins>dog</ins>"], 2, None,
        ["d:0 o:0 g:0 _s it s _b y _c:1 at:1", "c:1 at:1 _b y _do:0 g:0"],
        ["dog:0 _sits _by _cat:1", "cat:1 _by _dog:0"],
    ),
    "white space inside the tag": (
        ["The<ins> dog </ins>sits.", "Ok"], 1, None,
        ["The _do:0 g:0 _s it s .", "O k"],
        ["The _dog:0 _sits .", "Ok"],
    ),
    "a long phrase": (
        ["the <ins>man in a striped shirt</ins> and", "Ok"], 1, None,
        ["t he _ m:0 an:0 _in:0 _a:0 _striped:0 _s:0 h:0 ir:0 t:0 _and", "O k"],
        ["the _man:0 _in:0 _a:0 _striped:0 _shirt:0 _and", "Ok"],
    ),
    "several turns": (
        ["A <ins>dog</ins>?", "Yes.", "And the <ins>cat</ins>?", "A dog and a <ins>cat</ins>."], 2, None,
        ["A _do:0 g:0 ?", "Y es .", "A nd _the _c:1 at:1 ?", "A _do g _and _a _c:1 at:1 ."],
        ["A _dog:0 ?", "Yes .", "And _the _cat:1 ?", "A _dog _and _a _cat:1 ."],
    ),
    "no supervision": (
        ["A <ins>dog</ins>?", "A <ins>dog</ins>."], 0, None,
        ["A _do g ?", "A _do g ."],
        ["A _dog ?", "A _dog ."],
    ),
}  # fmt: skip


@pytest.mark.parametrize("image", [False, True], ids=["video", "image"])
@pytest.mark.parametrize("tokenizer", ["tiny", "real"])
@pytest.mark.parametrize("name", CASES)
def test_named_tokens_are_exact(request, model_type, name, tokenizer, image):
    texts, instances, mentions, *lines = CASES[name]
    collator = request.getfixturevalue(tokenizer)
    cell = collator.reader.cell_px
    batch = collator([sample_of(texts, instances, mentions, frames=1 if image else 4, image=image, cell=cell)])
    assert shown(collator, batch) == lines[tokenizer == "real"]


@pytest.mark.parametrize("tokenizer", ["tiny", "real"])
def test_a_batch_names_the_same_tokens_as_each_sample_alone(request, model_type, tokenizer):
    """Padding and the neighbours' placeholders, expanded to other lengths, move nothing."""
    collator = request.getfixturevalue(tokenizer)
    chosen = [CASES[name] for name in CASES]
    samples = [
        sample_of(
            *case[:3], frames=1 if n % 3 == 1 else 2 + 2 * (n % 4), image=n % 3 == 1, cell=collator.reader.cell_px
        )
        for n, case in enumerate(chosen)
    ]
    batch = collator(samples)
    found = [shown(collator, batch, number) for number in range(len(samples))]
    assert found == [case[3 + (tokenizer == "real")] for case in chosen]


@pytest.mark.parametrize("tokenizer", ["tiny", "real"])
def test_a_phrase_without_a_token_of_its_own_is_an_error(request, model_type, tokenizer):
    collator = request.getfixturevalue(tokenizer)
    word = "striped"  # one token in both vocabularies
    texts = [f"The <ins>{word[0]}</ins><ins>{word[1:]}</ins>.", "Yes."]
    texts[0] = f"The <ins> {word[0]}</ins><ins>{word[1:]}</ins>." if tokenizer == "tiny" else texts[0]
    with pytest.raises(DataError, match="here \\(videorefer_test\\): the tagged phrase ' ?s' owns no token"):
        collator([sample_of(texts, 2, cell=collator.reader.cell_px)])


@pytest.mark.parametrize("token", ["<|im_end|>", "<|video_pad|>", "<|image_pad|>", "<|endoftext|>"])
def test_special_tokens_in_the_text_are_refused(tiny, token):
    with pytest.raises(DataError, match="here \\(videorefer_test\\): the text holds the special token"):
        tiny([sample_of([f"a <ins>dog</ins>{token}", "b"], 1)])


@pytest.mark.parametrize("frames", [4, 5], ids=["whole steps", "half a step at the end"])
def test_each_step_of_qwen3_vl_has_its_time_before_it(real_processor_dirs, frames):
    """As transformers 4.57 writes it, which the weights were trained with: no start and end around the whole video."""
    collator = collator_of(real_processor_dirs["qwen3_vl"])
    sample = sample_of(["Where is the <ins>dog</ins>?", "Here."], 1, frames=frames, cell=32)
    batch = collator([sample])
    times = ["0.5", "2.5", "4.0"][: -(-frames // 2)]  # frames are one second apart; a single last one is taken twice
    steps = "".join(f"<{time} seconds><|vision_start|>{'<|video_pad|>' * 4}<|vision_end|>" for time in times)
    before = f"<|im_start|>system\n{collator.settings.system_prompt}<|im_end|>\n<|im_start|>user\n"
    after = "Where is the dog?<|im_end|>\n<|im_start|>assistant\nHere.<|im_end|>\n"
    assert collator.processor.tokenizer.decode(batch["input_ids"][0]) == before + steps + after
    tokens = collator.processor.tokenizer.convert_ids_to_tokens(batch["input_ids"][0].tolist())
    first = tokens.index("<")
    assert tokens[first : first + 8] == ["<", "0", ".", "5", "Ġseconds", ">", "<|vision_start|>", "<|video_pad|>"]
    visual = batch["mm_token_type_ids"][0] == 2
    assert visual.tolist() == [token == "<|video_pad|>" for token in tokens] and int(visual.sum()) == 4 * len(times)
    last = int(visual.nonzero().max())
    assert (batch["attn_labels"][0] != IGNORE).tolist() == [place > last for place in range(len(tokens))]
    assert len(sample.clip.numbers) == frames  # the processor fills up the last step, the sample stays as it is


def named(mentions, offsets, text="x" * 40, replacements=()):
    chat = ChatText(text, [], [Mention(*mention) for mention in mentions])
    return instance_tokens(chat, list(replacements), np.array(offsets)).tolist()


def test_the_largest_share_wins_and_ties_go_to_the_earlier():
    assert named([(0, 1, 0), (1, 4, 1), (4, 9, 0)], [(0, 1), (0, 4), (4, 9)]) == [0, 1, 0]
    assert named([(0, 2, 7), (2, 4, 8)], [(0, 4), (3, 4)]) == [7, 8]
    assert named([(3, 5, 0)], [(0, 3), (3, 4), (4, 6), (5, 7)]) == [IGNORE, 0, 0, IGNORE]


def test_leading_white_space_takes_no_part():
    text = "a  bcd"
    assert named([(3, 4, 0), (4, 6, 1)], [(0, 1), (1, 6), (3, 4)], text) == [IGNORE, 1, 0]
    assert named([(1, 4, 0)], [(0, 1), (1, 3), (3, 6)], text) == [IGNORE, IGNORE, 0]


def test_special_tokens_of_no_width_name_nothing():
    assert named([(0, 2, 0)], [(0, 0), (0, 2), (2, 2)]) == [IGNORE, 0, IGNORE]


def test_places_move_with_the_expanded_placeholders():
    replacements = [{"span": (2, 5), "new_span": (2, 11)}, {"span": (8, 11), "new_span": (14, 15)}]
    places = [place_in_expanded(place, replacements) for place in (0, 1, 2, 5, 7, 8, 11, 20)]
    assert places == [0, 1, 2, 11, 13, 14, 15, 24]
    assert named([(5, 8, 0), (11, 12, 1)], [(0, 2), (2, 11), (11, 14), (14, 15), (15, 16)], replacements=replacements) == [
        IGNORE, IGNORE, 0, IGNORE, 1,
    ]  # fmt: skip


def test_answers_are_whole_tokens_inside_them():
    chat = ChatText("x" * 30, [(4, 8), (20, 25)], [])
    offsets = np.array([(0, 4), (3, 5), (4, 6), (6, 8), (8, 8), (7, 9), (20, 25), (25, 26)])
    assert answer_tokens(chat, [], offsets).tolist() == [False, False, True, True, False, False, True, False]


@given(st.text(max_size=30), st.data())
def test_tokens_of_any_piece_of_text_hold_it(real_processor, text, data):
    tokenizer = real_processor.tokenizer
    tokens = tokenizer(text).input_ids
    decoded, ends = decode_with_ends(tokenizer, tokens)
    if not decoded:
        return
    start = data.draw(st.integers(0, len(decoded) - 1))
    end = data.draw(st.integers(start + 1, len(decoded)))
    first, last = tokens_of((start, end), ends, 0)
    before = ends[first - 1] if first else 0
    assert before <= start and ends[last - 1] >= end and (last == first + 1 or ends[last - 2] < end)
