"""A page to judge NL-Refer records by eye: frames with outlined masks, each noun in its mask's colour."""

import html
import random
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from tqdm import tqdm

from swim.construct.frames import COLOURS, OutlinedFrame, colour_of, outlined_frames
from swim.construct.tasks import Kind, kind_of, parser_of
from swim.data.root import DataRoot
from swim.data.streaming import stream_records
from swim.data.tags import assign_instances, strip_tags
from swim.errors import DataError
from swim.files import file_sha256, write_atomically

FRAME_PIXELS = 400 * 225
_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 75rem; margin: 1rem auto; padding: 0 1rem; color: #222; background: #fff }}
article {{ border-top: 1px solid #bbb; padding: 1rem 0 }} h2 {{ font-size: 1rem; margin: 0 }}
.frames {{ display: flex; flex-wrap: wrap; gap: .4rem; margin: .5rem 0 }} figure {{ margin: 0 }}
figcaption {{ font-size: .75rem; color: #555 }} img {{ max-width: 100%; height: auto; display: block }}
.role {{ color: #555; display: inline-block; min-width: 5.5rem }} p {{ margin: .2rem 0; white-space: pre-wrap }}
mark {{ padding: 0 .2em; border-radius: .2em; background: #ddd; color: #000 }} .bad {{ color: #a00 }}
{colours}
table {{ border-collapse: collapse }} td, th {{ padding: .1rem .8rem .1rem 0; text-align: left }}
button {{ font: inherit; cursor: pointer }} .rejected .frames, .rejected p {{ opacity: .35 }}
#rejections {{ position: sticky; top: 0; padding: .4rem 0; background: #fff; border-bottom: 1px solid #bbb }}
</style></head><body>
<h1>{title}</h1>
<p>{summary}</p>
<div id="rejections" data-file="{title}" data-sha256="{sha256}"><button id="save" disabled>save the rejected as a skip list</button>
<span id="count">none is rejected</span></div>
{body}
<script>{script}</script>
</body></html>
"""
# Rejected positions stay in the browser until the file changes. What is saved is what --skip_list and swim check take.
_SCRIPT = """
const place = document.getElementById("rejections"), {file, sha256} = place.dataset, key = "swim rejected " + sha256;
let kept = [];
try { kept = JSON.parse(localStorage.getItem(key)) || []; } catch (error) {}
const rejected = new Set(kept);
function show() {
  for (const article of document.querySelectorAll("article[data-position]")) {
    const isRejected = rejected.has(Number(article.dataset.position));
    article.classList.toggle("rejected", isRejected);
    article.querySelector("button").textContent = isRejected ? "take back" : "reject";
  }
  document.getElementById("save").disabled = rejected.size === 0;
  document.getElementById("count").textContent = rejected.size ? rejected.size + " rejected" : "none is rejected";
}
document.addEventListener("click", (event) => {
  const article = event.target.closest("article[data-position] button")?.closest("article");
  if (!article) return;
  const position = Number(article.dataset.position);
  if (!rejected.delete(position)) rejected.add(position);
  try { localStorage.setItem(key, JSON.stringify([...rejected])); } catch (error) {}
  show();
});
document.getElementById("save").addEventListener("click", () => {
  const lines = [...rejected].sort((a, b) => a - b).map(
    (position) => JSON.stringify({sha256, file, position, reason: "rejected in review"}) + "\\n");
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob(lines, {type: "application/jsonl"}));
  link.download = "skip_list.jsonl";
  link.click();
});
show();
"""

console = Console(soft_wrap=True)


@dataclass
class Shown:
    """What the page tells of one record. texts: (role, HTML). problem: why the record, or its video, cannot be used."""

    name: str
    video: str
    position: int
    texts: list[tuple[str, str]] = field(default_factory=list)
    frames: list[OutlinedFrame] = field(default_factory=list)
    instances: int = 0
    problem: str | None = None


def sample_records(path: Path, count: int, seed: int) -> tuple[list[tuple[int, dict]], int]:
    """((position, record) of `count` random ones in the file's order, how many the file holds), in bounded memory."""
    rng, total = random.Random(seed), 0
    kept: list[tuple[int, dict]] = []
    for position, raw in enumerate(tqdm(stream_records(path), desc=f"reading {path.name}", unit="record", delay=2)):
        total += 1
        if len(kept) < count:
            kept.append((position, raw))
        elif (place := rng.randrange(total)) < count:
            kept[place] = (position, raw)
    return sorted(kept, key=lambda entry: entry[0]), total


def texts_of(raw: dict) -> list[tuple[str, str]]:
    """(role, text with tags) of everything that a record says."""
    if kind_of(raw) is Kind.BENCH_Q:
        options = [("option", option) for option in raw["options"]]
        return [("question", raw["Question"]), *options, ("answer", raw["Answer"])]
    if raw.get("conversations") is None:
        return [("caption", raw["caption"])]
    roles = {"human": "question", "gpt": "answer"}
    return [(roles[turn["from"]], turn["value"]) for turn in raw["conversations"]]


def show_record(raw: dict, path: Path, position: int, root: DataRoot, frames: int) -> Shown:
    """What of a file's record is shown. A bad record, or one whose video cannot be read, says so."""
    where = f"{path}, record {position}"
    shown = Shown(str(raw.get("index", raw.get("id", where))), str(raw.get("video") or raw.get("image")), position)
    try:
        parsed = parser_of(kind_of(raw))(raw, where, root)
        shown.instances = len(raw.get("annotation") or [])
        shown.texts = _coloured(texts_of(raw), shown.instances, raw.get("mentions"))
        if parsed.path is not None and any(parsed.instances):
            shown.frames = outlined_frames(parsed.path, parsed.instances, frames, parsed.fps, FRAME_PIXELS)
    except DataError as error:
        shown.problem = error.message
    return shown


def _coloured(texts: list[tuple[str, str]], instances: int, mentions: list[int] | None) -> list[tuple[str, str]]:
    """The texts as HTML with every tagged noun in its instance's colour, grey where nothing tells the instance."""
    stripped = [(role, *strip_tags(text)) for role, text in texts]
    # the answer of a multiple-choice question repeats an option: its phrases are known from there
    counted = [spans for place, (role, _, spans) in enumerate(stripped) if not _repeats(texts, place)]
    phrases = [span.phrase for spans in counted for span in spans]
    try:
        named = assign_instances(phrases, instances, mentions) if instances else [None] * len(phrases)
    except DataError:
        named = [None] * len(phrases)
    by_phrase = {phrase.strip().casefold(): instance for phrase, instance in zip(phrases, named)}
    numbers, found = iter(named), []
    for place, (role, text, spans) in enumerate(stripped):
        parts, read = [], 0
        for span in spans:
            key = span.phrase.strip().casefold()
            instance = by_phrase.get(key) if _repeats(texts, place) else next(numbers)
            style = "" if instance is None else f' class="i{instance % len(COLOURS)}" title="instance {instance}"'
            parts.append(f"{html.escape(text[read : span.start])}<mark{style}>{html.escape(span.phrase)}</mark>")
            read = span.end
        found.append((role, "".join(parts) + html.escape(text[read:])))
    return found


def _repeats(texts: list[tuple[str, str]], place: int) -> bool:
    return texts[place][0] == "answer" and ("option", texts[place][1]) in texts


def write_page(path: Path, file: Path, shown: list[Shown], total: int, rejected: list[dict], most_rejected: int):
    """Writes the page about a file's records. rejected: those that construction left out."""
    bad = sum(record.problem is not None for record in shown)
    summary = f"{len(shown)} of {total:,} records, {bad} of them with a problem; {len(rejected):,} rejected."
    colours = "\n".join(
        f".i{number} {{ background: rgb{rgb}; color: {_ink(rgb)} }}" for number, rgb in enumerate(COLOURS.values())
    )
    body = "\n".join(_article(record) for record in shown) + _rejections(rejected, most_rejected)
    page = _PAGE.format(
        title=html.escape(file.name),
        summary=html.escape(summary),
        colours=colours,
        body=body,
        sha256=file_sha256(file),
        script=_SCRIPT,
    )
    write_atomically(path, page)


def _ink(rgb: tuple[int, int, int]) -> str:
    """Black or white, whichever is easier to read on the colour."""
    return "#000" if 0.299 * rgb[0] + 0.587 * rgb[1] + 0.114 * rgb[2] > 110 else "#fff"


def _article(record: Shown) -> str:
    title = f"{html.escape(record.name)} &middot; {html.escape(record.video)}"
    lines = [f'<article data-position="{record.position}"><h2>{title} <button>reject</button></h2>']
    if record.problem is not None:
        lines.append(f'<p class="bad">{html.escape(record.problem)}</p>')
    figures = [
        f'<figure><img alt="frame {frame.number}" src="{frame.uri}"><figcaption>frame {frame.number}</figcaption></figure>'
        for frame in record.frames
    ]
    lines.append(f'<div class="frames">{"".join(figures)}</div>')
    lines += [f'<p><span class="role">{role}</span>{text}</p>' for role, text in record.texts]
    marks = " ".join(f'<mark class="i{n % len(COLOURS)}">{n}: {colour_of(n)}</mark>' for n in range(record.instances))
    lines.append(f'<p><span class="role">instances</span>{marks}</p></article>')
    return "\n".join(lines)


def _rejections(rejected: list[dict], most: int) -> str:
    if not rejected:
        return ""
    counts = Counter(entry["reason"] for entry in rejected).most_common()
    rows = "".join(f"<tr><td>{html.escape(reason)}</td><td>{count:,}</td></tr>" for reason, count in counts)
    entries = []
    for entry in rejected[:most]:
        name = f"{entry['file']}, record {entry['position']} ({entry['id']})"
        replies = "".join(f"<p>{html.escape(reply)}</p>" for reply in entry.get("replies", [])[-1:])
        reason = f'<p class="bad">{html.escape(entry["reason"])}: {html.escape(entry["message"])}</p>'
        entries.append(f"<article><h2>{html.escape(name)}</h2>{reason}{replies}</article>")
    return f"<h1>Rejected</h1><table><tr><th>reason</th><th>records</th></tr>{rows}</table>" + "".join(entries)
