HTTP/1.1 with pipelining, streamed bodies in both directions, and limits and time-outs against slow or hostile clients.
