"""The Mainline DHT: where signed packets are kept by those who run BitTorrent, and by us (BEP 5, 32, 42, 43, 44).

bencode, krpc, items, contacts   what is said, in records
routing, lookup                  whom to ask: arithmetic without sockets and clocks
"""
