"""Look up objects by name: built-in, registered at run time, or from plug-ins.

    ROUTINGS: Registry[Factory] = Registry("routing", "capsnet.routings", needs=("route",))

    @ROUTINGS.register("mean")
    class Mean: ...

    ROUTINGS.get("mean")

A package installs a plug-in with an entry point in its pyproject.toml. The entry point has the name that its module
registers. The module is imported when that name is looked up, so a broken plug-in affects no other name:

    [project.entry-points."capsnet.routings"]
    mean = "my_package.mean"
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeVar, cast

from capsnet._support.errors import CapsnetError, did_you_mean, shown

T = TypeVar("T")
S = TypeVar("S")


class Registry(Generic[T]):
    """Objects of one kind, by name.

    Args:
        kind: the word for such an object in messages: "routing", "model".
        group: the group of the entry points: "capsnet.routings".
        needs: attributes that every object must have, as its protocol requires.
        builtin: name → the module that registers it on import. Modules that are always imported need no entry.
    """

    def __init__(
        self, kind: str, group: str, *, needs: Sequence[str] = (), builtin: Mapping[str, str] | None = None
    ) -> None:
        self.kind, self.group, self.needs = kind, group, tuple(needs)
        self._builtin = dict(builtin or {})
        self._things: dict[str, T] = {}

    def register(self, name: str) -> Callable[[S], S]:
        """Register the decorated class, function or value under this name.

        It is returned unchanged. When a module runs again, as in a notebook, its old definition is replaced.

        Raises:
            CapsnetError: the name is taken or malformed, or a required attribute is missing.
        """
        if not isinstance(name, str) or not re.fullmatch(r"[a-z0-9][a-z0-9_.-]*", name):
            raise CapsnetError(
                f"{self.kind} name {shown(str(name))!r} must be lower-case letters, digits, '-', '_' and '.', "
                'as in @register("my-name")'
            )

        def add(thing: S) -> S:
            missing = [attribute for attribute in self.needs if not hasattr(thing, attribute)]
            if missing:
                raise CapsnetError(
                    f"{self.kind} {name!r} ({_origin(thing)}) lacks {', '.join(missing)}; add what is missing"
                )
            known = self._things.get(name, thing)
            if known is not thing and not _is_same_definition(known, thing):
                raise CapsnetError(
                    f"{self.kind} name {name!r} is taken by {_origin(known)}; "
                    f"register {_origin(thing)} under another name"
                )
            self._things[name] = cast(T, thing)
            return thing

        return add

    def get(self, name: str) -> T:
        """Return the object with this name; import its module or plug-in if needed.

        Raises:
            CapsnetError: the name is unknown, or its plug-in cannot be used.
        """
        if name in self._builtin:
            import_module(self._builtin[name])
        for plugin in self._plugins.get(name, ()):
            self._load(plugin)
        if name not in self._things:
            known = self.names()
            raise CapsnetError(
                f"there is no {self.kind} {shown(str(name))!r}; choose one of {', '.join(known)}"
                f"{did_you_mean(str(name), known)}"
            )
        return self._things[name]

    def name_of(self, thing: object) -> str | None:
        """Return the name of an object that is registered by now, else None."""
        return next((name for name, known in self._things.items() if known is thing), None)

    def names(self) -> list[str]:
        """Return the names that `get` accepts: built-in, registered, then plug-ins.

        Imports nothing.
        """
        return list(dict.fromkeys((*self._builtin, *self._things, *self._plugins)))

    @cached_property
    def _plugins(self) -> dict[str, list[EntryPoint]]:
        found: dict[str, list[EntryPoint]] = {}
        for plugin in entry_points(group=self.group):
            if plugin not in found.setdefault(plugin.name, []):  # a package may be on the path twice
                found[plugin.name].append(plugin)
        return found

    def _load(self, plugin: EntryPoint) -> None:
        """Import a plug-in, which registers its name. Errors name the plug-in."""
        package = f", package {plugin.dist.name}" if plugin.dist else ""
        who = f"plug-in {shown(plugin.name)!r} ({shown(plugin.value)}{package})"
        try:
            plugin.load()
        except CapsnetError as error:
            raise CapsnetError(f"{who}: {error}") from error
        except Exception as error:
            what = " ".join(str(error).split())
            raise CapsnetError(
                f"{who} cannot be imported: {type(error).__name__}: {shown(what)}; repair or uninstall it"
            ) from error
        if plugin.name not in self._things:
            raise CapsnetError(
                f"{who} does not register {shown(plugin.name)!r}; "
                f"the entry point and @register(...) must have the same name"
            )


def _origin(thing: Any) -> str:
    """Return where an object is defined: module and name."""
    kind = thing if hasattr(thing, "__qualname__") else type(thing)
    return f"{kind.__module__}.{kind.__qualname__}"


def _is_same_definition(one: Any, other: Any) -> bool:
    """Return whether two classes or functions are one definition that ran twice."""
    return hasattr(one, "__qualname__") and hasattr(other, "__qualname__") and _origin(one) == _origin(other)
