"""The model card of a checkpoint: what it was trained from, on what, how, and with which numbers."""

import json
from pathlib import Path

import yaml
from huggingface_hub import ModelCard, ModelCardData

from swim.models.family import Family, families
from swim.train.run_folder import CONFIG_FILE, FINISHED_FILE, MIXTURE_FILE

_TEXT = """---
{metadata}
---

# {name}

{family} fine-tuned with SWIM ("See What I Mean", arXiv 2605.18018): the attention of a noun tagged `<ins>...</ins>` was
supervised with the mask of the object that it names. At inference nothing is special: ask in ordinary words.

{sections}
The paper's weights and data are CC BY-NC 4.0; the base model and the videos have terms of their own. Say here which apply.
"""


def write_card(folder: Path, run: Path):
    """Writes README.md into a checkpoint's folder, from what training left in `run`; what is not there is left out."""
    config = read_left(run / CONFIG_FILE)
    base = config.get("model_name_or_path")
    named = base if base and not Path(base).exists() else None  # a folder of this machine means nothing elsewhere
    family = _family_of(folder)
    metadata = ModelCardData(
        base_model=named,
        library_name="transformers",
        pipeline_tag="video-text-to-text",
        tags=["swim", family.model_type],
    )
    sections = [
        values_section("Numbers", read_left(run / FINISHED_FILE) | read_left(run / "summary.json")),
        data_section(read_left(run / MIXTURE_FILE)),
        values_section("Settings", {key: value for key, value in config.items() if key not in ("output_dir", "demo")}),
    ]
    name, text = folder.resolve().name, "\n".join(section for section in sections if section)
    ModelCard(_TEXT.format(metadata=metadata.to_yaml(), name=name, family=family.title, sections=text)).save(
        folder / "README.md"
    )


def _family_of(folder: Path) -> Family:
    """That of the weights there; an adapter's folder does not say it, and then it is the first one."""
    kind = read_left(folder / "config.json").get("model_type")
    return next((family for family in families() if family.model_type == kind), families()[0])


def read_left(path: Path) -> dict:
    """A JSON or YAML file, {} for none."""
    if not path.exists():
        return {}
    text = path.read_text(encoding="utf-8")
    return yaml.safe_load(text) if path.suffix == ".yaml" else json.loads(text)


def values_section(title: str, values: dict) -> str:
    """A heading and a table of names and values; "" for none."""
    if not values:
        return ""
    rows = [f"| {key} | {_shown(value)} |" for key, value in values.items()]
    return "\n".join([f"## {title}\n", "| | |", "|---|---|", *rows, ""])


def _shown(value) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return json.dumps(value) if isinstance(value, (dict, list)) else str(value)


def data_section(mixture: dict) -> str:
    """What mixture.json says of the data, as a table; "" for none."""
    if not mixture:
        return ""
    rows = [
        f"| {Path(source['json_path']).name} | {source['selected']:,} of {source['records']:,} | {source['sha256'][:12]} |"
        for source in mixture["sources"]
    ]
    return "\n".join(["## Data\n", "| file | records | SHA-256 |", "|---|---|---|", *rows, ""])
