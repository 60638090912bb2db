"""Suggestions for misspelt names."""

import difflib
from collections.abc import Iterable


def did_you_mean(name: str, known: Iterable[str], *, most: int = 3) -> str:
    """Return " Did you mean 'a' or 'b'?", or an empty string where nothing is near.

    Parameters
    ----------
    name : str
        What was given.
    known : iterable of str
        The valid names.
    most : int, default=3
        How many names to suggest at most.

    Returns
    -------
    str
        A sentence with a leading blank, to be put behind an error message.
    """
    by_folded = {candidate.lower(): candidate for candidate in known}
    near = difflib.get_close_matches(name.lower(), by_folded, n=most, cutoff=0.6)
    if not near:
        return ""
    return f" Did you mean {' or '.join(repr(by_folded[folded]) for folded in near)}?"
