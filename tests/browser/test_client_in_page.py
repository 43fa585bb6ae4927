"""The official JavaScript client in a page of headless Chromium, whose origin is not the homeserver's.

A page at `http://localhost:<port>` is of another origin than the homeserver at `http://localhost:6286`, so all its
requests are under CORS, but of the same site, so the homeserver's cookie goes with them. That is how the official test
network serves apps. A page at `http://127.0.0.1:<port>` is of another site: its browser keeps no cookie of plain HTTP
for it, and what is public can be read all the same.
"""

from collections.abc import Callable

from tests.browser.person import Person

Newcomer = Callable[..., Person]
APP = "/pub/app.example/"


def test_files(newcomer: Newcomer) -> None:
    """A page signs a user up and puts, gets, lists and deletes the user's files."""
    person = newcomer()
    user = person.do("signUp")
    assert user["capabilities"] == ["/:rw"]
    person.do("put", APP + "note.txt", "Grüße 🌍")
    person.do("put", APP + "deep/down.json", "{}")
    assert person.do("get", APP + "note.txt") == "Grüße 🌍"
    assert person.do("list", APP) == [f"pubky://{user['z32']}{APP}{name}" for name in ("deep/down.json", "note.txt")]
    person.do("remove", APP + "note.txt")
    assert person.status("get", APP + "note.txt") == 404
    assert person.do("list", APP) == [f"pubky://{user['z32']}{APP}deep/down.json"]


def test_large_file(newcomer: Newcomer) -> None:
    """A page puts and gets 5 MB without a byte changed."""
    person = newcomer()
    person.do("signUp")
    assert person.do("roundTrip", APP + "film.bin", 5 * 1024 * 1024)


def test_statistics(newcomer: Newcomer) -> None:
    """A page learns length, type and time of a file: CORS lets these headers through."""
    person = newcomer()
    person.do("signUp")
    person.do("put", APP + "a.json", "{}")
    stats = person.do("stats", APP + "a.json")
    assert (stats["contentLength"], stats["contentType"]) == (2, "application/json")
    assert stats["lastModifiedMs"] > 0


def test_reads_what_is_new(newcomer: Newcomer) -> None:
    """The browser's cache never shows a file as it was before a write."""
    writer, reader = newcomer(), newcomer()
    user = writer.do("signUp")
    address = f"pubky{user['z32']}{APP}note.txt"
    for text in ("one", "two", "three"):
        writer.do("put", APP + "note.txt", text)
        assert writer.do("get", APP + "note.txt") == text
        assert reader.do("read", address) == text
    writer.do("remove", APP + "note.txt")
    assert reader.status("read", address) == 404


def test_session_outlives_the_page(newcomer: Newcomer) -> None:
    """After a reload the browser's cookie restores the session; in another browser the exported text opens nothing."""
    person, stranger = newcomer(), newcomer()
    user = person.do("signUp")
    person.reload()
    assert person.do("restore", user["exported"])["z32"] == user["z32"]
    person.do("put", APP + "note.txt", "after the reload")
    assert person.do("get", APP + "note.txt") == "after the reload"
    assert stranger.status("restore", user["exported"]) == 401


def test_sign_out(newcomer: Newcomer) -> None:
    """After signing out the page writes nothing and restores nothing; the user's other browser stays signed in."""
    person, second = newcomer(), newcomer()
    user = person.do("signUp")
    second.do("signIn", user["secret"])
    person.do("signOut")
    assert person.status("put", APP + "note.txt", "late") == 401
    assert person.status("restore", user["exported"]) == 401
    second.do("put", APP + "note.txt", "still here")
    assert person.do("read", f"pubky{user['z32']}{APP}note.txt") == "still here"


def test_second_signer(newcomer: Newcomer) -> None:
    """Another user's page reads what is public and writes only into its own storage."""
    one, two = newcomer(), newcomer()
    first, second = one.do("signUp"), two.do("signUp")
    one.do("put", APP + "note.txt", "one's")
    two.do("put", APP + "note.txt", "two's")
    assert two.do("read", f"pubky{first['z32']}{APP}note.txt") == "one's"
    assert one.do("listPublic", f"pubky{second['z32']}{APP}") == [f"pubky://{second['z32']}{APP}note.txt"]


def test_private_files(newcomer: Newcomer) -> None:
    """The page reads its user's private files with the cookie."""
    person = newcomer()
    person.do("signUp")
    person.do("put", "/priv/app.example/diary.txt", "mine")
    assert person.do("get", "/priv/app.example/diary.txt") == "mine"
    person.do("signOut")
    assert person.status("get", "/priv/app.example/diary.txt") == 401


def test_wallet_approves_an_app(newcomer: Newcomer) -> None:
    """A wallet in one browser lets an app in another browser in, through the relay, with the rights it asked for."""
    wallet, app = newcomer(), newcomer()
    user = wallet.do("signUp")
    link = app.do("ask", APP + ":rw")
    wallet.do("approve", user["secret"], link)
    session = app.do("approved")
    assert (session["z32"], session["capabilities"]) == (user["z32"], [APP + ":rw"])
    app.do("put", APP + "note.txt", "by the app")
    assert wallet.do("get", APP + "note.txt") == "by the app"
    assert app.status("put", "/pub/elsewhere.txt", "not allowed") == 403


def test_follows_live(newcomer: Newcomer) -> None:
    """A page follows another user's folder live with EventSource."""
    writer, reader = newcomer(), newcomer()
    user = writer.do("signUp")
    writer.do("put", APP + "before.txt", "")
    reader.do("follow", user["z32"], APP)
    writer.do("put", APP + "now.txt", "")
    writer.do("remove", APP + "before.txt")
    root = f"pubky://{user['z32']}{APP}"
    assert reader.do("followed", 3) == [f"PUT {root}before.txt", f"PUT {root}now.txt", f"DEL {root}before.txt"]
    reader.do("unfollow")


def test_follows_private_files(newcomer: Newcomer) -> None:
    """A page follows its own user's private folder: the cookie goes with the stream."""
    person = newcomer()
    user = person.do("signUp")
    person.do("follow", user["z32"], "/priv/")
    person.do("put", "/priv/diary.txt", "mine")
    assert person.do("followed", 1) == [f"PUT pubky://{user['z32']}/priv/diary.txt"]
    person.do("unfollow")


def test_page_of_another_site(newcomer: Newcomer) -> None:
    """A page of another site reads public files, listings and events, and its user signs up, but without a cookie."""
    writer, foreign = newcomer(), newcomer("127.0.0.1")
    user = writer.do("signUp")
    writer.do("put", APP + "note.txt", "for everybody")
    assert foreign.do("read", f"pubky{user['z32']}{APP}note.txt") == "for everybody"
    assert foreign.do("listPublic", f"pubky{user['z32']}{APP}") == [f"pubky://{user['z32']}{APP}note.txt"]
    assert foreign.do("feed", 0).splitlines()[-1].startswith("cursor: ")
    foreign.do("follow", user["z32"], APP)
    assert foreign.do("followed", 1) == [f"PUT pubky://{user['z32']}{APP}note.txt"]
    foreign.do("unfollow")
    foreign.do("signUp")
    assert foreign.status("put", APP + "note.txt", "no cookie") == 401
