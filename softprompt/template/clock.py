"""A clock that stands still, for chat templates that read one: a prompt is the same on all days."""

from __future__ import annotations

from datetime import date

_NAME = "strftime_now"  # what transformers gives chat templates to read the time with
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_MONTHS = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)


def stopped(template: str, day: str) -> str:
    """A chat template that sees the midnight of this day (`2024-07-26`), whatever the time and the locale."""
    if _NAME not in template:
        return template
    changes = "".join(f"|replace('{sign}', '{text}')" for sign, text in _signs(date.fromisoformat(day)).items())
    return f"{{%- macro {_NAME}(format) -%}}{{{{- format{changes} -}}}}{{%- endmacro -%}}{template}"


def _signs(day: date) -> dict[str, str]:
    """`strftime`'s signs; those that are made of others first."""
    name, month, number = _DAYS[day.weekday()], _MONTHS[day.month - 1], day.timetuple().tm_yday
    return {
        "%c": "%a %b %e %H:%M:%S %Y",
        "%x": "%m/%d/%y",
        "%D": "%m/%d/%y",
        "%F": "%Y-%m-%d",
        "%X": "%H:%M:%S",
        "%T": "%H:%M:%S",
        "%R": "%H:%M",
        "%r": "%I:%M:%S %p",
        "%A": name,
        "%a": name[:3],
        "%B": month,
        "%b": month[:3],
        "%h": month[:3],
        "%d": f"{day.day:02}",
        "%-d": str(day.day),
        "%e": f"{day.day:2}",
        "%m": f"{day.month:02}",
        "%-m": str(day.month),
        "%Y": f"{day.year:04}",
        "%G": f"{day.isocalendar()[0]:04}",
        "%C": f"{day.year // 100:02}",
        "%y": f"{day.year % 100:02}",
        "%j": f"{number:03}",
        "%V": f"{day.isocalendar()[1]:02}",
        "%U": f"{(number + 6 - day.isoweekday() % 7) // 7:02}",
        "%W": f"{(number + 6 - day.weekday()) // 7:02}",
        "%u": str(day.isoweekday()),
        "%w": str(day.isoweekday() % 7),
        "%H": "00",
        "%-H": "0",
        "%I": "12",
        "%-I": "12",
        "%M": "00",
        "%-M": "0",
        "%S": "00",
        "%-S": "0",
        "%f": "000000",
        "%p": "AM",
        "%P": "am",
        "%Z": "UTC",
        "%z": "+0000",
        "%%": "%",
    }
