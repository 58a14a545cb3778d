"""What the voter's page says, in every language that it speaks. A language is a column: add one, and it is served."""

from __future__ import annotations

from collections.abc import Mapping

from finepref.core.errors import check_word

FALLBACK = "en"
"""The language of a reader who asks for none that there is."""

_ROWS: dict[str, tuple[str, str]] = {
    # name: (English, German). {n} and the like are filled in by the page.
    "title": ("Compare pictures", "Bilder vergleichen"),
    "noscript": ("Switch scripts on to vote.", "Zum Abstimmen müssen Skripte eingeschaltet sein."),
    # The set that is shown
    "progress": ("{done} of {of}", "{done} von {of}"),
    "progress_open": ("{done} done", "{done} erledigt"),
    "none": ("There is nothing to compare now", "Gerade gibt es nichts zu vergleichen"),
    "no_prompt": ("(empty prompt)", "(leerer Prompt)"),
    "how_pair": (
        "Choose the better picture, or say that they are equal.",
        "Das bessere Bild wählen, oder sagen, dass beide gleich sind.",
    ),
    "how_rank": (
        "Choose the pictures one after the other, the best first.",
        "Die Bilder nacheinander wählen, das beste zuerst.",
    ),
    "how_best": ("Choose the best picture.", "Das beste Bild wählen."),
    "loading": ("The pictures are loading …", "Die Bilder werden geladen …"),
    "load_failed": (
        "The pictures do not load. They are tried again by themselves; the set can be skipped.",
        "Die Bilder lassen sich nicht laden. Es wird weiter versucht; die Aufgabe kann ausgelassen werden.",
    ),
    "saving": ("The answer is being saved …", "Die Antwort wird gespeichert …"),
    "no_entry": ("This link does not open the page", "Dieser Link öffnet die Seite nicht"),
    # Answers
    "left": ("Left", "Links"),
    "right": ("Right", "Rechts"),
    "upper": ("Upper", "Oben"),
    "lower": ("Lower", "Unten"),
    "tie": ("Equal", "Gleich"),
    "both_bad": ("Both bad", "Beide schlecht"),
    "skip": ("Skip", "Auslassen"),
    "left_picture": ("left picture", "linkes Bild"),
    "right_picture": ("right picture", "rechtes Bild"),
    "upper_picture": ("upper picture", "oberes Bild"),
    "lower_picture": ("lower picture", "unteres Bild"),
    "picture": ("picture {n}", "Bild {n}"),
    "place": ("place {n}", "Platz {n}"),
    "placed": ("place {n}", "Platz {n}"),
    "unplaced": ("no place yet", "noch ohne Platz"),
    "first": ("best:", "beste:"),
    "tie_of": ("Pictures {one} and {other} are equal", "Bilder {one} und {other} sind gleich"),
    # Buttons
    "undo": ("Undo", "Zurück"),
    "undo_none": ("There is nothing to take back.", "Es gibt nichts zurückzunehmen."),
    "undo_offline": (
        "Without a connection the last answer cannot be taken back.",
        "Ohne Verbindung lässt sich die letzte Antwort nicht zurücknehmen.",
    ),
    "zoom": ("Zoom", "Lupe"),
    "submit": ("Next", "Weiter"),
    "key_space": ("Space", "Leertaste"),
    "pause": ("Pause", "Pause"),
    "go_on": ("Go on", "Weiter"),
    "again": ("Try again", "Erneut versuchen"),
    "undo_last": ("Change the last answer", "Letzte Antwort ändern"),
    # Screens in place of a set
    "rest_title": ("A break", "Pause"),
    "rest_text": (
        "The pictures are hidden and the clock stands still. Every answer so far is kept.",
        "Die Bilder sind verdeckt, die Uhr steht. Alle bisherigen Antworten sind aufgehoben.",
    ),
    "paused_title": ("The study is paused", "Die Studie ruht gerade"),
    "paused_text": (
        "Its owner has paused it. This page goes on by itself.",
        "Sie wurde unterbrochen. Diese Seite macht von selbst weiter.",
    ),
    "done_title": ("Thank you!", "Vielen Dank!"),
    "done_text": (
        "That was the last one. All answers are saved; this page can be closed.",
        "Das war die letzte Aufgabe. Alle Antworten sind gespeichert; diese Seite kann geschlossen werden.",
    ),
    "closed_title": ("The study is closed", "Die Studie ist beendet"),
    "closed_text": (
        "Thank you for every answer. This page can be closed.",
        "Vielen Dank für jede Antwort. Diese Seite kann geschlossen werden.",
    ),
    "offline_title": ("No connection", "Keine Verbindung"),
    "offline_text": (
        "The next pictures cannot be loaded now. This page tries again by itself.",
        "Die nächsten Bilder lassen sich gerade nicht laden. Es wird von selbst weiter versucht.",
    ),
    "link_title": ("Open your personal link again", "Bitte den persönlichen Link erneut öffnen"),
    "link_text": (
        "The server does not know who votes here. Answers that were not sent are kept in this browser.",
        "Der Server weiß nicht, wer hier abstimmt. Nicht gesendete Antworten bleiben in diesem Browser.",
    ),
    # Notes above a set
    "offline_note": (
        "No connection. Just go on: answers are kept in this browser and sent later.",
        "Keine Verbindung. Einfach weitermachen: Antworten bleiben in diesem Browser und werden später gesendet.",
    ),
    "waiting_one": ("One answer waits to be sent.", "Eine Antwort wartet darauf, gesendet zu werden."),
    "waiting_many": ("{n} answers wait to be sent.", "{n} Antworten warten darauf, gesendet zu werden."),
    "elsewhere": (
        "That set had been answered already, perhaps in another tab.",
        "Diese Aufgabe war schon beantwortet, vielleicht in einem anderen Tab.",
    ),
    "refused": ("An answer was not taken: {error}", "Eine Antwort wurde nicht angenommen: {error}"),
}
_COLUMNS = {"en": 0, "de": 1}
LANGUAGES = tuple(_COLUMNS)
"""Codes of the languages that there are."""


def texts(language: str) -> Mapping[str, str]:
    """The words of the voter's page by name, in one language.

    Args:
        language: one of `LANGUAGES`.

    Raises:
        InputError: another language.

    Example:
        >>> texts("de")["skip"]
        'Auslassen'
    """
    check_word(language, LANGUAGES, "language")
    return {name: row[_COLUMNS[language]] for name, row in _ROWS.items()}


def best_language(header: str) -> str:
    """The language that a browser asks for first among those that there are; `FALLBACK` where it asks for none.

    Args:
        header: the value of Accept-Language, such as `de-AT, de;q=0.9, en;q=0.5`. What cannot be read counts as absent.

    Example:
        >>> best_language("fr, de-AT;q=0.8, en;q=0.5")
        'de'
    """
    best, weight = FALLBACK, 0.0
    for part in header.split(","):
        name, _, rest = part.partition(";")
        code = name.strip().lower().partition("-")[0]
        code = FALLBACK if code == "*" else code
        asked = _weight(rest)
        if code in LANGUAGES and asked > weight:
            best, weight = code, asked
    return best


def _weight(rest: str) -> float:
    """The q of a part of the header: 1 where none is given, 0 where it cannot be read."""
    name, _, value = rest.partition("=")
    if not name.strip():
        return 1.0
    try:
        asked = float(value) if name.strip().lower() == "q" else 0.0
    except ValueError:
        return 0.0
    return asked if 0.0 <= asked <= 1.0 else 0.0
