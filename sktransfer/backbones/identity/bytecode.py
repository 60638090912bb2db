"""What compiled code reads by name: globals, attributes of modules, imports; and what it only writes."""

from __future__ import annotations

import dis
import functools
import itertools
import types
from collections.abc import Iterator
from dataclasses import dataclass

_GLOBAL_LOADS = ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS")
_CELL_LOADS = ("LOAD_DEREF", "LOAD_CLASSDEREF", "LOAD_FROM_DICT_OR_DEREF")
_ATTRIBUTE_LOADS = ("LOAD_ATTR", "LOAD_METHOD")
_IDLE = ("CACHE", "PRECALL", "PUSH_NULL", "EXTENDED_ARG", "NOP", "RESUME", "NOT_TAKEN")
_MUTATORS = {"append", "extend", "add", "update", "insert"}

# A way from a name: the attributes that are read one after the other. Empty where the value itself is used.
Chain = tuple[str, ...]


@dataclass(frozen=True)
class Import:
    """One import statement inside a function.

    Attributes
    ----------
    module : str
        The module as it is written.
    level : int
        Number of leading dots.
    attribute : str or None
        What is taken out of it; None for the module itself.
    whole : bool
        Whether a dotted name stands for its first part, as in ``import a.b``.
    chains : frozenset of tuple of str
        What is read of the value.
    """

    module: str
    level: int
    attribute: str | None
    whole: bool
    chains: frozenset[Chain]


@dataclass(frozen=True)
class Reads:
    """What a function and the functions inside it read.

    Attributes
    ----------
    names : dict of str to frozenset of tuple of str
        Global and captured names, with what is read of each.
    global_names : frozenset of str
        Those that are looked up as globals.
    imports : tuple of Import
        Import statements.
    attributes : frozenset of str
        Names of all attributes that are read, of whatever object.
    counted : frozenset of str
        Names of attributes that are counted on, as in ``self.calls += 1``, or appended to, and not read otherwise.
    """

    names: dict[str, frozenset[Chain]]
    global_names: frozenset[str]
    imports: tuple[Import, ...]
    attributes: frozenset[str]
    counted: frozenset[str]


@functools.lru_cache(maxsize=4096)
def reads_of(code: types.CodeType) -> Reads:
    """Return what code reads."""
    everything = code_in(code)
    names: dict[str, set[Chain]] = {}
    global_names: set[str] = set()
    attributes: set[str] = set()
    for one in everything:
        steps = _steps(one)
        for i, step in enumerate(steps):
            if step.opname in _GLOBAL_LOADS or step.opname in _CELL_LOADS:
                names.setdefault(step.argval, set()).add(_chain(steps, i))
            if step.opname in _GLOBAL_LOADS:
                global_names.add(step.argval)
            if step.opname in _ATTRIBUTE_LOADS or "SUPER" in step.opname:
                attributes.add(str(step.argval))
    imports = [found for one in everything for found in _imports(one, everything)]
    return Reads(
        {name: frozenset(chains) for name, chains in names.items()},
        frozenset(global_names),
        tuple(imports),
        frozenset(attributes),
        frozenset(_counted(everything)),
    )


def code_in(code: types.CodeType) -> list[types.CodeType]:
    """Return the code and that of the functions inside it."""
    inner = [constant for constant in code.co_consts if isinstance(constant, types.CodeType)]
    return [code, *itertools.chain.from_iterable(map(code_in, inner))]


def _steps(code: types.CodeType) -> list[dis.Instruction]:
    return [step for step in dis.get_instructions(code) if step.opname not in _IDLE]


def _chain(steps: list[dis.Instruction], i: int) -> Chain:
    """Return the attributes that are read of what step `i` has loaded."""
    i += 1
    # module.count += 1 keeps the module for the assignment at the end.
    if i + 1 < len(steps) and steps[i].opname == "COPY" and steps[i + 1].opname in _ATTRIBUTE_LOADS:
        i += 1
    found = []
    while i < len(steps) and steps[i].opname in _ATTRIBUTE_LOADS:
        found.append(str(steps[i].argval))
        i += 1
    if not found and i < len(steps) and steps[i].opname == "STORE_ATTR":
        return (str(steps[i].argval),)
    return tuple(found)


def _imports(code: types.CodeType, everything: list[types.CodeType]) -> Iterator[Import]:
    steps = _steps(code)
    for i, step in enumerate(steps):
        if step.opname != "IMPORT_NAME":
            continue
        taken, level = steps[i - 1].argval, steps[i - 2].argval
        level = level if isinstance(level, int) else 0
        rest = steps[i + 1 :]
        if not taken:
            # `import a.b as c` goes down from a to b first.
            renamed = bool(rest) and rest[0].opname == "IMPORT_FROM"
            store = next((later for later in rest if later.opname.startswith("STORE_")), None)
            yield Import(step.argval, level, None, not renamed, _uses_of(store, everything))
            continue
        for j, later in enumerate(rest):
            if later.opname == "IMPORT_FROM":
                store = rest[j + 1] if j + 1 < len(rest) else None
                yield Import(step.argval, level, later.argval, False, _uses_of(store, everything))
            elif not later.opname.startswith("STORE_"):
                break


def _uses_of(store: dis.Instruction | None, everything: list[types.CodeType]) -> frozenset[Chain]:
    """Return what is read of the variable that an import is stored in."""
    if store is None or not store.opname.startswith("STORE_"):
        return frozenset([()])
    name = store.argval[0] if isinstance(store.argval, tuple) else store.argval
    found: set[Chain] = set()
    for one in everything:
        steps = _steps(one)
        for i, step in enumerate(steps):
            if "LOAD" not in step.opname or step.opname in _ATTRIBUTE_LOADS or step.opname == "LOAD_CONST":
                continue
            loaded = step.argval if isinstance(step.argval, tuple) else (step.argval,)
            if name in loaded:
                # Of two that are loaded by one step, what follows belongs to the last.
                found.add(_chain(steps, i) if loaded[-1] == name else ())
    return frozenset(found)


def _counted(everything: list[types.CodeType]) -> set[str]:
    counted: set[str] = set()
    read: set[str] = set()
    for one in everything:
        steps = _steps(one)
        for i, step in enumerate(steps):
            if step.opname == "STORE_ATTR" and i > 1 and _in_place(steps[i - 2]) and steps[i - 1].opname == "SWAP":
                counted.add(step.argval)
            elif step.opname in _ATTRIBUTE_LOADS and _mutates(steps, i + 1):
                counted.add(step.argval)
            elif step.opname in _ATTRIBUTE_LOADS and (i == 0 or steps[i - 1].opname != "COPY"):
                read.add(step.argval)
    return counted - read


def _mutates(steps: list[dis.Instruction], i: int) -> bool:
    return i < len(steps) and steps[i].opname in _ATTRIBUTE_LOADS and steps[i].argval in _MUTATORS


def _in_place(step: dis.Instruction) -> bool:
    return step.opname == "BINARY_OP" and step.argrepr.endswith("=")


def is_record(name: str, code: types.CodeType, *, container: bool) -> bool:
    """Whether code only ever writes to a name it reaches, as to a list of calls or a counter.

    Parameters
    ----------
    name : str
        The name.
    code : code object
        The function's code.
    container : bool
        Whether the value is one that can be written to.
    """
    uses = [use for one in code_in(code) for use in _uses(name, one, container)]
    return bool(uses) and all(uses)


def _uses(name: str, code: types.CodeType, container: bool) -> list[bool]:
    """For each use of a name in code, whether it is a writing one."""
    steps = _steps(code)
    counted = sum(_in_place(before) and _stores(step, name) for before, step in itertools.pairwise(steps))
    loads = [i for i, s in enumerate(steps) if s.argval == name and s.opname in _GLOBAL_LOADS + _CELL_LOADS]
    found = []
    for i in loads:
        following = [later.opname for later in steps[i + 1 : i + 4]]
        mutated = _mutates(steps, i + 1)
        # name[key] = value ends with the store; name[key] += value first copies name and key.
        stored = following[1:2] == ["STORE_SUBSCR"] or following[1:3] == ["COPY", "COPY"]
        # total += 1 reads total once, and nothing else does.
        found.append(counted == len(loads) or (container and (mutated or stored)))
    return found


def _stores(step: dis.Instruction, name: str) -> bool:
    return step.opname in ("STORE_DEREF", "STORE_GLOBAL") and step.argval == name
