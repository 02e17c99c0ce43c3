"""Patience: whether a call that failed is worth another one, and how long to wait before it.

A refusal that names a wait is no failure: a slow endpoint says in this way that it is well. Other waits double, with jitter, so that calls
that were refused together do not come back together (Brooker 2015).
"""

import asyncio
import random
import time

from polar_pipeline.settings.synthesis import SynthesisSettings
from polar_pipeline.synthesis.client import Attempt

_FIRST_WAIT, _LONGEST_WAIT = 0.5, 60.0  # seconds of the backoff
_SILENCE = 10  # time-outs without an answer to anyone, after which refusals that name a wait are no longer waited for
_RANDOM = random.Random()  # jitter, which should differ from process to process


class Patience:
    """Of one request, or of anything else that is asked for until it is there."""

    def __init__(self, settings: SynthesisSettings) -> None:
        self._settings = settings
        self._began, self._failures, self._backoff = time.monotonic(), 0, _FIRST_WAIT

    async def lasts(self, attempt: Attempt, answered: float = 0.0) -> bool:
        """Wait, and say True, where another call is worth it after `attempt`.

        `answered` is when anyone was last answered, in seconds of the monotonic clock.
        """
        self._failures += not attempt.wait
        if not attempt.again or self._failures >= self._settings.attempts or self._too_long(attempt.wait, answered):
            return False
        if attempt.wait:
            await asyncio.sleep(attempt.wait)
        elif not attempt.reply:  # an answer that cannot be read is asked for again at once
            await asyncio.sleep(self._backoff * (0.5 + _RANDOM.random() / 2))
            self._backoff = min(2 * self._backoff, _LONGEST_WAIT)
        return True

    def _too_long(self, wait: float, answered: float) -> bool:
        since = max(self._began, answered)
        return wait > 0 and time.monotonic() + wait - since > _SILENCE * self._settings.timeout
