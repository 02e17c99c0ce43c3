"""The number in flight halves when refused, grows slowly, and is never more than the endpoint says is left."""

import asyncio
import time

from polar_pipeline.synthesis.flight import Flight


def test_refusals_of_one_burst_halve_it_once_and_answers_raise_it_slowly() -> None:
    flight = Flight(32)
    sent = time.monotonic()
    for _ in range(20):
        flight.refused(sent)
    assert flight.allowed == 16
    for _ in range(5):
        flight.refused(time.monotonic())
    assert flight.allowed == 1
    for _ in range(3):
        flight.answered()
    assert flight.allowed == 2
    flight.refused(time.monotonic())
    assert flight.allowed == 1
    for _ in range(2000):
        flight.answered()
    assert flight.allowed == 32


def test_a_refusal_now_and_then_cuts_nothing_and_one_in_five_does() -> None:
    flight = Flight(128)
    for call in range(2000):
        flight.refused(time.monotonic()) if call % 50 == 49 else flight.answered()
    assert flight.allowed == 128
    for call in range(1000):
        flight.refused(time.monotonic()) if call % 5 == 4 else flight.answered()
    assert flight.allowed < 20


def test_what_is_left_bounds_it_until_more_is_left() -> None:
    flight = Flight(32)
    flight.left(3.0)
    assert flight.allowed == 3
    flight.left(float("inf"))  # an answer that does not say
    assert flight.allowed == 3
    flight.left(0.0)
    assert flight.allowed == 1
    flight.left(500.0)
    assert flight.allowed == 32


def test_no_more_are_in_it_than_allowed() -> None:
    async def fly() -> int:
        flight, inside, most = Flight(8), 0, 0
        flight.left(3.0)

        async def one() -> None:
            nonlocal inside, most
            async with flight:
                inside += 1
                most = max(most, inside)
                await asyncio.sleep(0.001)
                inside -= 1

        await asyncio.gather(*(one() for _ in range(40)))
        return most

    assert asyncio.run(asyncio.wait_for(fly(), 10)) == 3
