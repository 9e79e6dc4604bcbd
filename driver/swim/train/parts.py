"""Which parts of the model are trained, and how fast."""

from rich.table import Table

PARTS = ("language_model", "merger", "visual")


def part_of(name: str) -> str:
    """The part of a parameter: "merger" (vision to language), "visual" (the rest of the tower) or "language_model".

    What a wrapper such as PEFT puts before a name makes no difference.
    """
    if ".visual.merger." in f".{name}":
        return "merger"
    return "visual" if ".visual." in f".{name}" else "language_model"


def choose_parts(model, parts: list[str]):
    """Lets only the parameters of these parts learn."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(part_of(name) in parts)


def optimizer_groups(
    named_parameters, decaying: set[str], weight_decay: float, learning_rates: dict[str, float]
) -> list[dict]:
    """Parameter groups of an optimiser: by part's learning rate, and by whether weight decay applies.

    named_parameters: (name, parameter) of all; frozen ones are left out. learning_rates: of the parts that have their own.
    """
    groups: dict[tuple, dict] = {}
    for name, parameter in named_parameters:
        if not parameter.requires_grad:
            continue
        own = learning_rates.get(part_of(name))
        decay = weight_decay if name in decaying else 0.0
        options = {"weight_decay": decay} | ({} if own is None else {"lr": own})
        groups.setdefault((own, decay), {"params": [], **options})["params"].append(parameter)
    return list(groups.values())


def parts_table(model, learning_rate: float, learning_rates: dict[str, float]) -> Table:
    """Trained and frozen parameters of each part, for a terminal. Counts are of the whole model, also when it is sharded."""
    counts = {part: [0, 0] for part in PARTS}
    for name, parameter in model.named_parameters():
        counts[part_of(name)][parameter.requires_grad] += getattr(parameter, "ds_numel", parameter.numel())
    table = Table("part", "trained", "frozen", "learning rate", title="parameters")
    for part, (frozen, trained) in counts.items():
        rate = f"{learning_rates.get(part, learning_rate):g}" if trained else ""
        table.add_row(part, f"{trained:,}", f"{frozen:,}", rate)
    frozen, trained = (sum(column) for column in zip(*counts.values()))
    table.add_section()
    table.add_row("together", f"{trained:,}", f"{frozen:,}", "")
    return table
