"""What lies in Redis, on one page. Nobody else builds a key.

Every key begins with the hash tag of the account's shard, so all that one script touches lies in one slot of a Redis
Cluster; so far there is one shard, `{0}`. Times are microseconds since the Unix epoch, lengths are bytes, and numbers
are decimal text where they stand in a field of their own. Nothing expires unless a lifetime is given.

=====================  ======  =====================================================================================
key                    type    what it holds
=====================  ======  =====================================================================================
`schema`               string  version of this page (`VERSION`)
`shard`                hash    `event` newest event id · `number` newest account number · `fences` ends of
                               sessions · `opened` how often an account opened here · totals: `users`, `disabled`,
                               `used`, `tokens`, `unused`
`numbers`              hash    account number → pubky: what the feeds say instead of 52 characters
`account:<pubky>`      hash    `number` · `created` · `admitted` · `era` another one from each fence on, absent for
                               `number` · `disabled` 1 or absent · `used` bytes ·
                               `quota` JSON, with what scripts need of it: `limit` bytes, -1 for none; `paths` that
                               may be written, one a line; all three absent for the server's default · for each log
                               (`pub`, `priv`): `pub.seq`, `pub.event` id of its newest event, `pub.digest` 16
                               bytes, `pub.floor`, `pub.reigns` one after the other, 16 bytes of log id and 5 of
                               the number where it begins; the last one rules · of an account that lives elsewhere
                               `away` that homeserver, with `used` 0 and of each log `pub.event` alone: its logs are
                               those of the copy · `missing` files without body · `verified` when all bodies
                               were last found to be right · while its files are put into the feed `announce` how far
                               that is · `before` homeservers where it lived before it opened here (`homes.lua`)
`entries:<pubky>`      zset    the account's files, all with score 0 and so in byte order: path, NUL, packed entry
                               (`packing.py`). Paths hold no control characters, so a file is found by its path
`log:pub:<pubky>`      stream  the account's public events: id `<event id>-0`, field `e` with the packed event
`log:priv:<pubky>`     stream  the private ones
`feed:pub`             stream  the public events of all accounts: id `<event id>-0`, field `n` with the account number
`feed:priv`            stream  the private ones
`blobs:<xx>`           set     blobs that an entry or a grace refers to: 16 bytes each, in 256 sets by the first byte
`graces`               zset    blobs of replaced and deleted entries: score is the time when the grace is over
`graces:named`         hash    how they are found: SHA-1 of account's files, path and hash (`log.lua`) → blob, and back
`token:<text>`         hash    a signup token: `created`, `quota`, `limit`, `paths` as in an account; `used`, `by`
`tokens:unused`        zset    texts of unused signup tokens, all with score 0
`tokens:used`          zset    texts of used ones
`session:<id>`         string  a session: pubky, era, time of creation, capabilities; one a line. It counts only in
                               this era of its account
`sessions:<pubky>`     set     ids of the account's sessions
`burned:<id>`          string  a sign-in token, or a nonce of a proof, that was seen; lives as long as it could be used
                               again
`grant:<id>`           hash    a grant that was exchanged: `pubky`, `key` of the client, `facts` JSON, `expires`
                               seconds (0 for a time beyond 63 bits), `created`, `revoked` 1 or absent, `bearer` id of
                               the live one
`grants:<pubky>`       zset    ids of the account's grants; score is the time of creation
`bearer:<id>`          string  a bearer by the hash of its text: pubky, era, seconds when it expires, when its grant was
                               first kept, the grant's `facts` with its id; one a line. Lives as long as the bearer
`copy:<pubky>`         hash    what is known of a copy of another homeserver's account, whose files and events lie where
                               those of an account do: `primary` · `begun` · `used` bytes · `missing` files without
                               body, `absent` bytes of those bodies · `names` what is no file, and came since it is a
                               copy · for each log `seq`, `event`, `digest`, `floor`, `reigns` as in an account, of its
                               last applied event · `whole` 1 or absent · `confirmed`; while its list is read `told`
                               the digest that the primary had there, `start` where it stood at the beginning
                               (`packing.py`), `listed` the last path that was kept, `compared` 1 if the log was whole
                               before · `braked` files that a comparison would remove, which waits for the operator,
                               `permitted` files that the next one may · `claimed` when its user signed up here,
                               `token` the signup token that was spent for that · `verified` as in an account; absent
                               for 0 and none · `owes` 1 if its private files are those that it had when it left, and
                               its new primary may lack them, `named` the packet that counted then · `before` as in
                               an account
`copies`               zset    pubkys of the copies, all with score 0
`opened`               zset    pubkys of the accounts that opened here last, by sign-up or by a move: score is how many
                               had opened then
`announcing`           zset    pubkys of the accounts with `announce`, all with score 0
`announced:<pubky>`    set     paths that were told to be gone, until all of that is told
`shelf:<pubky>`        zset    the account's conflict shelf, all with score 0: id, NUL, packed thing (`shelf.py`). Its
                               blobs are in use, and nothing else refers to them
`shelves`              zset    pubkys of the accounts of which something lies there, all with score 0
`shelved`              hash    homeserver → bytes that things from it take on the shelves
`hidden:copy:<pubky>`  hash    a copy that is erased, until it is wiped; so are `hidden:entries:<pubky>`,
                               `hidden:log:pub:<pubky>`, `hidden:log:priv:<pubky>` and `hidden:shelf:<pubky>`: what lay
                               there under the names without `hidden:`. Its blobs are in use
`takedowns`            zset    pubkys of accounts and copies that are taken down here: score is since when
`doomed`               zset    pubkys of copies that are to be wiped: score is when
`erased`               hash    keyed hash of a pubky, hex → log ids of its copies that were erased, 16 bytes each
`orders`               hash    peer, blank, pubky → an order to erase that copy (`erasures.py`)
`moves`                list    the newest accounts that opened here or left, for the operator (`chronicle.py`)
`forks`                zset    pubky, blank, homeserver → two different histories of that account: score is when that
                               was last found
`packet:<pubky>`       string  the newest signed packet of an account, copy or peer (PKARR): signature, timestamp, DNS
                               message
`lease`                hash    who works in the background, of several processes: `number` of times that it was another
                               one, `holder`, `until` when it has it (by Redis' clock); the last two absent for nobody
`lock:<pubky>:<path>`  string  the token of a lock; lives as long as the lock
`wake`                 channel a message after each event; its content means nothing
`revocations`          channel what was revoked: `session:<id>` or `grant:<id>`
`hints`                channel what other processes of the homeserver have to look at again: a word, and keys
=====================  ======  =====================================================================================

Bytes of Redis' memory, measured with Redis 7.0 (`tests/bench/store.py`): 390 for a file whose path has 60 bytes, its
body apart (225 the entry, 150 the event, 15 the pointer); 165 for each further write to it; 630 for an account, 600 for
its first session, 570 for a copy. The first event of a log takes a block of `stream-node-max-bytes` (4096), which then
fills up.
"""

VERSION = 1
"""Of the page above. A new one needs a step in `migrations.py`."""

_SHARD = "{0}:"

SCHEMA = _SHARD + "schema"
SHARD = _SHARD + "shard"
NUMBERS = _SHARD + "numbers"
BLOBS = _SHARD + "blobs:"
"""Beginning of the keys; scripts add the two hex digits."""
GRACES = _SHARD + "graces"
GRACED = GRACES + ":named"
COPIES = _SHARD + "copies"
ANNOUNCING = _SHARD + "announcing"
SHELVES = _SHARD + "shelves"
SHELF_USED = _SHARD + "shelved"
TAKEDOWNS = _SHARD + "takedowns"
MOVES = _SHARD + "moves"
FORKS = _SHARD + "forks"
DOOMED = _SHARD + "doomed"
ERASED = _SHARD + "erased"
ORDERS = _SHARD + "orders"
LEASE = _SHARD + "lease"
TOKENS_UNUSED = _SHARD + "tokens:unused"
TOKENS_USED = _SHARD + "tokens:used"
OPENED = _SHARD + "opened"
WAKE = _SHARD + "wake"
REVOCATIONS = _SHARD + "revocations"
HINTS = _SHARD + "hints"


def account(pubky: str) -> str:
    """The account's facts."""
    return f"{_SHARD}account:{pubky}"


def entries(pubky: str = "") -> str:
    """The account's files; without a pubky the beginning of the keys, to which scripts add it."""
    return f"{_SHARD}entries:{pubky}"


def copy(pubky: str = "") -> str:
    """What is known of a copy; without a pubky the beginning of the keys, to which scripts add it."""
    return f"{_SHARD}copy:{pubky}"


def announced(pubky: str) -> str:
    """The paths of which the feed says that they are gone, while it is said."""
    return f"{_SHARD}announced:{pubky}"


def shelf(pubky: str) -> str:
    """The account's conflict shelf."""
    return f"{_SHARD}shelf:{pubky}"


def log_name(private: bool) -> str:
    """The name of an account's public or private log in keys and fields."""
    return "priv" if private else "pub"


def log(private: bool, pubky: str = "") -> str:
    """The events of an account; without a pubky the beginning of the keys, to which scripts add it."""
    return f"{_SHARD}log:{log_name(private)}:{pubky}"


def copied(pubky: str, is_hidden: bool = False) -> tuple[str, str, str, str, str]:
    """All that is a copy's own: facts, files, public and private log, shelf. `is_hidden`: of one that is erased."""
    facts, files, public, private, things = (
        one if not is_hidden else f"{_SHARD}hidden:{one.removeprefix(_SHARD)}"
        for one in (copy(pubky), entries(pubky), log(False, pubky), log(True, pubky), shelf(pubky))
    )
    return facts, files, public, private, things


def feed(private: bool) -> str:
    """The events of all accounts."""
    return f"{_SHARD}feed:{log_name(private)}"


def blobs(first: int) -> str:
    """The blobs in use whose first byte this is."""
    return f"{BLOBS}{first:02x}"


def token(text: str = "") -> str:
    """A signup token; without a text the beginning of the keys, to which scripts add it."""
    return f"{_SHARD}token:{text}"


def session(session_id: str) -> str:
    """A session."""
    return f"{_SHARD}session:{session_id}"


def sessions(pubky: str) -> str:
    """The account's sessions."""
    return f"{_SHARD}sessions:{pubky}"


def lock(pubky: str, path: str) -> str:
    """The lock of a path."""
    return f"{_SHARD}lock:{pubky}:{path}"


def packet(pubky: str) -> str:
    """The newest signed packet of the account."""
    return f"{_SHARD}packet:{pubky}"


def burned(token_id: bytes) -> str:
    """A sign-in token, or a nonce, that was seen."""
    return f"{_SHARD}burned:{token_id.hex()}"


def grant(grant_id: str = "") -> str:
    """A grant; without an id the beginning of the keys, to which scripts add it."""
    return f"{_SHARD}grant:{grant_id}"


def grants(pubky: str) -> str:
    """The account's grants."""
    return f"{_SHARD}grants:{pubky}"


def bearer(bearer_id: str = "") -> str:
    """A bearer; without an id the beginning of the keys, to which scripts add it."""
    return f"{_SHARD}bearer:{bearer_id}"
