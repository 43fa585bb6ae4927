"""What a node keeps from one life to the next: its ids, and whom it knew."""

from __future__ import annotations

from collections.abc import Iterable

from attrs import frozen

from pkarr.dht import bencode
from pkarr.dht.contacts import ID_LENGTH, IPV4, IPV6, Contact, InvalidContact, pack_contacts, unpack_contacts
from pkarr.dht.routing import RoutingTable

MAX_SAVED = 200  # contacts of each kind of address: more than enough to join, and 8 KB at most
MAX_LENGTH = 16_384  # bytes that are read

_FIELDS = {IPV4: (b"id4", b"nodes4"), IPV6: (b"id6", b"nodes6")}


class InvalidSaved(ValueError):
    """Bytes that `Saved` did not write."""


@frozen
class Saved:
    """Ids and contacts by kind of address, 4 and 6."""

    ids: tuple[tuple[int, bytes], ...] = ()
    nodes: tuple[Contact, ...] = ()

    @classmethod
    def of(cls, tables: dict[int, RoutingTable]) -> Saved:
        """What to keep of routing tables: the nearest nodes first."""
        nodes = [contact for table in tables.values() for contact in table.closest(table.own, MAX_SAVED)]
        return cls(tuple((kind, table.own) for kind, table in tables.items()), tuple(nodes))

    @classmethod
    def parse(cls, raw: bytes) -> Saved:
        """Read what `bytes` of another one gave. InvalidSaved for anything else."""
        if len(raw) > MAX_LENGTH:
            raise InvalidSaved("too long")
        ids, nodes = list[tuple[int, bytes]](), list[Contact]()
        try:
            fields = bencode.decode(raw)
            if not isinstance(fields, dict):
                raise InvalidSaved("no dictionary")
            for kind, (id_field, nodes_field) in _FIELDS.items():
                match fields.get(id_field), fields.get(nodes_field):
                    case (bytes(id), bytes(contacts)) if len(id) == ID_LENGTH:
                        ids.append((kind, id))
                        nodes += unpack_contacts(contacts, kind, MAX_SAVED)
                    case (None, None):
                        pass
                    case _:
                        raise InvalidSaved("no id of 20 bytes")
        except (bencode.InvalidBencode, InvalidContact) as error:
            raise InvalidSaved(str(error)) from None
        return cls(tuple(ids), tuple(nodes))

    def __bytes__(self) -> bytes:
        fields: dict[bytes, bytes] = {}
        for kind, id in self.ids:
            id_field, nodes_field = _FIELDS[kind]
            fields[id_field], fields[nodes_field] = id, pack_contacts(tuple(self.contacts(kind)))
        return bencode.encode(fields)

    def id(self, kind: int) -> bytes | None:
        """Our id among nodes of a kind of address; None if we had none."""
        return dict(self.ids).get(kind)

    def contacts(self, kind: int) -> Iterable[Contact]:
        """Nodes with one kind of address."""
        return [contact for contact in self.nodes if contact.family == kind]
