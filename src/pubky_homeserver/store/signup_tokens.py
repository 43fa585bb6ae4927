"""Reading signup tokens in pages: the used and the unused ones lie in two lists, each in order."""

from pubky_homeserver.core.records import SignupToken, TokenState
from pubky_homeserver.store import schema
from pubky_homeserver.store.connection import Commands
from pubky_homeserver.store.packing import unpack_token

_LISTS = {
    TokenState.ALL: (schema.TOKENS_UNUSED, schema.TOKENS_USED),
    TokenState.USED: (schema.TOKENS_USED,),
    TokenState.UNUSED: (schema.TOKENS_UNUSED,),
}


async def token_page(redis: Commands, state: TokenState, after: str, count: int) -> list[SignupToken]:
    """Up to `count` tokens in a state above a text, ascending."""
    bound = f"({after}" if after else "-"
    flat = await redis.run("tokens", _LISTS[state], (bound, count, schema.token()))
    tokens = [unpack_token(flat[at].decode(), flat[at + 1]) for at in range(0, len(flat), 2)]
    tokens.sort(key=lambda token: token.token)
    return tokens[:count]
