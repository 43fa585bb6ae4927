"""The Mainline DHT: where signed packets are kept by those who run BitTorrent, and by us (BEP 5, 32, 42, 43, 44).

    node        Dht, a network for packets, and its Settings
    exchange    items got and put, over IPv4 and IPv6 at once
    family      our node in one of these networks: joins, keeps up, answers
    walks       a search and a put on their way
    udp         a socket: queries, answers, and what to do with everything else
    server      what we answer, and what we keep for others
    standing    where others see us, and whether strangers reach us
    saved       what is kept over a restart
    lookup, routing                  whom to ask: arithmetic without sockets and clocks
    bencode, krpc, items, contacts   what is said, in records

The last two lines, `saved`, `server` and `standing` need no Twisted.
"""
