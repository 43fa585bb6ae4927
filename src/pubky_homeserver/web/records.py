"""The operator looks at records in the network, and publishes the homeserver's own."""

from collections.abc import Awaitable, Callable
from ipaddress import ip_address
from typing import ClassVar
from urllib.parse import unquote

from attrs import frozen
from klein import Klein
from twisted.internet.interfaces import IReactorTime

from pkarr.client import Spread
from pkarr.interfaces import NotMostRecent
from pkarr.keys import InvalidPublicKey, PublicKey
from pkarr.packet import newest_of
from pkarr.records import AAAA, CNAME, HTTP_PORT, HTTPS, IPV4HINT, IPV6HINT, NS, PORT, SVCB, TXT, A, Record, Service
from pkarr.survey import Sighting
from pubky_homeserver.core.errors import InvalidRequest
from pubky_homeserver.web.request import Request
from pubky_homeserver.web.texts import json_body

RECORDS = b"/records/"

_TYPES = {A: "A", NS: "NS", CNAME: "CNAME", TXT: "TXT", AAAA: "AAAA", SVCB: "SVCB", HTTPS: "HTTPS"}
_PARAMETERS = {PORT: "port", IPV4HINT: "ipv4hint", IPV6HINT: "ipv6hint", HTTP_PORT: "http-port"}
_LENGTHS = {IPV4HINT: 4, IPV6HINT: 16}


@frozen
class NetworkRecords:
    """What the networks know. `survey` asks each of them for a key, `publish` gives each our own record."""

    survey: Callable[[PublicKey], Awaitable[tuple[Sighting, ...]]]
    publish: Callable[[], Awaitable[Spread]]
    clock: IReactorTime
    app: ClassVar[Klein] = Klein()

    @app.route("/records/<key>", methods=["GET"])
    async def show(self, request: Request) -> bytes:
        """What every network has of a key. 200 as JSON; 400 if it is no key.

        `records`: those of the newest packet, null if nobody has one; `timestamp` (microseconds) and `age` (seconds) of
        it; `found`: for each network the timestamp of its packet, on how many nodes it is, or why nothing is known.
        """
        try:
            key = PublicKey.parse(unquote(request.path[len(RECORDS) :].decode("ascii")))
        except (UnicodeDecodeError, InvalidPublicKey) as error:
            raise InvalidRequest(f"Not a public key: {error}") from None
        sightings = await self.survey(key)
        newest = newest_of(sighting.packet for sighting in sightings)
        return json_body(
            request,
            {
                "key": key.z32,
                "timestamp": None if newest is None else newest.timestamp,
                "age": None if newest is None else round(self.clock.seconds() - newest.timestamp / 1_000_000),
                "records": None if newest is None else [_record_json(record) for record in newest.records],
                "found": [_sighting_json(sighting) for sighting in sightings],
            },
        )

    @app.route("/record/publish", methods=["POST"])
    async def publish_now(self, request: Request) -> bytes:
        """Publish the homeserver's record at once. 200 as JSON: what each network did.

        `published`: whether it counts as published; `outdated`: whether it does not because a newer one is known.
        """
        spread = await self.publish()
        return json_body(
            request,
            {
                "published": spread.failure is None,
                "outdated": isinstance(spread.failure, NotMostRecent),
                "networks": [
                    {
                        "network": str(outcome.network),
                        "nodes": outcome.nodes if outcome.failure is None else None,
                        "failure": None if outcome.failure is None else str(outcome.failure),
                    }
                    for outcome in spread.outcomes
                ],
            },
        )


def _sighting_json(sighting: Sighting) -> dict[str, object]:
    return {
        "network": str(sighting.network),
        "timestamp": None if sighting.packet is None else sighting.packet.timestamp,
        "nodes": sighting.nodes,
        "failure": None if sighting.failure is None else str(sighting.failure),
    }


def _record_json(record: Record) -> dict[str, object]:
    return {
        "name": record.name,
        "type": _TYPES.get(record.type, f"TYPE{record.type}"),
        "ttl": record.ttl,
        "value": _value(record),
    }


def _value(record: Record) -> str:
    """What a record says, as people read it."""
    if record.address is not None:
        return str(record.address)
    if record.service is not None:
        return _service(record.service)
    for said in (record.alias, record.text):
        if said is not None:
            return said
    return record.data.hex()


def _service(service: Service) -> str:
    """Priority, target, and the parameters by name where we know one."""
    shown = [str(service.priority), service.target]
    for number, raw in service.parameters.items():
        name = _PARAMETERS.get(number, f"key{number}")
        shown.append(f"{name}={_parameter(number, raw)}")
    return " ".join(shown)


def _parameter(number: int, raw: bytes) -> str:
    if number in (PORT, HTTP_PORT):
        return str(int.from_bytes(raw, "big"))
    length = _LENGTHS.get(number)
    if length is None:
        return raw.hex()
    return ",".join(str(ip_address(raw[start : start + length])) for start in range(0, len(raw), length))
