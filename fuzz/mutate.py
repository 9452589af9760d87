"""Seeds from the corpus, and what a few random operations make of them."""

from __future__ import annotations

from pathlib import Path
from random import Random

CORPUS = Path(__file__).parent / "corpus"
MOST = 8  # operations on one seed
LONGEST = 16 << 10  # bytes of a mutation


def seeds(name: str) -> list[bytes]:
    """The files of one folder of the corpus, in order."""
    return [path.read_bytes() for path in sorted((CORPUS / name).iterdir())]


def mutated(random: Random, known: list[bytes], words: tuple[bytes, ...]) -> bytes:
    """One of the seeds after a few operations; half of all get only one or two."""
    data = random.choice(known)
    for _ in range(random.choice((0, 1, 1, 1, 2, 2, 3, MOST))):
        start, end = sorted((random.randint(0, len(data)), random.randint(0, len(data))))
        end = min(end, start + random.choice((1, 1, 2, 8, 64)))
        match random.randrange(7):
            case 0 | 1:
                data = data[:start] + random.choice(words) + data[start:]
            case 2:
                data = data[:start] + random.choice(words) + data[end:]
            case 3:
                data = data[:start] + data[end:]
            case 4:
                data = data[:end] + data[start:]  # a part twice
            case 5:
                data = data[:start] + random.randbytes(end - start) + data[end:]
            case _:
                other = random.choice(known)
                data = data[:start] + other[random.randint(0, len(other)) :]
    return data[:LONGEST]
