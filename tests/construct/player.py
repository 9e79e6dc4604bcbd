"""What plays the rewriting model in the tests: it reads the question and rewrites by rule, well or badly."""

import json
import re

NOUNS = ("dog", "laptop", "cat", "horse", "table", "bird")
SYNONYMS = ("canine", "notebook", "feline", "pony", "desk", "fowl")


def asked_texts(request: dict) -> list[dict]:
    """The texts of the record that a request is about."""
    content = request["messages"][1]["content"]
    text = content if isinstance(content, str) else content[-1]["text"]
    return json.loads(text[text.index('[{"text"') :])


def rewrite(content: str, nouns=NOUNS) -> str:
    """Every placeholder as "the <ins>noun</ins>", with one article and a capital at the start."""

    def phrase(match: re.Match) -> str:
        has_article = re.search(r"\b(the|a)\s*$", content[: match.start()], re.IGNORECASE)
        article = "" if has_article else "the " if content[: match.start()].strip() else "The "
        return f"{article}<ins>{nouns[int(match.group(1))]}</ins>"

    return re.sub(r"<object(\d+)>", phrase, content)


def reply_to(request: dict, nouns=NOUNS, synonyms=SYNONYMS) -> dict:
    """A reply that passes every check."""
    texts = [entry for entry in asked_texts(request) if entry["rewrite"]]
    numbers = sorted({int(n) for entry in texts for n in re.findall(r"<object(\d+)>", entry["content"])})
    wants_synonyms = "synonym" in json.dumps(request["response_format"])
    reply = {
        "objects": [{"object": n, "noun": nouns[n]} for n in numbers],
        "texts": [{"text": entry["text"], "rewritten": rewrite(entry["content"], nouns)} for entry in texts],
    }
    if wants_synonyms:
        for entry in reply["objects"]:
            entry["synonym"] = synonyms[entry["object"]]
        for entry, text in zip(reply["texts"], texts):
            entry["with_synonyms"] = rewrite(text["content"], synonyms)
    return reply


def play(request: dict) -> str:
    return json.dumps(reply_to(request))


def edited(change) -> "callable":
    """A player whose every rewritten text goes through `change(text)`."""

    def play_edited(request: dict) -> str:
        reply = reply_to(request)
        for entry in reply["texts"]:
            entry["rewritten"] = change(entry["rewritten"])
        return json.dumps(reply, ensure_ascii=False)

    return play_edited
