A peer that was away for long is followed again within a second or two of its first request here, whatever the wait was.
