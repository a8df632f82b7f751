"""Which values have been seen before, among more than fit into memory."""

import hashlib
import sqlite3


class FirstSeen:
    """Remembers who had a value first, in a temporary file on the disk.

    Millions of ids and content hashes would not fit into memory; SQLite keeps the
    better part of them in a file of its own and removes it in the end.

    >>> seen = FirstSeen()
    >>> seen.earlier("3f2a", "clip_1"), seen.earlier("3f2a", "clip_2")
    (None, 'clip_1')
    """

    def __init__(self):
        self._db = sqlite3.connect("", isolation_level=None)
        for setting in ("journal_mode=OFF", "synchronous=OFF", "cache_size=-16384"):
            self._db.execute(f"PRAGMA {setting}")
        self._db.execute(
            "CREATE TABLE seen (value BLOB PRIMARY KEY, who TEXT) WITHOUT ROWID"
        )
        self._db.execute("BEGIN")

    def earlier(self, value: str, who: str) -> str | None:
        """Who had this value first, or None if it is `who`; then it is remembered."""
        key = hashlib.blake2b(value.encode("utf-8", "surrogateescape"), digest_size=16)
        row = (key.digest(), who.encode("utf-8", "backslashreplace").decode())
        added = self._db.execute("INSERT OR IGNORE INTO seen VALUES (?, ?)", row)
        if added.rowcount:
            return None
        found = self._db.execute("SELECT who FROM seen WHERE value = ?", row[:1])
        return found.fetchone()[0]

    def close(self):
        """Removes the file."""
        self._db.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
