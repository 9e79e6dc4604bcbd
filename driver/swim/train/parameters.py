"""Which parts of the model are trained, and how fast."""

from collections.abc import Sequence

from rich.table import Table

from swim.models.family import PARTS, family_of


def choose_parts(model, parts: Sequence[str]):
    """Lets only the parameters of these parts learn."""
    part_of = family_of(model.config).part_of
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(part_of(name) in parts)


def optimizer_groups(model, decaying: set[str], weight_decay: float, learning_rates: dict[str, float]) -> list[dict]:
    """Parameter groups of an optimiser: by part's learning rate, and by whether weight decay applies.

    Frozen parameters are left out. decaying: names of those that decay. learning_rates: of the parts that have their own.
    """
    groups: dict[tuple, dict] = {}
    part_of = family_of(model.config).part_of
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        own = learning_rates.get(part_of(name))
        decay = weight_decay if name in decaying else 0.0
        options = {"weight_decay": decay} | ({} if own is None else {"lr": own})
        groups.setdefault((own, decay), {"params": [], **options})["params"].append(parameter)
    return list(groups.values())


def parts_table(model, learning_rate: float, learning_rates: dict[str, float]) -> Table:
    """Trained and frozen parameters of each part, for a terminal. Counts are of the whole model, also when it is sharded."""
    family = family_of(model.config)
    counts = {part: [0, 0] for part in PARTS}
    for name, parameter in model.named_parameters():
        counts[family.part_of(name)][parameter.requires_grad] += getattr(parameter, "ds_numel", parameter.numel())
    table = Table("part", "trained", "frozen", "learning rate", title="parameters")
    for part, (frozen, trained) in counts.items():
        rate = f"{learning_rates.get(part, learning_rate):g}" if trained else ""
        table.add_row(part, f"{trained:,}", f"{frozen:,}", rate)
    frozen, trained = (sum(column) for column in zip(*counts.values()))
    table.add_section()
    table.add_row("together", f"{trained:,}", f"{frozen:,}", "")
    return table
