"""NL-Refer records from an own video and its masks, with phrases by hand, from a CSV or by a model.

    swim from-masks --video dog.mp4 --masks masks/ --output dog.json --phrase "1=the white dog"
    swim from-masks --video judo/ --masks judo_masks/ --output judo.json --phrases phrases.csv
    swim from-masks --video sav_000001.mp4 --masks sav_000001_manual.json --frame_step 4 \\
        --output sav.json --model gpt-4o-mini --captions captions.csv

Masks: a folder of palette PNGs (00000.png, the pixel's index is the instance), of PNGs per object (00000_mask_1.png, or
1/00000.png), a COCO RLE JSON ({"instance": {"frame": RLE}}, or a list of {"instance", "frame", "segmentation"}) or an SA-V
JSON. They are kept pixel by pixel. Number N in a mask's name means frame N * --frame_step of the video.
A CSV has the columns instance, phrase and, if you like, caption; `--captions` one of instance and caption. In a phrase
"the <ins>dog</ins> on the bed" marks the noun; without tags all but a leading article is marked. An instance without a
phrase is left out, and named. Each caption becomes a record of its own; without captions one record names all instances.
"""

import csv
import io
from pathlib import Path

from rich.console import Console

from swim.construct.language import LANGUAGES
from swim.construct.mask_files import Masks
from swim.construct.tasks import CANONICAL, finish, read_task
from swim.data.bench import DEFAULT_QUESTION
from swim.data.tags import strip_tags
from swim.errors import DataError
from swim.files import decode_text, read_file

QUESTION = "<video>\n" + DEFAULT_QUESTION.replace("<object>", "<object0>")
NAME_ALL = "<video>\nName {} that can be seen in this video."

console = Console(soft_wrap=True)


def tagged(phrase: str) -> str:
    """The phrase with its noun tagged. Example: "the white dog" -> "the <ins>white dog</ins>". Raises ValueError."""
    try:
        _, spans = strip_tags(phrase)
    except DataError as error:
        raise ValueError(error.message) from None
    if len(spans) > 1:
        raise ValueError(f"expected one <ins>noun</ins>, found {len(spans)} in {phrase!r}")
    if spans:
        return phrase.strip()
    article, rest = split_article(phrase)
    return f"{article} <ins>{rest}</ins>" if article else f"<ins>{rest}</ins>"


def split_article(phrase: str) -> tuple[str, str]:
    """(leading article or "", the rest). Example: "the white dog" -> ("the", "white dog"). An article alone is a name."""
    first, _, rest = phrase.strip().partition(" ")
    if rest.strip() and any(first.casefold() in language.articles for language in LANGUAGES):
        return first, rest.strip()
    return "", phrase.strip()


def check_phrases(phrases: dict[str, str], known: list[str]) -> dict[str, str]:
    """The tagged phrases, in the order of the instances.

    Raises ValueError for an instance that has no mask, an empty phrase, and two instances with one noun.
    """
    for name, phrase in phrases.items():
        if name not in known:
            raise ValueError(f"a phrase for instance {name!r}; the masks have {', '.join(known)}")
        if not phrase.strip():
            raise ValueError(f"the phrase of instance {name} is empty")
    found = {name: tagged(phrases[name]) for name in known if name in phrases}
    nouns: dict[str, str] = {}
    for name, phrase in found.items():
        noun = strip_tags(phrase)[1][0].phrase.strip().casefold()
        if noun in nouns:
            raise ValueError(f"instances {nouns[noun]} and {name} are both called {noun!r}; tell them apart")
        nouns[noun] = name
    return found


def videorefer_records(masks: Masks, captions: dict[str, str], video: str, stem: str) -> list[tuple[list[str], dict]]:
    """(instances, record in the VideoRefer layout): one for each caption, or one that names all instances.

    Raises ValueError for a caption of an instance that has no mask.
    """
    for name in captions:
        if name not in masks:
            raise ValueError(f"a caption for instance {name!r}; there are {', '.join(masks)}")
    groups = [([name], QUESTION, captions[name]) for name in masks if captions.get(name, "").strip()]
    if not groups:
        names = list(masks)
        count = "one object" if len(names) == 1 else f"{len(names)} objects"
        groups = [(names, NAME_ALL.format(count), _enumeration(len(names)))]
    return [
        (
            names,
            {
                "index": f"videorefer_{stem}_{'_'.join(names)}",
                "video": video,
                "conversations": [{"from": "human", "value": question}, {"from": "gpt", "value": answer}],
                "annotation": [
                    {str(frame): {"segmentation": rle} for frame, rle in masks[name].items()} for name in names
                ],
            },
        )
        for names, question, answer in groups
    ]


def _enumeration(count: int) -> str:
    """ "<object0>, <object1> and <object2>." """
    names = [f"<object{n}>" for n in range(count)]
    return (", ".join(names[:-1]) + " and " if count > 1 else "") + names[-1] + "."


def name_by_hand(raw: dict, phrases: list[str], where: str, root: Path) -> dict:
    """The NL-Refer record with these tagged phrases, one for each instance. Raises DataError."""
    task = read_task(raw, where, root)

    def fill(content: str) -> str:
        parts = CANONICAL.split(content)  # text, number, text, ...
        filled = [phrases[int(part)] if place % 2 else part for place, part in enumerate(parts)]
        if not parts[0]:
            filled[1] = _capitalised(filled[1])
        return "".join(filled)

    return finish(task, {number: fill(text.content) for number, text in task.open_texts.items()})


def _capitalised(phrase: str) -> str:
    """Example: "<ins>dog</ins>" -> "<ins>Dog</ins>"."""
    start = len("<ins>") if phrase.startswith("<ins>") else 0
    return phrase[:start] + phrase[start].upper() + phrase[start + 1 :]


def read_csv(path: str, column: str) -> dict[str, str]:
    """{instance: entry of that column}.

    Raises ValueError for missing columns and an instance given twice, DataError for a file that cannot be read.
    """
    names, rows = _table(path)
    if not {"instance", column} <= set(names):
        raise ValueError(f"{path}: expected the columns instance and {column}, found {', '.join(names) or 'none'}")
    found: dict[str, str] = {}
    for row in rows:
        name = (row["instance"] or "").strip()
        if name in found:
            raise ValueError(f"{path}: instance {name} is given twice")
        found[name] = row[column] or ""
    return found


def _has_column(path: str, column: str) -> bool:
    return column in _table(path)[0]


def _table(path: str) -> tuple[list[str], list[dict[str, str]]]:
    """(names of the columns, rows) of a CSV file."""
    text = decode_text(read_file(Path(path), "fix --phrases or --captions"), path)
    reader = csv.DictReader(io.StringIO(text, newline=""))
    try:
        rows = list(reader)
    except csv.Error as error:
        raise DataError(f"malformed CSV after line {reader.line_num}: {error}", path) from None
    return list(reader.fieldnames or []), rows
