"""A grant is revoked, and its account moves: it must not live again where that goes on."""

import json
import random
import time
from collections.abc import Iterator
from pathlib import Path
from secrets import token_urlsafe

import pytest
from attrs import field, frozen

from pkarr.keys import Keypair
from pubky_homeserver.core.grants import GRANT_TYPE, POP_TYPE, sign_jws
from tests.faults.mirroring.test_moves import MUTUAL, until_it_writes
from tests.faults.mirroring.world import Somebody, World, world

JSON = {"Content-Type": "application/json"}


@frozen
class App:
    """An app that acts for a user by a grant."""

    user: Somebody
    keypair: Keypair = field(factory=Keypair.random)
    grant_id: str = field(factory=lambda: token_urlsafe(16))

    def sign_in(self, here: World, node: str) -> tuple[int, str]:
        """Exchange the grant for a bearer: the status, and the bearer or the reason."""
        now = int(time.time())
        claims = {
            "iss": self.user.pubky, "client_id": "app.example", "caps": ["/:rw"], "jti": self.grant_id,
            "cnf": self.keypair.public_key.z32, "iat": now, "exp": now + 3600,
        }  # fmt: skip
        proof = {"aud": here.keys[node].public_key.z32, "gid": self.grant_id, "nonce": token_urlsafe(16), "iat": now}
        shown = {
            "grant": sign_jws(self.user.keypair, GRANT_TYPE, claims),
            "pop": sign_jws(self.keypair, POP_TYPE, proof),
        }
        answer, body = here.nodes[node].ask("POST", "/auth/grant/session", json.dumps(shown).encode(), JSON)
        return answer.status, json.loads(body)["token"] if answer.status == 200 else body.decode()

    def writes(self, here: World, node: str, bearer: str) -> int:
        """Write with a bearer; the status."""
        headers = {"Authorization": f"Bearer {bearer}"}
        return here.nodes[node].ask("PUT", f"/storage/{self.user.pubky}/pub/app", b"x", headers)[0].status


def revoke(here: World, node: str, app: App) -> None:
    """The user revokes the grant there."""
    target = f"/auth/grant/session/{app.grant_id}"
    headers = {"Cookie": app.user.cookies[node], "pubky-host": app.user.pubky}
    assert here.nodes[node].ask("DELETE", target, None, headers)[0].status == 200


@pytest.fixture
def both(tmp_path: Path, chance: random.Random) -> Iterator[World]:
    """Alice's and Bob's homeservers mirror each other."""
    with world(tmp_path, chance, MUTUAL) as here:
        yield here


def begin(here: World) -> tuple[App, str]:
    """A user of Alice's with a copy at Bob's, and an app with a bearer."""
    user = here.somebody("alice")
    app = App(user)
    status, bearer = app.sign_in(here, "alice")
    assert (status, app.writes(here, "alice", bearer)) == (200, 201)
    here.until_equal(user, "alice", "bob")
    return app, bearer


def test_revoked_while_the_mirror_was_cut_off(both: World) -> None:
    """I22: the mirror learns of it later, and before it opens: there it is refused from the first moment on."""
    app, bearer = begin(both)
    for way in (("bob", "alice"), ("alice", "bob")):
        both.ways[way].split()
    revoke(both, "alice", app)
    assert app.writes(both, "alice", bearer) == 401
    assert app.sign_in(both, "alice")[0] == 401
    both.heal()
    both.until_equal(app.user, "alice", "bob", unseen=1)
    both.nodes["alice"].kill()
    assert both.sign_up(app.user, "bob") == 200
    both.publish(app.user, "bob")
    until_it_writes(both, app.user, "bob")
    status, reason = app.sign_in(both, "bob")
    assert (status, "revoked" in reason.lower()) == (401, True)


@pytest.mark.parametrize("is_used", [True, False], ids=["used there", "not used there"])
def test_revoked_where_nobody_hears_of_it(both: World, is_used: bool) -> None:
    """I22: the account goes on at a mirror that cannot know; once the old home is reached, the app there ends.

    A revocation of a grant that nobody showed there waits on the shelf, and counts when the operator applies it.
    """
    app, _ = begin(both)
    for way in (("bob", "alice"), ("alice", "bob"), ("alice", "relay")):
        both.ways[way].split()
    revoke(both, "alice", app)
    assert both.sign_up(app.user, "bob") == 200
    both.publish(app.user, "bob")
    until_it_writes(both, app.user, "bob")
    if is_used:
        status, bearer = app.sign_in(both, "bob")
        assert (status, app.writes(both, "bob", bearer)) == (200, 201), "Bob cannot know"
        both.heal()
        both.until(lambda: app.writes(both, "bob", bearer) == 401, 30)
    else:
        both.heal()
        both.until(lambda: both.shelf("bob", app.user), 30)
        (item,) = both.operator("bob", f"/conflicts?pubky={app.user.pubky}")["items"]
        assert item["path"] == f"revoked:{app.grant_id}"
        done = both.operator("bob", f"/conflicts/apply?pubky={app.user.pubky}&untouched=true", "POST")
        assert len(done["applied"]) == 1
        assert not both.shelf("bob", app.user)
    status, reason = app.sign_in(both, "bob")
    assert (status, "revoked" in reason.lower()) == (401, True)
    both.until_equal(app.user, "bob", "alice", moved=True)
