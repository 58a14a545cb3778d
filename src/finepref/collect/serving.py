"""Serving a study: one process, one thread, until it is stopped; what is answered is on disk all the while."""

from __future__ import annotations

import secrets
import signal
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from finepref.collect.choices import chooser_of
from finepref.collect.desk import Desk, hashed, open_desk
from finepref.collect.owner import TOKEN
from finepref.collect.refusal import Refused
from finepref.collect.seats import ME, Seat, clean_voter, fault_of_voter
from finepref.collect.site import make_site
from finepref.core.errors import InputError
from finepref.core.interrupt import Interrupted
from finepref.formats import answers as kept
from finepref.formats.answers import StudyVoter
from finepref.formats.collection import read_study

HERE = ("127.0.0.1", "localhost", "::1")
MOST = 1000
"""New voters at once."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A study that is ready to be served. local: who votes without a link. links: name -> path of new voters' links.

    owner: path of the owner's page with its token.
    """

    desk: Desk
    local: Seat | None
    links: dict[str, str]
    owner: str


def open_study(folder: Path, *, voters: Sequence[str], host: str, owner: str | None) -> Opened:
    """Open a study whose folder the caller holds, and invite voters.

    Args:
        voters: names of new voters; those who are there already are left as they are.
        owner: the owner's token; None: a new one.

    Raises:
        InputError: a host that others reach without any voter invited, a name that cannot be seen, a short token.
    """
    about = read_study(folder)
    if owner is not None and len(owner) < 16:
        raise InputError("a token of fewer than 16 characters", where="--admin-token", remedy="make it longer")
    with kept.reading_votes(folder / kept.VOTES) as connection:
        there = kept.voters_of(connection)
    others = {each.name for each in there} - {ME, ""}
    if not voters and not others and host not in HERE:
        what = "others reach this address, and nobody is invited"
        raise InputError(what, where="--host", remedy="name voters with --voters, or leave --host out")
    names = checked_names(voters, there)

    desk = open_desk(folder, lambda pictures: chooser_of(pictures, about), time.time)
    token, local = owner or secrets.token_urlsafe(16), None
    try:
        links = {name: f"/v/{desk.invite(name)[1]}" for name in names if name not in others}
        if host in HERE and not others and not names:
            local = desk.local()
        desk.set(TOKEN, hashed(token))
    except Refused as refused:
        desk.connection.close()
        raise InputError(refused.error, where=folder, remedy="make room on the disk, then try again") from None
    return Opened(desk, local, links, f"/admin/{token}")


def checked_names(voters: Sequence[str], there: Sequence[StudyVoter] = ()) -> list[str]:
    """The names of voters that are wanted; those that are there may be among them.

    Raises:
        InputError: too many, a name that stands twice, or one that cannot be seen.
    """
    if len(voters) > MOST:
        raise InputError(f"{len(voters)} voters at once", where="--voters", remedy=f"invite {MOST} at most, then more")
    names = [_checked(name) for name in voters]
    known = {each.name for each in there if each.name != ME}
    for place, name in enumerate(names):
        fault = "" if name in known else fault_of_voter(name, there)
        if name in names[:place]:
            fault = f"{name!r} is there twice"
        if fault:
            raise InputError(fault, where="--voters", remedy="give other names")
    return names


def _checked(name: str) -> str:
    cleaned, fault = clean_voter(name)
    if fault:
        raise InputError(fault, where="--voters", remedy="give other names")
    return cleaned


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
        InputError: the port is taken, or no such address.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    found = socket.socket(family, socket.SOCK_STREAM)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((host, port))
    except OSError as error:
        found.close()
        remedy = "give another --port, or 0 for any that is free"
        raise InputError(f"{host}:{port} cannot be used ({error.strerror})", where="--port", remedy=remedy) from None
    return found


def serve(opened: Opened, listening: socket.socket) -> None:
    """Answer requests until the process is told to stop."""
    import uvicorn

    site = make_site(opened.desk, local=opened.local)
    config = uvicorn.Config(
        site, log_level="warning", access_log=False, server_header=False, date_header=False, timeout_keep_alive=30
    )
    folder = opened.desk.folder
    try:
        uvicorn.Server(config).run(sockets=[listening])
    except (KeyboardInterrupt, SystemExit) as stopped:
        number = signal.SIGINT if isinstance(stopped, KeyboardInterrupt) else signal.SIGTERM
        raise Interrupted(f"every answer is kept in {folder}; `finepref collect {folder}` goes on", number) from None
    finally:
        opened.desk.connection.close()
