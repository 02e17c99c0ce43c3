"""Blocks: which languages' batches are padded to one shape and computed together.

Languages lie side by side in the order of their mean length. A block costs what its largest shape holds for each language in
it, and a call; a language with much longer posts than the others gets a block of its own.
"""

Shape = tuple[int, int]  # rows, longest row

_CALL = (
    256  # tokens that could be computed while the layers of one block are called: so much padding is worth a call less
)


def blocks(shapes: list[Shape]) -> list[range]:
    """Neighbours to compute together, at the least cost; (0, 0) is a language without a batch, and in no block's way."""
    best: list[tuple[int, list[range]]] = [(0, [])]
    for end in range(1, len(shapes) + 1):
        options = []
        for start in range(end):
            cost, before = best[start]
            added = _cost(shapes[start:end])
            options.append((cost + added, [*before, range(start, end)] if added else before))
        best.append(min(options, key=lambda option: option[0]))
    return best[-1][1]


def _cost(shapes: list[Shape]) -> int:
    tokens = len(shapes) * max(rows for rows, _ in shapes) * max(length for _, length in shapes)
    return tokens + _CALL if tokens else 0
