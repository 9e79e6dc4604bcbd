"""Replies that were paid for, by the content of their question: none is paid for twice, whatever is killed."""

import sqlite3
import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path


@dataclass(frozen=True)
class Reply:
    """What a model answered.

    text: without thinking, outer white space kept.
    prompt_tokens, completion_tokens: as the server counted them, else estimated.
    cached: it had been paid for before.
    cut_off: it ended at max_tokens.
    """

    text: str
    prompt_tokens: int
    completion_tokens: int
    cached: bool = False
    cut_off: bool = False


class ReplyCache:
    """Replies in one SQLite file; a reply that was stored survives any kill. Raises ValueError for another file."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        try:
            self._database = sqlite3.connect(self.path, check_same_thread=False, timeout=60, isolation_level=None)
            self._database.execute("PRAGMA journal_mode=WAL")
            self._database.execute("PRAGMA synchronous=FULL")
            self._database.execute(
                "CREATE TABLE IF NOT EXISTS replies (key TEXT PRIMARY KEY, text TEXT NOT NULL, prompt_tokens INTEGER, "
                "completion_tokens INTEGER, model TEXT, created TEXT, cut_off INTEGER NOT NULL DEFAULT 0)"
            )
            columns = {row[1] for row in self._database.execute("PRAGMA table_info(replies)")}
            if "cut_off" not in columns:  # a cache of an earlier release
                self._database.execute("ALTER TABLE replies ADD COLUMN cut_off INTEGER NOT NULL DEFAULT 0")
        except sqlite3.DatabaseError as error:
            raise ValueError(f"{self.path}: not a cache of replies ({error}); move it away") from None

    def get(self, key: str) -> Reply | None:
        query = "SELECT text, prompt_tokens, completion_tokens, cut_off FROM replies WHERE key = ?"
        with self._lock:
            row = self._database.execute(query, (key,)).fetchone()
        if row is None:
            return None
        text, prompt_tokens, completion_tokens, cut_off = row
        return Reply(text, prompt_tokens, completion_tokens, cached=True, cut_off=bool(cut_off))

    def put(self, key: str, reply: Reply, model: str):
        counts = reply.prompt_tokens, reply.completion_tokens
        row = (key, reply.text, *counts, model, datetime.now(UTC).isoformat(), int(reply.cut_off))
        with self._lock:
            self._database.execute("INSERT OR REPLACE INTO replies VALUES (?, ?, ?, ?, ?, ?, ?)", row)
