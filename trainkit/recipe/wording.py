"""Rewords the messages of validators in the form of all other mistakes: "must be at least 1, got 0"."""

from __future__ import annotations

import re

import attrs

from trainkit.recipe.fields import display_value

_COMPARED = {">=": "at least", ">": "above", "<=": "at most", "<": "below"}
_COMPARISON = re.compile(r"(?P<length>Length of .* )?must be (?P<how>[<>]=?) (?P<bound>\S+): (?P<given>.*)", re.DOTALL)


def exception_text(error: Exception) -> str:
    """Return the message of an exception, or the name of its type if it has no message."""
    return str(error.args[0]) if error.args else type(error).__name__


def reword_validator(error: Exception, field: attrs.Attribute[object]) -> str:
    """Return the message of a field's validator, without the name of the field.

    Args:
        error: The exception that the validator raised. The messages of attrs' own validators are reworded.
        field: The field.

    Example:
        >>> field = attrs.fields(attrs.make_class("C", {"x": attrs.field()})).x
        >>> reword_validator(ValueError("'x' must be >= 1: 0"), field)
        'must be at least 1, got 0'
    """
    text = exception_text(error)
    for name in (f"{field.name} ", f"'{field.name}' "):
        text = text.removeprefix(name)
    if compared := _COMPARISON.fullmatch(text):
        bound = f"{_COMPARED[compared['how']]} {compared['bound']}, got {compared['given']}"
        return f"must have a length of {bound}" if compared["length"] else f"must be {bound}"
    if len(error.args) == 4:  # attrs' validators give text, field, what is allowed, and the value
        _, _, allowed, value = error.args
        if text.startswith("must be in "):
            return f"must be one of {', '.join(map(display_value, allowed))}, got {display_value(value)}"
        if text.startswith("must match regex "):
            return f"must match the pattern {allowed.pattern}, got {display_value(value)}"
    return text
