"""What is looked up once, when it is first asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar, overload

from declai.contributor.doctor.finding import Unknown

T = TypeVar("T")


class Facts:
    """Owner of facts. `found` has what was looked up so far, or why it cannot be known."""

    def __init__(self) -> None:
        self.found: dict[str, tuple[Any] | Unknown] = {}


class fact(Generic[T]):
    """A property that is found once; what goes wrong is remembered and raised as Unknown each time.

    So is that it is still being looked for: by a check that was given up, whose time the next ones need not lose, too.
    """

    def __init__(self, find: Callable[[Any], T]) -> None:
        self._find = find
        self.__doc__ = find.__doc__

    @overload
    def __get__(self, facts: None, owner: type[Facts]) -> fact[T]: ...
    @overload
    def __get__(self, facts: Facts, owner: type[Facts]) -> T: ...
    def __get__(self, facts: Facts | None, owner: type[Facts]) -> T | fact[T]:
        if facts is None:
            return self
        name = self._find.__name__
        found = facts.found.get(name)
        if found is None:
            facts.found[name] = Unknown(f"{name.replace('_', ' ')}: no answer yet")
            found = facts.found[name] = self._look(facts)
        if isinstance(found, Unknown):
            raise found
        value: T = found[0]
        return value

    def _look(self, facts: Facts) -> tuple[T] | Unknown:
        try:
            return (self._find(facts),)
        except Unknown as error:
            return error
        except Exception as error:
            unknown = Unknown(str(error) or type(error).__name__)
            unknown.__cause__ = error
            return unknown
