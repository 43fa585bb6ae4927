"""From one version of the schema to the next.

The version lies in the data. An empty database gets today's; an older one is taken through the steps, one by one, and
the version moves after each; a newer one is not touched. A step may die halfway, or run in two processes at once, and
is then simply run again: it must be able to.
"""

from collections.abc import Awaitable, Callable, Mapping

from twisted.logger import Logger

from pubky_homeserver.core.errors import CannotStart, NewerSchema
from pubky_homeserver.store import schema
from pubky_homeserver.store.connection import Commands

Step = Callable[[Commands], Awaitable[None]]

STEPS: Mapping[int, Step] = {}
"""Version → what makes the next version of it."""


async def open_schema(
    commands: Commands, create: bool, version: int = schema.VERSION, steps: Mapping[int, Step] = STEPS
) -> None:
    """Bring the data to a version of the schema. `create`: an empty database may be a new one.

    Raises `CannotStart` if the database holds something else or, without `create`, nothing; `NewerSchema`.
    """
    found = await commands.run("open", (schema.SCHEMA,), (version if create else "",))
    if found is None:
        raise CannotStart("the Redis database is empty, though it was not a moment ago: did Redis lose its data?")
    if not found.isdigit():
        raise CannotStart("the Redis database holds the data of another program: choose an empty one in redis.url")
    stored = int(found)
    if stored > version:
        raise NewerSchema(
            f"the data in Redis was written by a newer version of this program "
            f"(schema {stored}, this one knows {version}): install that version or a newer one"
        )
    while stored < version:
        step = steps.get(stored)
        if step is None:
            raise CannotStart(
                f"the data in Redis (schema {stored}) is too old for this version: install one in between"
            )
        Logger().info("Bringing the data in Redis from schema {old} to {new}", old=stored, new=stored + 1)
        await step(commands)
        stored += 1
        await commands.call("SET", schema.SCHEMA, stored)
