"""The viewer in the browser: ask about a clip, click a word, see where it looks."""
