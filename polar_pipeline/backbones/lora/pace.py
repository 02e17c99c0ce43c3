"""How fast a training goes, and when it is time to say so or to save. What does not belong here: what is said and saved."""

import time

_SAY_SECONDS = 5.0


class Pace:
    """Tokens a second, and the time left."""

    def __init__(self, tokens: list[int]) -> None:
        self._ahead = sum(tokens)
        self._tokens, self._done = tokens, 0
        self._started = self._said = self._saved = time.monotonic()

    def skip(self, position: int) -> None:
        """So many steps were made before."""
        self._ahead -= sum(self._tokens[:position])

    def done(self, number: int) -> None:
        """Count step `number`."""
        self._done += self._tokens[number]
        self._ahead -= self._tokens[number]

    @property
    def rate(self) -> float:
        """Real tokens a second, padding not counted."""
        return self._done / max(time.monotonic() - self._started, 1e-9)

    def due(self) -> bool:
        """Whether it is time to say something."""
        now = time.monotonic()
        if now - self._said < _SAY_SECONDS:
            return False
        self._said = now
        return True

    def checkpoint_due(self, seconds: float) -> bool:
        """Whether it is time to save."""
        now = time.monotonic()
        if now - self._saved < seconds:
            return False
        self._saved = now
        return True

    def __str__(self) -> str:
        """The rate, and the time left."""
        left = f", about {self._ahead / self.rate:.0f} s left" if self._ahead and self.rate else ""
        return f"{self.rate:,.0f} tokens/s{left}"
