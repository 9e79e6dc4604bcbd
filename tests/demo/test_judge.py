"""The demo's judge: each score has its reason, and it answers over HTTP as any judge does."""

import pytest

from swim.data.bench import parse_bench_d
from swim.demo.bench import write_benches
from swim.demo.clips import make_demo_data
from swim.demo.facts import description
from swim.demo.judge import MODEL, Judge, scores, serving
from swim.eval.items import read_items
from swim.eval.judge import DIMENSIONS, Case, judge
from swim.eval.scores_d import make_cases
from swim.llm import Asker, AskFailed, Endpoint, ServiceRefuses
from swim.reply_cache import ReplyCache

from .test_bench import MOVING, RESTING

# of the striped red circle that moves to the right, above the blue square
DESCRIPTIONS = {
    "The red circle is striped and moves to the right. Below it is the blue square.": (5, 5, 5, 5),
    "The red circle is striped and moves to the right.": (5, 5, 5, 5),
    "The red circle is dotted and moves to the right. Below it is the blue square.": (5, 0, 5, 3),
    "The red circle is striped and moves upwards. On its left is the blue square.": (5, 5, 0, 1),
    "The red circle is striped. Below it is the pink square.": (5, 5, 0, 3),
    "The red square is plain and moves downwards. Above it is the pink circle.": (2, 0, 0, 0),
    "The blue circle is striped and dotted.": (1, 0, 0, 1),
    "The red circle striped": (5, 5, 0, 5),
    "checked checked checked": (0, 0, 0, 0),
    "": (0, 0, 0, 0),
}


@pytest.mark.parametrize("text", DESCRIPTIONS)
def test_scores_follow_from_the_scene(text):
    assert tuple(scores(text, MOVING, [MOVING, RESTING]).values()) == DESCRIPTIONS[text]


def test_every_true_description_is_the_best_whichever_neighbour_it_names():
    assert set(scores(description(MOVING, RESTING), MOVING, [MOVING, RESTING]).values()) == {5}
    assert set(scores(description(RESTING, MOVING), RESTING, [MOVING, RESTING])) == set(DIMENSIONS)


def test_it_is_asked_over_http_as_any_judge(tmp_path):
    held_out = make_demo_data(tmp_path, 0, 3, seed=2, workers=1).held_out_json
    benches = write_benches(held_out)
    items = read_items(benches.bench_d, None, parse_bench_d).items
    perfect = make_cases(items, {key: item.reference for key, item in items.items()})
    with serving(Judge(benches.bench_d, benches.held_out)) as url:
        asker = Asker(Endpoint(MODEL, url, attempts=1), ReplyCache(tmp_path / "replies.sqlite"))
        for case in perfect:
            assert judge(case, asker) == dict.fromkeys(DIMENSIONS, 5)
        with pytest.raises((AskFailed, ServiceRefuses), match="knows the scenes of the demo's bench_d.json alone"):
            judge(Case("x", "What is it?", "A dog.", "A dog."), asker)
