`homeserver mirror status` says what would be lost if the machine died now: what no mirror has.
