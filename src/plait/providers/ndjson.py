"""Lines of JSON, read piece by piece: Ollama's streams.

Owns the framing only: bytes in, the lines of JSON out (https://github.com/ndjson/ndjson-spec). It knows nothing of
sockets, and of JSON just enough to judge a line that the end of the stream cut off.
"""

from __future__ import annotations

from plait.providers.lines import Lines, is_object


class LineReader(Lines, gc=False, eq=False):
    """Turns the bytes of one stream into its lines, however the bytes are cut; blank lines are skipped.

    A line keeps the CR of CR LF, which is white space to JSON.
    """

    def feed(self, part: bytes) -> list[bytes]:
        """Take in what one read gave; give the lines that are complete now."""
        lines = self._split(part)
        self.size = self._rest
        return [line for line in lines if line and not line.isspace()]

    def end(self) -> list[bytes]:
        """Give the last line, when the stream ended (cleanly) before the end of the line.

        It counts when it is provably whole: one JSON object, no beginning of which is itself one. Half a line is
        dropped.
        """
        return [line for line in self.feed(b"\n") if is_object(line)]
