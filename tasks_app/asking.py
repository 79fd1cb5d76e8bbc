"""WATCH and STEER: what a URL or a form asks for, value by value: what cannot be meant is put right, and told."""

from __future__ import annotations

from collections.abc import Collection

from django.contrib import messages
from django.http import HttpRequest, QueryDict

from tasks_app.audit import REASON_LENGTH

UNSEEN = "Characters that cannot be seen are left out."


class Asking:
    """Reads the values of a query; keeps one sentence for each that could not be meant as it stands."""

    def __init__(self, query: QueryDict) -> None:
        self.query = query
        self.troubles: list[str] = []

    def tell(self, text: str) -> None:
        if text and text not in self.troubles:
            self.troubles.append(text)

    @property
    def trouble(self) -> str:
        """All of it as one text; empty when there is none."""
        return " ".join(self.troubles)

    def search(self, name: str, most: int) -> str:
        """The text that is searched for, of which so many characters are."""
        return self._text(name, most, f"Only the first {most} characters are searched for.")

    def name(self, name: str, most: int) -> str:
        """The name that something is to have; of one that is too long, as much as any has."""
        return self._text(name, most, f"No {name} has so long a name.")

    def word(self, name: str, words: Collection[str], said: str) -> str:
        """One of these words; else none, and `said`."""
        given = self.query.get(name, "")
        if given in words:
            return given
        self.tell(said if given else "")
        return ""

    def _text(self, name: str, most: int, said: str) -> str:
        given = self.query.get(name, "")
        text = given.replace("\0", "").strip()
        if "\0" in given:
            self.tell(UNSEEN)
        if len(text) > most:
            self.tell(said)
        return text[:most].strip()


def reason_of(request: HttpRequest) -> str:
    """Why, as somebody wrote it for the audit; empty for most. The next page tells what of it was not kept."""
    given = request.POST.get("why", "")
    why = given.replace("\0", "").strip()
    if "\0" in given:
        messages.error(request, "A NUL character in the reason was left out.")
    if len(why) > REASON_LENGTH:
        messages.error(request, f"Only the first {REASON_LENGTH} characters of the reason were kept.")
    return why[:REASON_LENGTH]
