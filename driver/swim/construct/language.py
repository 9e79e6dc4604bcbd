"""Which language a text is in, as far as its letters and its small words tell, and what is a word in it."""

import re
import unicodedata
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache

# Thai, Japanese and Chinese put no space between words: each character counts as one.
_UNSPACED = "\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+")
_LEAST_LETTERS = 3  # fewer tell nothing about a text


@dataclass(frozen=True)
class Language:
    """What the checks know of one language.

    articles: words that may come, go or change beside a noun phrase.
    small_words: other words without content.
    noun_first: whether a noun precedes the adjectives that describe it.
    particles: mark the case right after a noun.
    """

    name: str
    articles: frozenset[str]
    small_words: frozenset[str]
    noun_first: bool = False
    particles: frozenset[str] = frozenset()

    @property
    def function_words(self) -> frozenset[str]:
        return self.articles | self.small_words | self.particles


def _language(name: str, articles: str, small_words: str, particles: str = "") -> Language:
    noun_first = name in ("French", "Spanish", "Italian", "Portuguese")
    words = [frozenset(words.split()) for words in (articles, small_words, particles)]
    return Language(name, words[0], words[1], noun_first, words[2])


LANGUAGES = (
    _language(
        "English",
        "a an the this that",
        "is are was were be been being has have had do does did of in on at to from by with without for and or but as it its "
        "he she they them his her their who whose which what where when how there near beside next behind under over above "
        "below between into onto through across along around inside outside toward towards while not",
    ),
    _language(
        "German",
        "der die das den dem des ein eine einen einem einer eines zum zur im am beim vom ans ins",
        "ist sind war waren wird werden hat haben und oder aber nicht mit ohne von zu in auf an aus bei nach neben vor "
        "hinter unter über zwischen durch um für wie was wer wo sich es er sie ihr sein auch noch",
    ),
    _language(
        "French",
        "le la les l un une des du de d au aux ce cet cette ces",
        "est sont était a ont et ou mais ne pas avec sans dans sur sous par pour en à qui que quoi où il elle ils se son sa "
        "ses près derrière devant entre vers fait quel quelle",
    ),
    _language(
        "Spanish",
        "el la los las un una unos unas al del de",
        "es son está están era y o pero no con sin en sobre bajo por para a qué que quién dónde cómo se su sus lo junto "
        "detrás delante entre hacia hace",
    ),
    _language(
        "Italian",
        "il lo la i gli le l un uno una del dello della dei degli delle al allo alla ai agli alle di nel nella",
        "è sono era e o ma non con senza in su sotto per da che chi cosa dove come si suo sua vicino dietro davanti tra fra",
    ),
    _language(
        "Portuguese",
        "o a os as um uma uns umas do da dos das ao à no na nos nas de",
        "é são está estão era e ou mas não com sem em sobre sob por para que quem onde como se seu sua ao lado atrás entre",
    ),
    _language(
        "Dutch",
        "de het een",
        "is zijn was waren wordt heeft en of maar niet met zonder van in op aan uit bij naar naast voor achter onder over "
        "tussen door om wat wie waar hoe zich hij zij ze",
    ),
    # Which particle it is depends on the noun's last sound.
    _language("Korean", "", "", "은 는 이 가 을 를 와 과 로 으로"),
)
NEGATIONS = frozenset("not no never none nicht kein keine nie ne pas jamais nunca non mai não niet geen nooit".split())
# What a verb becomes beside a noun in the plural ("the scissors are").
AGREEMENT = {"is": "are", "was": "were", "has": "have", "does": "do"}
AGREEMENT |= {plural: singular for singular, plural in AGREEMENT.items()}


def words_of(text: str) -> list[str]:
    """The words, casefolded; each Chinese, Japanese or Thai character is one."""
    return _WORD.findall(text.casefold())


def is_unspaced(word: str) -> bool:
    """Whether a word of `words_of` is a character of a script without spaces."""
    return re.fullmatch(rf"[{_UNSPACED}]", word) is not None


def guess_language(text: str) -> Language | None:
    """The language that has the most of the text's words as function words; None where none or two have."""
    counts = Counter(words_of(text))
    hits = [(sum(counts[word] for word in language.function_words), language) for language in LANGUAGES]
    hits.sort(key=lambda hit: -hit[0])
    return hits[0][1] if hits[0][0] > hits[1][0] else None


def changed_language(before: str, after: str) -> str | None:
    """How `after` is in another language than `before`, in words; None where it is the same or cannot be told."""
    scripts = _scripts(before), _scripts(after)
    if all(scripts) and scripts[0].most_common(1)[0][0] != scripts[1].most_common(1)[0][0]:
        return f"{scripts[1].most_common(1)[0][0].lower()} letters instead of {scripts[0].most_common(1)[0][0].lower()} ones"
    spoken, found = guess_language(before), guess_language(after)
    if spoken is not None and found is not None and found is not spoken:
        return f"{found.name} instead of {spoken.name}"
    return None


def foreign_letters(phrase: str, conversation: str) -> list[str]:
    """Words of a phrase in letters that the conversation does not use."""
    known = set(_letters(conversation))
    return [word for word in words_of(phrase) if (found := set(_letters(word))) and known and not found & known]


def foreign_words(words: str, conversation: str) -> list[str]:
    """Function words of other languages, where they outnumber those of the conversation's own language.

    Example: ["der"] for "der" in an English conversation, [] for "in the hat", though "hat" is German for "has".
    """
    language, present = guess_language(conversation), set(words_of(conversation))
    if language is None:
        return []
    found = words_of(words)
    own = [word for word in found if word in language.function_words or word in present]
    others = [w for w in found if w not in own and any(w in other.function_words for other in LANGUAGES)]
    return others if len(others) > len(own) else []


def _scripts(text: str) -> Counter:
    """Letters by script, such as LATIN or CJK; empty for fewer than `_LEAST_LETTERS` where a letter is no word."""
    letters = _letters(text)
    return letters if letters.total() >= _LEAST_LETTERS or any(map(is_unspaced, words_of(text))) else Counter()


def _letters(text: str) -> Counter:
    return Counter(_script(character) for character in text if character.isalpha())


@lru_cache(maxsize=4096)
def _script(letter: str) -> str:
    """Japanese counts as one script with Chinese."""
    name = unicodedata.name(letter, "UNKNOWN").split()[0]
    return "CJK" if name in ("HIRAGANA", "KATAKANA", "CJK") else name
