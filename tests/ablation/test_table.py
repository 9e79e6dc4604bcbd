"""The tables: means, ranges and paired differences of numbers that are known."""

import dataclasses
import math

import pytest

from swim.ablation.plan import Variant
from swim.ablation.table import Row, as_markdown, paired_difference, plot, reference_of

BASE = Row(Variant("loss", "bce", {}), {0: {"pointing": 0.5}, 1: {"pointing": 0.7}, 2: {"pointing": 0.6}})
DICE = Row(
    Variant("loss", "dice", {"loss": "dice"}), {0: {"pointing": 0.6}, 1: {"pointing": 0.9}, 2: {"pointing": 0.9}}
)
START = Row(Variant("loss", "before | <x>", None), {0: {"pointing": 0.1}})


def test_differences_are_paired_by_seed_with_a_t_interval():
    mean, (low, high) = paired_difference(DICE, BASE, "pointing")
    # 0.1, 0.2, 0.3: mean 0.2, standard error 0.1 / sqrt(3), t(0.975, 2) = 4.3027
    assert mean == pytest.approx(0.2)
    assert (low, high) == pytest.approx(
        (0.2 - 4.3027 * 0.1 / math.sqrt(3), 0.2 + 4.3027 * 0.1 / math.sqrt(3)), abs=1e-4
    )
    assert paired_difference(START, BASE, "pointing") == (pytest.approx(-0.4), None)
    assert paired_difference(DICE, BASE, "inside") is None
    assert paired_difference(Row(DICE.variant, {7: {"pointing": 1.0}}), BASE, "pointing") is None


def test_the_reference_is_the_base_or_else_the_first_that_was_trained():
    assert reference_of([START, DICE, BASE]) is BASE
    assert reference_of([START, DICE]) is DICE and reference_of([START]) is START
    others = Row(Variant("words", "others", {}, (("circle", "disc"),)), {})
    assert reference_of([others, DICE, BASE]) is BASE and reference_of([others, DICE]) is others


def test_the_tables_hold_what_was_measured_and_say_what_is_missing():
    text = as_markdown([START, BASE, DICE], [0, 1, 2])
    lines = text.splitlines()
    assert lines[:2] == ["## loss", ""] and "| bce | 0.60 (0.50 to 0.70) | 0, 1, 2 |" in lines
    assert "| dice | 0.80 (0.60 to 0.90) | 0, 1, 2 |" in lines
    assert "| before \\| &lt;x> | 0.10 | 0 |" in lines
    assert "| dice | +0.20 (-0.05 to +0.45) |" in lines and "| before \\| &lt;x> | -0.40 |" in lines
    almost = Row(Variant("loss", "almost", {"a": 1}), {0: {"pointing": 0.499}})
    assert "| almost | 0.00 |" in as_markdown([BASE, almost], [0]).splitlines()  # not -0.00
    assert "Not measured on every seed yet: loss: before | <x>." in lines
    assert "nothing measured yet" in as_markdown([Row(BASE.variant, {})], [0])
    assert "Not measured" not in as_markdown([BASE, DICE], [0, 1, 2])


def test_a_variant_is_compared_with_what_it_names_too():
    control = Row(
        Variant("loss", "no loss", {"w": 0}), {0: {"pointing": 0.2}, 1: {"pointing": 0.4}, 2: {"pointing": 0.3}}
    )
    dice = Row(dataclasses.replace(DICE.variant, against="no loss"), DICE.scores)
    lines = as_markdown([BASE, dice, control], [0, 1, 2]).splitlines()
    # 0.4, 0.5, 0.6: mean 0.5, the same standard error as above
    assert "| dice, less no loss | +0.50 (+0.25 to +0.75) |" in lines and "| dice | +0.20 (-0.05 to +0.45) |" in lines
    base = Row(dataclasses.replace(BASE.variant, against="no loss"), BASE.scores)
    assert "| bce, less no loss | +0.30 (+0.30 to +0.30) |" in as_markdown([base, control], [0, 1, 2]).splitlines()


def test_the_figure_shows_every_axis(tmp_path):
    other = Row(Variant("masks", "10 %", {"mask_share": 0.1}), {0: {"inside": 0.2, "pointing": 0.4}})
    plot([START, BASE, DICE, other], tmp_path / "all.png")
    plot([BASE], tmp_path / "one.png")
    assert (tmp_path / "all.png").stat().st_size > (tmp_path / "one.png").stat().st_size > 5_000
    plot([Row(BASE.variant, {})], tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()
